/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: heat_serial and heat_parallel agree, also on a grid with fewer rows than ranks. */
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME "heat_c_mpi"
#define TOLERANCE 1e-13
enum { ROWS = 61, COLS = 47, STEPS = 37 };

void heat_serial(int rows, int cols, int steps, double r, double *u);
void heat_parallel(int rows, int cols, int steps, double r, double *u);

static double want[ROWS * COLS], got[ROWS * COLS];

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
    static const int heights[] = {3, 5, ROWS};
    double worst = 0.0;

    MPI_Init(&argc, &argv);
    for (size_t h = 0; h < sizeof heights / sizeof heights[0]; ++h) {
        size_t cells = (size_t)heights[h] * COLS;
        for (size_t i = 0; i < cells; ++i)
            want[i] = got[i] = 50.0 + 40.0 * sin(0.61 * (double)i);
        heat_serial(heights[h], COLS, STEPS, 0.2, want);
        heat_parallel(heights[h], COLS, STEPS, 0.2, got);
        worst = fmax(worst, max_diff(cells, want, got));
    }
    int status = report(worst);
    MPI_Finalize();
    return status;
}
