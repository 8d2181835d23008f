/* SPDX-License-Identifier: Apache-2.0 */
/* Out-of-place matrix transpose, CUDA: tiles turn in shared memory, so reads and writes coalesce;
 * pointers are device memory. */
#include <cstddef>

#define TILE 32
#define TILE_ROWS 8

static __global__ void transpose_kernel(size_t rows, size_t cols, const float *__restrict__ in,
                                        float *__restrict__ out)
{
    /* The extra column puts the elements of a tile column into different banks. */
    __shared__ float tile[TILE][TILE + 1];
    size_t row0 = static_cast<size_t>(blockIdx.y) * TILE, col0 = static_cast<size_t>(blockIdx.x) * TILE;

    for (unsigned k = threadIdx.y; k < TILE; k += TILE_ROWS)
        if (row0 + k < rows && col0 + threadIdx.x < cols)
            tile[k][threadIdx.x] = in[(row0 + k) * cols + col0 + threadIdx.x];
    __syncthreads();
    for (unsigned k = threadIdx.y; k < TILE; k += TILE_ROWS)
        if (col0 + k < cols && row0 + threadIdx.x < rows)
            out[(col0 + k) * rows + row0 + threadIdx.x] = tile[threadIdx.x][k];
}

void transpose_parallel(size_t rows, size_t cols, const float *__restrict__ in, float *__restrict__ out)
{
    dim3 threads(TILE, TILE_ROWS);
    dim3 blocks(static_cast<unsigned>((cols + TILE - 1) / TILE),
                static_cast<unsigned>((rows + TILE - 1) / TILE));

    if (rows == 0 || cols == 0)
        return;
    transpose_kernel<<<blocks, threads>>>(rows, cols, in, out);
}
