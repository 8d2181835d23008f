/* SPDX-License-Identifier: Apache-2.0 */
/* Inclusive prefix sum, serial: out[i] = in[0] + ... + in[i]. */
#include <stddef.h>
#include <stdint.h>

void scan_serial(size_t n, const int64_t *restrict in, int64_t *restrict out)
{
    int64_t sum = 0;

    for (size_t i = 0; i < n; ++i) {
        sum += in[i];
        out[i] = sum;
    }
}
