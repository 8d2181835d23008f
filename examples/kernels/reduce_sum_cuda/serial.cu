/* SPDX-License-Identifier: Apache-2.0 */
/* Sum of a vector, serial on the host. */
#include <cstddef>

void reduce_sum_serial(size_t n, const double *__restrict__ x, double *__restrict__ sum)
{
    double total = 0.0;

    for (size_t i = 0; i < n; ++i)
        total += x[i];
    *sum = total;
}
