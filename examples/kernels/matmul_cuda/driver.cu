/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: matmul_serial and matmul_parallel agree on extents that no tile divides. */
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>
#include <vector>

#define NAME "matmul_cuda"
#define TOLERANCE 2e-5

void matmul_serial(size_t m, size_t n, size_t k, const float *__restrict__ a, const float *__restrict__ b,
                   float *__restrict__ c);
void matmul_parallel(size_t m, size_t n, size_t k, const float *__restrict__ a, const float *__restrict__ b,
                     float *__restrict__ c);

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
    const size_t m = 101, n = 87, k = 133;
    std::vector<float> a(m * k), b(k * n), want(m * n, NAN), got(m * n, NAN);

    require_device();
    for (size_t i = 0; i < a.size(); ++i)
        a[i] = std::sin(0.37f * static_cast<float>(i % 1013));
    for (size_t i = 0; i < b.size(); ++i)
        b[i] = std::cos(0.53f * static_cast<float>(i % 997));
    float *d_a = upload(a), *d_b = upload(b), *d_c = upload(got);
    matmul_serial(m, n, k, a.data(), b.data(), want.data());
    matmul_parallel(m, n, k, d_a, d_b, d_c);
    download(got, d_c);
    check(cudaFree(d_a), "cudaFree");
    check(cudaFree(d_b), "cudaFree");
    return report(max_diff(want, got));
}
