/* SPDX-License-Identifier: Apache-2.0 */
/* axpy, serial: y <- a*x + y on contiguous vectors. */
#include <stddef.h>

void axpy_serial(size_t n, double a, const double *restrict x, double *restrict y)
{
    for (size_t i = 0; i < n; ++i)
        y[i] += a * x[i];
}
