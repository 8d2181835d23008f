/* SPDX-License-Identifier: Apache-2.0 */
/* Byte histogram, serial: how often each of the 256 byte values occurs in a text. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

void histogram_serial(size_t n, const unsigned char *restrict text, uint64_t counts[256])
{
    memset(counts, 0, 256 * sizeof counts[0]);
    for (size_t i = 0; i < n; ++i)
        ++counts[text[i]];
}
