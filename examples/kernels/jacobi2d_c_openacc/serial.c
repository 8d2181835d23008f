/* SPDX-License-Identifier: Apache-2.0 */
/* Five-point Jacobi relaxation, serial: returns the largest change of the last sweep. */
#include <math.h>
#include <stddef.h>

double jacobi2d_serial(size_t rows, size_t cols, int sweeps, double *restrict u, double *restrict tmp)
{
    double change = 0.0;

    for (int s = 0; s < sweeps; ++s) {
        change = 0.0;
        for (size_t i = 1; i < rows - 1; ++i) {
            for (size_t j = 1; j < cols - 1; ++j) {
                size_t c = i * cols + j;
                tmp[c] = 0.25 * (u[c - cols] + u[c + cols] + u[c - 1] + u[c + 1]);
                change = fmax(change, fabs(tmp[c] - u[c]));
            }
        }
        for (size_t i = 1; i < rows - 1; ++i)
            for (size_t j = 1; j < cols - 1; ++j)
                u[i * cols + j] = tmp[i * cols + j];
    }
    return change;
}
