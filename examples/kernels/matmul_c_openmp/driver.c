/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: matmul_serial and matmul_parallel agree on sizes that no tile divides. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME "matmul_c_openmp"
#define TOLERANCE 1e-12
enum { M = 131, N = 149, K = 107 };

void matmul_serial(size_t m, size_t n, size_t k, const double *restrict a, const double *restrict b,
                   double *restrict c);
void matmul_parallel(size_t m, size_t n, size_t k, const double *restrict a, const double *restrict b,
                     double *restrict c);

static double a[M * K], b[K * N], want[M * N], got[M * N];

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
    for (size_t i = 0; i < M * K; ++i)
        a[i] = sin(0.37 * (double)i);
    for (size_t i = 0; i < K * N; ++i)
        b[i] = cos(0.53 * (double)i);
    for (size_t i = 0; i < M * N; ++i)
        want[i] = got[i] = NAN;
    matmul_serial(M, N, K, a, b, want);
    matmul_parallel(M, N, K, a, b, got);
    return report(max_diff(M * N, want, got));
}
