/* SPDX-License-Identifier: Apache-2.0 */
/* Dot product, serial. */
#include <stddef.h>

double dot_serial(size_t n, const double *restrict x, const double *restrict y)
{
    double sum = 0.0;

    for (size_t i = 0; i < n; ++i)
        sum += x[i] * y[i];
    return sum;
}
