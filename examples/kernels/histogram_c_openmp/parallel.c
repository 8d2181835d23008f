/* SPDX-License-Identifier: Apache-2.0 */
/* Byte histogram, OpenMP: private tables merged by an array-section reduction. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

void histogram_parallel(size_t n, const unsigned char *restrict text, uint64_t counts[256])
{
    memset(counts, 0, 256 * sizeof counts[0]);
#pragma omp parallel for schedule(static) reduction(+ : counts[ : 256])
    for (size_t i = 0; i < n; ++i)
        ++counts[text[i]];
}
