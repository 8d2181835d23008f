/* SPDX-License-Identifier: Apache-2.0 */
/* Monte Carlo estimate of pi, serial, with a counter-based generator. */
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

double mcpi_serial(uint64_t seed, uint64_t samples)
{
    uint64_t hits = 0;

    for (uint64_t i = 0; i < samples; ++i) {
        double x = uniform(seed, 2 * i);
        double y = uniform(seed, 2 * i + 1);
        hits += x * x + y * y < 1.0;
    }
    return 4.0 * (double)hits / (double)samples;
}
