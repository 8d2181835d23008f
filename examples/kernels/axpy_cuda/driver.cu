/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: axpy_serial and axpy_parallel agree, and neither writes past its vector. */
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>
#include <vector>

#define NAME "axpy_cuda"
#define TOLERANCE 1e-14

void axpy_serial(size_t n, double a, const double *__restrict__ x, double *__restrict__ y);
void axpy_parallel(size_t n, double a, const double *__restrict__ x, double *__restrict__ y);

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
    /* More elements than one pass of the bounded grid, plus guard elements behind them. */
    const size_t n = 1200007, guard = 16;
    const double sentinel = -12345.0;
    std::vector<double> x(n + guard, 1.0), want(n + guard, sentinel), got;

    require_device();
    for (size_t i = 0; i < n; ++i) {
        x[i] = std::sin(0.37 * static_cast<double>(i));
        want[i] = std::cos(0.11 * static_cast<double>(i));
    }
    got = want;
    double *d_x = upload(x), *d_y = upload(got);
    axpy_serial(n, 1.75, x.data(), want.data());
    axpy_parallel(n, 1.75, d_x, d_y);
    download(got, d_y);
    check(cudaFree(d_x), "cudaFree");
    for (size_t i = n; i < n + guard; ++i)
        want[i] = sentinel;
    return report(max_diff(want, got));
}
