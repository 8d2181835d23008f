/* SPDX-License-Identifier: Apache-2.0 */
/* Polynomial evaluation at n points by Horner's rule, serial. */

void polyeval_serial(int n, int degree, const double *restrict coef, const double *restrict x,
                     double *restrict out)
{
    for (int i = 0; i < n; ++i) {
        double value = coef[degree];
        for (int d = degree - 1; d >= 0; --d)
            value = value * x[i] + coef[d];
        out[i] = value;
    }
}
