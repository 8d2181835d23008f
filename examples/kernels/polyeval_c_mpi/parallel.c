/* SPDX-License-Identifier: Apache-2.0 */
/* Polynomial evaluation, MPI: ranks evaluate blocks, a ring all-gather spreads them. */
#include <mpi.h>

static int block_begin(int n, int size, int block)
{
    return (int)((long long)n * block / size);
}

/* In step s a rank hands on the block that it received in step s - 1. */
static void ring_allgather(int n, double *out)
{
    int rank, size;

    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    int right = (rank + 1) % size;
    int left = (rank + size - 1) % size;

    for (int s = 0; s < size - 1; ++s) {
        int give = (rank - s + size) % size;
        int take = (left - s + size) % size;
        int give_begin = block_begin(n, size, give);
        int take_begin = block_begin(n, size, take);
        MPI_Sendrecv(out + give_begin, block_begin(n, size, give + 1) - give_begin, MPI_DOUBLE, right, s,
                     out + take_begin, block_begin(n, size, take + 1) - take_begin, MPI_DOUBLE, left, s,
                     MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
}

void polyeval_parallel(int n, int degree, const double *restrict coef, const double *restrict x,
                       double *restrict out)
{
    int rank, size;

    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);

    int end = block_begin(n, size, rank + 1);
    for (int i = block_begin(n, size, rank); i < end; ++i) {
        double value = coef[degree];
        for (int d = degree - 1; d >= 0; --d)
            value = value * x[i] + coef[d];
        out[i] = value;
    }
    ring_allgather(n, out);
}
