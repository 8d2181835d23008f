/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: histogram_serial and histogram_parallel agree exactly on a skewed byte stream. */
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>
#include <vector>

#define NAME "histogram_cuda"
#define TOLERANCE 0.0

void histogram_serial(size_t n, const unsigned char *__restrict__ text, unsigned *__restrict__ counts);
void histogram_parallel(size_t n, const unsigned char *__restrict__ text, unsigned *__restrict__ counts);

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
    const size_t n = 100003;
    std::vector<unsigned char> text(n);
    std::vector<unsigned> want(256, 7u), got(256, UINT32_MAX);
    uint32_t state = 12345u;

    require_device();
    /* The product of two bytes favours small values, so the bins fill unevenly. */
    for (unsigned char &byte : text) {
        state = state * 1664525u + 1013904223u;
        byte = static_cast<unsigned char>((state >> 24) * (state >> 16 & 0xffu) >> 8);
    }
    unsigned char *d_text = upload(text);
    unsigned *d_counts = upload(got);
    histogram_serial(n, text.data(), want.data());
    histogram_parallel(n, d_text, d_counts);
    download(got, d_counts);
    check(cudaFree(d_text), "cudaFree");
    return report(max_diff(want, got));
}
