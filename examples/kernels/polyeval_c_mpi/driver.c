/* SPDX-License-Identifier: Apache-2.0 */
/* Driver: polyeval_serial and polyeval_parallel agree on every rank, for uneven and empty blocks. */
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME "polyeval_c_mpi"
#define TOLERANCE 1e-13
enum { N = 20011, DEGREE = 9 };

void polyeval_serial(int n, int degree, const double *restrict coef, const double *restrict x,
                     double *restrict out);
void polyeval_parallel(int n, int degree, const double *restrict coef, const double *restrict x,
                       double *restrict out);

static double coef[DEGREE + 1], x[N], want[N], got[N];

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
    static const int sizes[] = {1, 3, N};
    double worst = 0.0;

    MPI_Init(&argc, &argv);
    for (int d = 0; d <= DEGREE; ++d)
        coef[d] = cos(1.1 * d);
    for (int i = 0; i < N; ++i)
        x[i] = sin(0.07 * i);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; ++s) {
        for (int i = 0; i < N; ++i)
            want[i] = got[i] = NAN;
        polyeval_serial(sizes[s], DEGREE, coef, x, want);
        polyeval_parallel(sizes[s], DEGREE, coef, x, got);
        worst = fmax(worst, max_diff((size_t)sizes[s], want, got));
    }
    int status = report(worst);
    MPI_Finalize();
    return status;
}
