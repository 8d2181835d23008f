/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: argmax_serial and argmax_parallel name the same position, ties included. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME "argmax_c_openmp"
#define TOLERANCE 0.0
enum { N = 90001 };

size_t argmax_serial(size_t n, const double *x);
size_t argmax_parallel(size_t n, const double *x);

static double x[N];

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
    static const size_t peaks[] = {0, 1, 45000, 71234, N - 1};
    double worst = 0.0;

    for (size_t p = 0; p < sizeof peaks / sizeof peaks[0]; ++p) {
        for (size_t i = 0; i < N; ++i)
            x[i] = sin(0.01 * (double)i);
        /* The same peak again at the end: only its first occurrence counts. */
        x[peaks[p]] = x[N - 1] = 2.0;
        size_t want = argmax_serial(N, x);
        size_t got = argmax_parallel(N, x);
        if (want != peaks[p]) {
            printf("FAIL %s serial found %zu, the peak is at %zu\n", NAME, want, peaks[p]);
            return EXIT_FAILURE;
        }
        worst = fmax(worst, fabs((double)want - (double)got));
    }
    return report(worst);
}
