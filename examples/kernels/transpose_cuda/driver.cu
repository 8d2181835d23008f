/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: transpose_serial and transpose_parallel agree on extents that no tile divides. */
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>
#include <vector>

#define NAME "transpose_cuda"
#define TOLERANCE 0.0

void transpose_serial(size_t rows, size_t cols, const float *__restrict__ in, float *__restrict__ out);
void transpose_parallel(size_t rows, size_t cols, const float *__restrict__ in, float *__restrict__ out);

static void check(cudaError_t status, const char *what)
{
    if (status != cudaSuccess) {
        printf("FAIL %s %s: %s\n", NAME, what, cudaGetErrorString(status));
        exit(EXIT_FAILURE);
    }
}

static void require_device()
{
    int devices = 0;

    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        printf("SKIP %s: no CUDA device\n", NAME);
        exit(77);
    }
}

template <typename T> static T *upload(const std::vector<T> &host)
{
    T *device = nullptr;

    check(cudaMalloc(&device, host.size() * sizeof(T)), "cudaMalloc");
    check(cudaMemcpy(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice), "upload");
    return device;
}

/* The copy waits for the kernels, so it also reports the errors of their execution. */
template <typename T> static void download(std::vector<T> &host, T *device)
{
    check(cudaGetLastError(), "launch");
    check(cudaMemcpy(host.data(), device, host.size() * sizeof(T), cudaMemcpyDeviceToHost), "download");
    check(cudaFree(device), "cudaFree");
}

/* Largest difference relative to max(1, |want|); NaN, the poison, counts as infinite. */
template <typename T> static double max_diff(const std::vector<T> &want, const std::vector<T> &got)
{
    double worst = 0.0;

    for (size_t i = 0; i < want.size(); ++i) {
        double w = static_cast<double>(want[i]);
        double d = std::fabs(w - static_cast<double>(got[i])) / std::fmax(1.0, std::fabs(w));
        if (!(d <= worst))
            worst = std::isnan(d) ? INFINITY : d;
    }
    return worst;
}

static int report(double worst)
{
    if (worst <= TOLERANCE) {
        printf("PASS %s max_diff=%.3e\n", NAME, worst);
        return EXIT_SUCCESS;
    }
    printf("FAIL %s max_diff=%.3e exceeds tolerance %.1e\n", NAME, worst, TOLERANCE);
    return EXIT_FAILURE;
}

int main()
{
    const size_t rows = 131, cols = 205;
    std::vector<float> in(rows * cols), want(rows * cols, NAN), got(rows * cols, NAN);

    require_device();
    for (size_t i = 0; i < in.size(); ++i)
        in[i] = static_cast<float>(i);
    float *d_in = upload(in), *d_out = upload(got);
    transpose_serial(rows, cols, in.data(), want.data());
    transpose_parallel(rows, cols, d_in, d_out);
    download(got, d_out);
    check(cudaFree(d_in), "cudaFree");
    return report(max_diff(want, got));
}
