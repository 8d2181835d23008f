/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: nbody_serial and nbody_parallel agree to rounding of the reordered sums. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME "nbody_c_openmp"
#define TOLERANCE 1e-11
enum { N = 603 };

void nbody_serial(size_t n, double softening, const double *restrict mass, const double *restrict x,
                  const double *restrict y, const double *restrict z, double *restrict ax,
                  double *restrict ay, double *restrict az);
void nbody_parallel(size_t n, double softening, const double *restrict mass, const double *restrict x,
                    const double *restrict y, const double *restrict z, double *restrict ax,
                    double *restrict ay, double *restrict az);

static double mass[N], x[N], y[N], z[N];
static double want[3][N], got[3][N];

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
    for (size_t i = 0; i < N; ++i) {
        mass[i] = 1.0 + 0.5 * sin(0.7 * (double)i);
        x[i] = 10.0 * sin(1.3 * (double)i);
        y[i] = 10.0 * cos(2.1 * (double)i);
        z[i] = 10.0 * sin(0.9 * (double)i + 0.4);
        for (size_t d = 0; d < 3; ++d)
            want[d][i] = got[d][i] = NAN;
    }
    nbody_serial(N, 0.05, mass, x, y, z, want[0], want[1], want[2]);
    nbody_parallel(N, 0.05, mass, x, y, z, got[0], got[1], got[2]);
    return report(max_diff(3 * N, want[0], got[0]));
}
