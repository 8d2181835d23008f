/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: scan_serial and scan_parallel agree exactly, also on vectors shorter than the team. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME "scan_c_openmp"
#define TOLERANCE 0.0
enum { N = 65537 };

void scan_serial(size_t n, const int64_t *restrict in, int64_t *restrict out);
void scan_parallel(size_t n, const int64_t *restrict in, int64_t *restrict out);

static int64_t in[N], want[N], got[N];

static double difference(size_t n)
{
    double worst = 0.0;

    for (size_t i = 0; i < n; ++i) {
        want[i] = INT64_MIN;
        got[i] = INT64_MAX;
    }
    scan_serial(n, in, want);
    scan_parallel(n, in, got);
    for (size_t i = 0; i < n; ++i) {
        double d = want[i] > got[i] ? (double)want[i] - (double)got[i] : (double)got[i] - (double)want[i];
        if (want[i] != got[i] && d >= worst)
            worst = d > 1.0 ? d : 1.0;
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
    static const size_t sizes[] = {0, 1, 3, N};
    double worst = 0.0;

    for (size_t i = 0; i < N; ++i)
        in[i] = (int64_t)(i * 2654435761u % 2003u) - 1001;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; ++s) {
        double d = difference(sizes[s]);
        worst = d > worst ? d : worst;
    }
    return report(worst);
}
