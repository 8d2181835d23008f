/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: reduce_sum_serial and reduce_sum_parallel agree from empty to many blocks. */
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>
#include <vector>

#define NAME "reduce_sum_cuda"
#define TOLERANCE 1e-11

void reduce_sum_serial(size_t n, const double *__restrict__ x, double *__restrict__ sum);
void reduce_sum_parallel(size_t n, const double *__restrict__ x, double *__restrict__ sum);

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
    const std::vector<size_t> sizes = {0, 1, 33, 257, 400009};
    std::vector<double> x(sizes.back()), want(sizes.size(), NAN), got(sizes.size(), NAN);

    require_device();
    for (size_t i = 0; i < x.size(); ++i)
        x[i] = 0.1 + std::sin(0.37 * static_cast<double>(i));
    double *d_x = upload(x), *d_sums = upload(got);
    for (size_t s = 0; s < sizes.size(); ++s) {
        reduce_sum_serial(sizes[s], x.data(), &want[s]);
        reduce_sum_parallel(sizes[s], d_x, d_sums + s);
    }
    download(got, d_sums);
    check(cudaFree(d_x), "cudaFree");
    return report(max_diff(want, got));
}
