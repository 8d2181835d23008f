/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: axpy_serial and axpy_parallel agree, and neither writes past its vector. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME "axpy_c_openmp"
#define TOLERANCE 1e-14
enum { N = 100003, GUARD = 16 };

void axpy_serial(size_t n, double a, const double *restrict x, double *restrict y);
void axpy_parallel(size_t n, double a, const double *restrict x, double *restrict y);

static double x[N + GUARD], want[N + GUARD], got[N + GUARD];

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
    for (size_t i = 0; i < N + GUARD; ++i) {
        x[i] = sin(0.37 * (double)i);
        want[i] = got[i] = i < N ? cos(0.11 * (double)i) : -12345.0;
    }
    axpy_serial(N, 1.75, x, want);
    axpy_parallel(N, 1.75, x, got);
    for (size_t i = N; i < N + GUARD; ++i)
        want[i] = -12345.0;
    return report(max_diff(N + GUARD, want, got));
}
