/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: dot_serial and dot_parallel agree on every rank, also with fewer elements than ranks. */
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME "dot_c_mpi"
#define TOLERANCE 1e-12
enum { N = 100003, CASES = 4 };

double dot_serial(size_t n, const double *restrict x, const double *restrict y);
double dot_parallel(size_t n, const double *restrict x, const double *restrict y);

static double x[N], y[N];

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
    static const size_t sizes[CASES] = {0, 1, 3, N};
    double want[CASES], got[CASES];

    MPI_Init(&argc, &argv);
    for (size_t i = 0; i < N; ++i) {
        x[i] = sin(0.37 * (double)i);
        y[i] = 0.5 + cos(0.11 * (double)i);
    }
    for (size_t c = 0; c < CASES; ++c) {
        want[c] = dot_serial(sizes[c], x, y);
        got[c] = dot_parallel(sizes[c], x, y);
    }
    int status = report(max_diff(CASES, want, got));
    MPI_Finalize();
    return status;
}
