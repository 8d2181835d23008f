/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax of each row, CUDA: a warp per row, shuffles for the maximum and the sum; pointers are
 * device memory. */
#include <cmath>
#include <cstddef>

#define WARP 32
#define ROWS_PER_BLOCK 4

/* Butterfly exchange: every lane ends with the result. */
static __device__ float warp_max(float value)
{
    for (int mask = WARP / 2; mask > 0; mask /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, mask));
    return value;
}

static __device__ float warp_sum(float value)
{
    for (int mask = WARP / 2; mask > 0; mask /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, mask);
    return value;
}

static __global__ void softmax_kernel(size_t rows, size_t cols, const float *__restrict__ x,
                                      float *__restrict__ y)
{
    size_t row = static_cast<size_t>(blockIdx.x) * ROWS_PER_BLOCK + threadIdx.y;

    /* A warp shares its row, so it leaves as a whole and no shuffle misses a lane. */
    if (row >= rows)
        return;
    const float *in = x + row * cols;
    float *out = y + row * cols;
    float peak = -INFINITY, sum = 0.0f;

    for (size_t c = threadIdx.x; c < cols; c += WARP)
        peak = fmaxf(peak, in[c]);
    peak = warp_max(peak);
    for (size_t c = threadIdx.x; c < cols; c += WARP) {
        float e = expf(in[c] - peak);
        out[c] = e;
        sum += e;
    }
    sum = warp_sum(sum);
    for (size_t c = threadIdx.x; c < cols; c += WARP)
        out[c] /= sum;
}

void softmax_parallel(size_t rows, size_t cols, const float *__restrict__ x, float *__restrict__ y)
{
    dim3 threads(WARP, ROWS_PER_BLOCK);
    dim3 blocks(static_cast<unsigned>((rows + ROWS_PER_BLOCK - 1) / ROWS_PER_BLOCK));

    if (rows == 0 || cols == 0)
        return;
    softmax_kernel<<<blocks, threads>>>(rows, cols, x, y);
}
