/* SPDX-License-Identifier: Apache-2.0 */
/* Sparse matrix-vector product in CSR format, serial: y <- A*x. */
#include <stddef.h>

void spmv_serial(int rows, int cols, const int *restrict row_ptr, const int *restrict col_idx,
                 const double *restrict val, const double *restrict x, double *restrict y)
{
    (void)cols;
    for (int i = 0; i < rows; ++i) {
        double sum = 0.0;
        for (int k = row_ptr[i]; k < row_ptr[i + 1]; ++k)
            sum += val[k] * x[col_idx[k]];
        y[i] = sum;
    }
}
