/* SPDX-License-Identifier: Apache-2.0 */
/* Dense matrix product, OpenMP: one thread owns a tile of C, so no updates collide. */
#include <stddef.h>

#define TILE 48

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

void matmul_parallel(size_t m, size_t n, size_t k, const double *restrict a, const double *restrict b,
                     double *restrict c)
{
#pragma omp parallel for collapse(2) schedule(static) default(none) shared(m, n, k, a, b, c)
    for (size_t ii = 0; ii < m; ii += TILE) {
        for (size_t jj = 0; jj < n; jj += TILE) {
            size_t iend = min_size(ii + TILE, m);
            size_t jend = min_size(jj + TILE, n);

            for (size_t i = ii; i < iend; ++i)
                for (size_t j = jj; j < jend; ++j)
                    c[i * n + j] = 0.0;

            /* Blocking over k keeps the tile of B in cache while the rows of A pass by. */
            for (size_t pp = 0; pp < k; pp += TILE) {
                size_t pend = min_size(pp + TILE, k);
                for (size_t i = ii; i < iend; ++i) {
                    for (size_t p = pp; p < pend; ++p) {
                        double aip = a[i * k + p];
#pragma omp simd
                        for (size_t j = jj; j < jend; ++j)
                            c[i * n + j] += aip * b[p * n + j];
                    }
                }
            }
        }
    }
}
