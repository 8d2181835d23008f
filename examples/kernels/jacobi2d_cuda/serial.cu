/* SPDX-License-Identifier: Apache-2.0 */
/* Five-point Jacobi relaxation, serial on the host: result in u, tmp is work space of the same size. */
#include <cstddef>
#include <cstring>

static void sweep(size_t rows, size_t cols, const double *__restrict__ src, double *__restrict__ dst)
{
    for (size_t i = 1; i + 1 < rows; ++i) {
        for (size_t j = 1; j + 1 < cols; ++j) {
            size_t c = i * cols + j;
            dst[c] = 0.25 * (src[c - cols] + src[c + cols] + src[c - 1] + src[c + 1]);
        }
    }
}

void jacobi2d_serial(size_t rows, size_t cols, int sweeps, double *__restrict__ u,
                     double *__restrict__ tmp)
{
    size_t bytes = rows * cols * sizeof *u;
    double *src = u, *dst = tmp;

    memcpy(tmp, u, bytes);
    for (int s = 0; s < sweeps; ++s) {
        sweep(rows, cols, src, dst);
        double *swap = src;
        src = dst;
        dst = swap;
    }
    if (src != u)
        memcpy(u, src, bytes);
}
