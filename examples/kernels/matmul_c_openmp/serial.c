/* SPDX-License-Identifier: Apache-2.0 */
/* Dense matrix product, serial: C <- A*B, row-major, A is m x k and B is k x n. */
#include <stddef.h>

void matmul_serial(size_t m, size_t n, size_t k, const double *restrict a, const double *restrict b,
                   double *restrict c)
{
    for (size_t i = 0; i < m; ++i) {
        for (size_t j = 0; j < n; ++j)
            c[i * n + j] = 0.0;
        for (size_t p = 0; p < k; ++p) {
            double aip = a[i * k + p];
            for (size_t j = 0; j < n; ++j)
                c[i * n + j] += aip * b[p * n + j];
        }
    }
}
