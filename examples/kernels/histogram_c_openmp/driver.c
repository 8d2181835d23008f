/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: histogram_serial and histogram_parallel agree exactly on a skewed byte stream. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME "histogram_c_openmp"
#define TOLERANCE 0.0
enum { N = 300007 };

void histogram_serial(size_t n, const unsigned char *restrict text, uint64_t counts[256]);
void histogram_parallel(size_t n, const unsigned char *restrict text, uint64_t counts[256]);

static unsigned char text[N];
static uint64_t want[256], got[256];

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
    uint32_t state = 12345u;
    double worst = 0.0;

    /* The product of two bytes favours small values, so the bins fill unevenly. */
    for (size_t i = 0; i < N; ++i) {
        state = state * 1664525u + 1013904223u;
        text[i] = (unsigned char)((state >> 24) * (state >> 16 & 0xffu) >> 8);
    }
    for (size_t b = 0; b < 256; ++b) {
        want[b] = 7u;
        got[b] = UINT64_MAX;
    }
    histogram_serial(N, text, want);
    histogram_parallel(N, text, got);
    for (size_t b = 0; b < 256; ++b) {
        double d = (double)(want[b] > got[b] ? want[b] - got[b] : got[b] - want[b]);
        worst = d > worst ? d : worst;
    }
    return report(worst);
}
