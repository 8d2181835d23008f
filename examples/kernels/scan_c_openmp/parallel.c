/* SPDX-License-Identifier: Apache-2.0 */
/* Inclusive prefix sum, OpenMP: sum each chunk, scan the chunk sums, then scan each chunk. */
#include <omp.h>
#include <stddef.h>
#include <stdint.h>

void scan_parallel(size_t n, const int64_t *restrict in, int64_t *restrict out)
{
    int64_t chunk_sum[omp_get_max_threads()];

#pragma omp parallel default(none) shared(n, in, out, chunk_sum)
    {
        size_t threads = (size_t)omp_get_num_threads();
        size_t id = (size_t)omp_get_thread_num();
        size_t begin = n * id / threads;
        size_t end = n * (id + 1) / threads;
        int64_t sum = 0;

        for (size_t i = begin; i < end; ++i)
            sum += in[i];
        chunk_sum[id] = sum;

#pragma omp barrier
        sum = 0;
        for (size_t t = 0; t < id; ++t)
            sum += chunk_sum[t];
        for (size_t i = begin; i < end; ++i) {
            sum += in[i];
            out[i] = sum;
        }
    }
}
