/* SPDX-License-Identifier: Apache-2.0 */
/* Byte histogram, serial on the host: how often each of the 256 byte values occurs. */
#include <cstddef>

void histogram_serial(size_t n, const unsigned char *__restrict__ text, unsigned *__restrict__ counts)
{
    for (int b = 0; b < 256; ++b)
        counts[b] = 0;
    for (size_t i = 0; i < n; ++i)
        ++counts[text[i]];
}
