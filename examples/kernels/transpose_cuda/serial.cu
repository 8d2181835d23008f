/* SPDX-License-Identifier: Apache-2.0 */
/* Out-of-place matrix transpose, serial on the host: out (cols x rows) <- in (rows x cols). */
#include <cstddef>

void transpose_serial(size_t rows, size_t cols, const float *__restrict__ in, float *__restrict__ out)
{
    for (size_t r = 0; r < rows; ++r)
        for (size_t c = 0; c < cols; ++c)
            out[c * rows + r] = in[r * cols + c];
}
