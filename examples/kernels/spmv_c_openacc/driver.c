/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: spmv_serial and spmv_parallel agree on a matrix with uneven and with empty rows. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME "spmv_c_openacc"
#define TOLERANCE 1e-13
enum { ROWS = 1201, COLS = 997, MAX_PER_ROW = 23 };

void spmv_serial(int rows, int cols, const int *restrict row_ptr, const int *restrict col_idx,
                 const double *restrict val, const double *restrict x, double *restrict y);
void spmv_parallel(int rows, int cols, const int *restrict row_ptr, const int *restrict col_idx,
                   const double *restrict val, const double *restrict x, double *restrict y);

static int row_ptr[ROWS + 1], col_idx[ROWS * MAX_PER_ROW];
static double val[ROWS * MAX_PER_ROW], x[COLS], want[ROWS], got[ROWS];

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

int main(void)
{
    for (int i = 0; i < ROWS; ++i) {
        int count = i * 7 % (MAX_PER_ROW + 1);
        row_ptr[i + 1] = row_ptr[i] + count;
        for (int k = 0; k < count; ++k) {
            col_idx[row_ptr[i] + k] = (i * 31 + k * 41) % COLS;
            val[row_ptr[i] + k] = sin(0.3 * i + 1.7 * k);
        }
        want[i] = got[i] = NAN;
    }
    for (int j = 0; j < COLS; ++j)
        x[j] = cos(0.21 * j);
    spmv_serial(ROWS, COLS, row_ptr, col_idx, val, x, want);
    spmv_parallel(ROWS, COLS, row_ptr, col_idx, val, x, got);
    return report(max_diff(ROWS, want, got));
}
