/* SPDX-License-Identifier: Apache-2.0 */
/* axpy, CUDA: a grid-stride loop, so a bounded grid covers any length; pointers are device memory. */
#include <cstddef>

static __global__ void axpy_kernel(size_t n, double a, const double *__restrict__ x, double *__restrict__ y)
{
    size_t stride = static_cast<size_t>(blockDim.x) * gridDim.x;

    for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride)
        y[i] += a * x[i];
}

void axpy_parallel(size_t n, double a, const double *__restrict__ x, double *__restrict__ y)
{
    const unsigned threads = 256;
    const size_t max_blocks = 4096;
    size_t blocks = (n + threads - 1) / threads;

    if (n == 0)
        return;
    if (blocks > max_blocks)
        blocks = max_blocks;
    axpy_kernel<<<static_cast<unsigned>(blocks), threads>>>(n, a, x, y);
}
