/* SPDX-License-Identifier: Apache-2.0 */
/* Byte histogram, CUDA: shared counters per block keep most atomics off global memory; pointers are
 * device memory. */
#include <cstddef>
#include <cuda_runtime.h>

#define BINS 256

static __global__ void histogram_kernel(size_t n, const unsigned char *__restrict__ text,
                                        unsigned *__restrict__ counts)
{
    __shared__ unsigned local[BINS];
    size_t stride = static_cast<size_t>(blockDim.x) * gridDim.x;

    for (unsigned b = threadIdx.x; b < BINS; b += blockDim.x)
        local[b] = 0;
    __syncthreads();
    for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride)
        atomicAdd(&local[text[i]], 1u);
    __syncthreads();
    for (unsigned b = threadIdx.x; b < BINS; b += blockDim.x)
        if (local[b] > 0)
            atomicAdd(&counts[b], local[b]);
}

void histogram_parallel(size_t n, const unsigned char *__restrict__ text, unsigned *__restrict__ counts)
{
    const unsigned threads = 256;
    const size_t max_blocks = 256;
    size_t blocks = (n + threads - 1) / threads;

    cudaMemsetAsync(counts, 0, BINS * sizeof *counts);
    if (n == 0)
        return;
    if (blocks > max_blocks)
        blocks = max_blocks;
    histogram_kernel<<<static_cast<unsigned>(blocks), threads>>>(n, text, counts);
}
