/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: mcpi_serial and mcpi_parallel agree to the last bit and come near pi. */
#include <math.h>
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME "mcpi_c_mpi"
#define TOLERANCE 0.0
enum { CASES = 3 };

double mcpi_serial(uint64_t seed, uint64_t samples);
double mcpi_parallel(uint64_t seed, uint64_t samples);

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

/* Every rank learns the worst difference, so every rank exits alike. */
static int report(double worst)
{
    int rank;

    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Allreduce(MPI_IN_PLACE, &worst, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    if (worst <= TOLERANCE) {
        if (rank == 0)
            printf("PASS %s max_diff=%.3e\n", NAME, worst);
        return EXIT_SUCCESS;
    }
    if (rank == 0)
        printf("FAIL %s max_diff=%.3e exceeds tolerance %.1e\n", NAME, worst, TOLERANCE);
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    static const uint64_t samples[CASES] = {1, 3, 400009};
    double want[CASES], got[CASES];

    MPI_Init(&argc, &argv);
    for (size_t c = 0; c < CASES; ++c) {
        want[c] = mcpi_serial(2024u, samples[c]);
        got[c] = mcpi_parallel(2024u, samples[c]);
    }
    double worst = max_diff(CASES, want, got);
    /* Four standard errors of the estimate at 400009 samples. */
    if (!(fabs(want[CASES - 1] - acos(-1.0)) < 0.0104))
        worst = INFINITY;
    int status = report(worst);
    MPI_Finalize();
    return status;
}
