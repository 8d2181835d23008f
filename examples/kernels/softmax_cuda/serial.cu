/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax of each row, serial on the host, shifted by the row maximum against overflow. */
#include <cmath>
#include <cstddef>

void softmax_serial(size_t rows, size_t cols, const float *__restrict__ x, float *__restrict__ y)
{
    for (size_t r = 0; r < rows; ++r) {
        const float *in = x + r * cols;
        float *out = y + r * cols;
        float peak = -INFINITY, sum = 0.0f;

        for (size_t c = 0; c < cols; ++c)
            peak = fmaxf(peak, in[c]);
        for (size_t c = 0; c < cols; ++c) {
            out[c] = expf(in[c] - peak);
            sum += out[c];
        }
        for (size_t c = 0; c < cols; ++c)
            out[c] /= sum;
    }
}
