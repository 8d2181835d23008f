/* SPDX-License-Identifier: Apache-2.0 */
/* Gravitational accelerations of n bodies, serial, direct sum with softening (G = 1). */
#include <math.h>
#include <stddef.h>

void nbody_serial(size_t n, double softening, const double *restrict mass, const double *restrict x,
                  const double *restrict y, const double *restrict z, double *restrict ax,
                  double *restrict ay, double *restrict az)
{
    double eps2 = softening * softening;

    for (size_t i = 0; i < n; ++i) {
        double sx = 0.0, sy = 0.0, sz = 0.0;
        for (size_t j = 0; j < n; ++j) {
            double dx = x[j] - x[i];
            double dy = y[j] - y[i];
            double dz = z[j] - z[i];
            double r2 = dx * dx + dy * dy + dz * dz + eps2;
            double w = mass[j] / (r2 * sqrt(r2));
            sx += w * dx;
            sy += w * dy;
            sz += w * dz;
        }
        ax[i] = sx;
        ay[i] = sy;
        az[i] = sz;
    }
}
