/* SPDX-License-Identifier: Apache-2.0 */
/* Monte Carlo estimate of pi, MPI: ranks stride over the sample counters, integer hits are summed. */
#include <mpi.h>
#include <stdint.h>

/* Stateless: sample i is a hash of (seed, i), so any split of the range draws the same points. */
static uint64_t mix(uint64_t key)
{
    key = (key ^ (key >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    key = (key ^ (key >> 27)) * UINT64_C(0x94d049bb133111eb);
    return key ^ (key >> 31);
}

static double uniform(uint64_t seed, uint64_t counter)
{
    return (double)(mix(seed + counter * UINT64_C(0x9e3779b97f4a7c15)) >> 11) * 0x1p-53;
}

double mcpi_parallel(uint64_t seed, uint64_t samples)
{
    int rank, size;
    uint64_t hits = 0;

    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    for (uint64_t i = (uint64_t)rank; i < samples; i += (uint64_t)size) {
        double x = uniform(seed, 2 * i);
        double y = uniform(seed, 2 * i + 1);
        hits += x * x + y * y < 1.0;
    }
    MPI_Allreduce(MPI_IN_PLACE, &hits, 1, MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD);
    return 4.0 * (double)hits / (double)samples;
}
