/* SPDX-License-Identifier: Apache-2.0 */
/* Dense matrix product, serial on the host: C <- A*B, row-major, A is m x k and B is k x n. */
#include <cstddef>

void matmul_serial(size_t m, size_t n, size_t k, const float *__restrict__ a, const float *__restrict__ b,
                   float *__restrict__ c)
{
    for (size_t i = 0; i < m; ++i) {
        for (size_t j = 0; j < n; ++j) {
            float sum = 0.0f;
            for (size_t p = 0; p < k; ++p)
                sum += a[i * k + p] * b[p * n + j];
            c[i * n + j] = sum;
        }
    }
}
