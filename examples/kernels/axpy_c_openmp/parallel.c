/* SPDX-License-Identifier: Apache-2.0 */
/* axpy, OpenMP: threads take contiguous chunks, each chunk is vectorised. */
#include <stddef.h>

void axpy_parallel(size_t n, double a, const double *restrict x, double *restrict y)
{
#pragma omp parallel for simd schedule(static) default(none) shared(n, a, x, y)
    for (size_t i = 0; i < n; ++i)
        y[i] += a * x[i];
}
