/* SPDX-License-Identifier: Apache-2.0 */
/* axpy, serial on the host: y <- a*x + y. */
#include <cstddef>

void axpy_serial(size_t n, double a, const double *__restrict__ x, double *__restrict__ y)
{
    for (size_t i = 0; i < n; ++i)
        y[i] += a * x[i];
}
