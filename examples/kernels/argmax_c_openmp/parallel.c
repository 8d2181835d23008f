/* SPDX-License-Identifier: Apache-2.0 */
/* Argmax, OpenMP: a declared reduction over (value, index) pairs, the lowest index wins ties. */
#include <stddef.h>

struct candidate {
    double value;
    size_t index;
};

/* Partial results merge in any order, so ties must be settled here and not by arrival. */
static struct candidate better(struct candidate a, struct candidate b)
{
    if (a.value != b.value)
        return a.value > b.value ? a : b;
    return a.index < b.index ? a : b;
}

#pragma omp declare reduction(argmax : struct candidate : omp_out = better(omp_out, omp_in)) \
    initializer(omp_priv = omp_orig)

size_t argmax_parallel(size_t n, const double *x)
{
    struct candidate best = {x[0], 0};

#pragma omp parallel for schedule(static) default(none) shared(n, x) reduction(argmax : best)
    for (size_t i = 1; i < n; ++i)
        if (x[i] > best.value)
            best = (struct candidate){x[i], i};
    return best.index;
}
