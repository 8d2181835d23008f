/* SPDX-License-Identifier: Apache-2.0 */
/* Sum of a vector, CUDA: block sums by warp shuffles, then one block adds them; no atomics, so the
 * result does not vary from run to run. Pointers are device memory. */
#include <cstddef>
#include <cuda_runtime.h>

#define THREADS 256
#define WARPS (THREADS / 32)

static __device__ double warp_sum(double value)
{
    for (int offset = 16; offset > 0; offset /= 2)
        value += __shfl_down_sync(0xffffffffu, value, offset);
    return value;
}

static __global__ void block_sums(size_t n, const double *__restrict__ x, double *__restrict__ sums)
{
    __shared__ double warp_sums[WARPS];
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    size_t stride = static_cast<size_t>(blockDim.x) * gridDim.x;
    double value = 0.0;

    for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride)
        value += x[i];
    value = warp_sum(value);
    if (lane == 0)
        warp_sums[warp] = value;
    __syncthreads();

    if (warp == 0) {
        value = warp_sum(lane < WARPS ? warp_sums[lane] : 0.0);
        if (lane == 0)
            sums[blockIdx.x] = value;
    }
}

void reduce_sum_parallel(size_t n, const double *__restrict__ x, double *__restrict__ sum)
{
    const size_t max_blocks = 512;
    size_t blocks = (n + THREADS - 1) / THREADS;
    double *partial = nullptr;

    blocks = blocks < 1 ? 1 : blocks > max_blocks ? max_blocks : blocks;
    if (cudaMallocAsync(&partial, blocks * sizeof *partial, 0) != cudaSuccess)
        return;
    block_sums<<<static_cast<unsigned>(blocks), THREADS>>>(n, x, partial);
    block_sums<<<1, THREADS>>>(blocks, partial, sum);
    cudaFreeAsync(partial, 0);
}
