/* SPDX-License-Identifier: Apache-2.0 */
/* Argmax, serial: the first position of the largest of n >= 1 values. */
#include <stddef.h>

size_t argmax_serial(size_t n, const double *x)
{
    size_t best = 0;

    for (size_t i = 1; i < n; ++i)
        if (x[i] > x[best])
            best = i;
    return best;
}
