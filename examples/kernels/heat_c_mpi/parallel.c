/* SPDX-License-Identifier: Apache-2.0 */
/* Explicit 2-D heat equation, MPI: row slabs with a halo exchange hidden behind the inner rows. */
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

/* Rows [1, count] of a slab are owned; rows 0 and count + 1 belong to the neighbours. */
static void update_rows(int first, int last, int cols, double r, const double *restrict old,
                        double *restrict new)
{
    size_t width = (size_t)cols;

    for (int i = first; i <= last; ++i) {
        for (int j = 1; j < cols - 1; ++j) {
            size_t c = (size_t)i * width + (size_t)j;
            double sides = old[c - width] + old[c + width] + old[c - 1] + old[c + 1];
            new[c] = old[c] + r * (sides - 4.0 * old[c]);
        }
    }
}

void heat_parallel(int rows, int cols, int steps, double r, double *u)
{
    int rank, size;
    size_t width = (size_t)cols;

    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);

    /* The first ranks take the remainder, so ranks without rows are the last ones. */
    int inner = rows > 2 ? rows - 2 : 0;
    int *counts = malloc((size_t)size * sizeof *counts);
    int *displs = malloc((size_t)size * sizeof *displs);
    if (counts == NULL || displs == NULL)
        MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
    for (int p = 0, start = 1; p < size; ++p) {
        int owned = inner / size + (p < inner % size ? 1 : 0);
        counts[p] = owned * cols;
        displs[p] = start * cols;
        start += owned;
    }

    int count = cols > 0 ? counts[rank] / cols : 0;
    int up = rank > 0 && count > 0 ? rank - 1 : MPI_PROC_NULL;
    int down = rank + 1 < size && count > 0 && counts[rank + 1] > 0 ? rank + 1 : MPI_PROC_NULL;

    size_t cells = ((size_t)count + 2) * width;
    double *old = malloc(cells * sizeof *old);
    double *new = malloc(cells * sizeof *new);
    if (old == NULL || new == NULL)
        MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
    if (count > 0) {
        memcpy(old, u + displs[rank] - cols, cells * sizeof *old);
        memcpy(new, old, cells * sizeof *new);
    }

    for (int s = 0; s < steps && count > 0; ++s) {
        MPI_Request req[4];
        MPI_Irecv(old, cols, MPI_DOUBLE, up, 0, MPI_COMM_WORLD, &req[0]);
        MPI_Irecv(old + ((size_t)count + 1) * width, cols, MPI_DOUBLE, down, 1, MPI_COMM_WORLD, &req[1]);
        MPI_Isend(old + width, cols, MPI_DOUBLE, up, 1, MPI_COMM_WORLD, &req[2]);
        MPI_Isend(old + (size_t)count * width, cols, MPI_DOUBLE, down, 0, MPI_COMM_WORLD, &req[3]);

        update_rows(2, count - 1, cols, r, old, new);
        MPI_Waitall(4, req, MPI_STATUSES_IGNORE);
        update_rows(1, 1, cols, r, old, new);
        if (count > 1)
            update_rows(count, count, cols, r, old, new);

        double *swap = old;
        old = new;
        new = swap;
    }

    /* `old` keeps its halo rows in front, so the owned rows start one row in. */
    MPI_Allgatherv(old + width, count * cols, MPI_DOUBLE, u, counts, displs, MPI_DOUBLE, MPI_COMM_WORLD);
    free(new);
    free(old);
    free(displs);
    free(counts);
}
