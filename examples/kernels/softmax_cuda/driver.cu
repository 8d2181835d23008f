/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: softmax_serial and softmax_parallel agree on rows narrower and wider than a warp. */
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>
#include <vector>

#define NAME "softmax_cuda"
#define TOLERANCE 1e-5

void softmax_serial(size_t rows, size_t cols, const float *__restrict__ x, float *__restrict__ y);
void softmax_parallel(size_t rows, size_t cols, const float *__restrict__ x, float *__restrict__ y);

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
    const size_t rows = 37;
    double worst = 0.0;

    require_device();
    for (size_t cols : {size_t{1}, size_t{19}, size_t{301}}) {
        std::vector<float> x(rows * cols), want(rows * cols, NAN), got(rows * cols, NAN);
        for (size_t i = 0; i < x.size(); ++i)
            /* Large enough that the exponentials overflow without the shift. */
            x[i] = 200.0f * std::sin(0.013f * static_cast<float>(i % 4099));
        float *d_x = upload(x), *d_y = upload(got);
        softmax_serial(rows, cols, x.data(), want.data());
        softmax_parallel(rows, cols, d_x, d_y);
        download(got, d_y);
        check(cudaFree(d_x), "cudaFree");
        worst = std::fmax(worst, max_diff(want, got));
    }
    return report(worst);
}
