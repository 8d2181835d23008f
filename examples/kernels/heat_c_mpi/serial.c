/* SPDX-License-Identifier: Apache-2.0 */
/* Explicit 2-D heat equation, serial: fixed boundary, r = alpha*dt/h^2. */
#include <stdlib.h>
#include <string.h>

void heat_serial(int rows, int cols, int steps, double r, double *u)
{
    size_t width = (size_t)cols;
    size_t bytes = (size_t)rows * width * sizeof *u;
    double *old = malloc(bytes);

    if (old == NULL)
        abort();
    for (int s = 0; s < steps; ++s) {
        memcpy(old, u, bytes);
        for (int i = 1; i < rows - 1; ++i) {
            for (int j = 1; j < cols - 1; ++j) {
                size_t c = (size_t)i * width + (size_t)j;
                double sides = old[c - width] + old[c + width] + old[c - 1] + old[c + 1];
                u[c] = old[c] + r * (sides - 4.0 * old[c]);
            }
        }
    }
    free(old);
}
