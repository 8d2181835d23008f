/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: jacobi2d_serial and jacobi2d_parallel agree on the grid and on the last change. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME "jacobi2d_c_openacc"
#define TOLERANCE 1e-13
enum { ROWS = 83, COLS = 117, CELLS = ROWS * COLS, SWEEPS = 41 };

double jacobi2d_serial(size_t rows, size_t cols, int sweeps, double *restrict u, double *restrict tmp);
double jacobi2d_parallel(size_t rows, size_t cols, int sweeps, double *restrict u, double *restrict tmp);

/* One more element than the grid holds the returned change, compared like a cell. */
static double want[CELLS + 1], got[CELLS + 1], tmp[CELLS];

/* Largest difference relative to max(1, |want|); NaN, the poison, counts as infinite. */
static double max_diff(size_t n, const double *want, const double *got)
{
    double worst = 0.0;
    for (size_t i = 0; i < n; ++i) {
        double d = fabs(want[i] - got[i]) / fmax(1.0, fabs(want[i]));
        if (!(d <= worst))
            worst = isnan(d) ? INFINITY : d;
    }
    return worst;
}

static int report(double worst)
{
    if (worst <= TOLERANCE) {
        printf("PASS %s max_diff=%.3e\n", NAME, worst);
        return EXIT_SUCCESS;
    }
    printf("FAIL %s max_diff=%.3e exceeds tolerance %.1e\n", NAME, worst, TOLERANCE);
    return EXIT_FAILURE;
}

static void poison(double *work)
{
    for (size_t i = 0; i < CELLS; ++i)
        work[i] = NAN;
}

int main(void)
{
    for (size_t i = 0; i < CELLS; ++i)
        want[i] = got[i] = sin(0.29 * (double)i) + 0.01 * (double)(i % COLS);
    poison(tmp);
    want[CELLS] = jacobi2d_serial(ROWS, COLS, SWEEPS, want, tmp);
    poison(tmp);
    got[CELLS] = jacobi2d_parallel(ROWS, COLS, SWEEPS, got, tmp);
    return report(max_diff(CELLS + 1, want, got));
}
