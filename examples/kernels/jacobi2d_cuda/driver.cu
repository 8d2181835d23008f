/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: jacobi2d_serial and jacobi2d_parallel agree after an odd and an even number of sweeps. */
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>
#include <vector>

#define NAME "jacobi2d_cuda"
#define TOLERANCE 1e-13

void jacobi2d_serial(size_t rows, size_t cols, int sweeps, double *__restrict__ u,
                     double *__restrict__ tmp);
void jacobi2d_parallel(size_t rows, size_t cols, int sweeps, double *__restrict__ u,
                       double *__restrict__ tmp);

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
    const size_t rows = 83, cols = 117;
    double worst = 0.0;

    require_device();
    for (int sweeps : {11, 12}) {
        std::vector<double> want(rows * cols), tmp(rows * cols, NAN), got;
        for (size_t i = 0; i < want.size(); ++i)
            want[i] = std::sin(0.29 * static_cast<double>(i)) + 0.01 * static_cast<double>(i % cols);
        got = want;
        double *d_u = upload(got), *d_tmp = upload(tmp);
        jacobi2d_serial(rows, cols, sweeps, want.data(), tmp.data());
        jacobi2d_parallel(rows, cols, sweeps, d_u, d_tmp);
        download(got, d_u);
        check(cudaFree(d_tmp), "cudaFree");
        worst = std::fmax(worst, max_diff(want, got));
    }
    return report(worst);
}
