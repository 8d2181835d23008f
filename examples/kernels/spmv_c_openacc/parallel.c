/* SPDX-License-Identifier: Apache-2.0 */
/* Sparse matrix-vector product in CSR format, OpenACC: a gang per row, a vector per row's entries. */
#include <stddef.h>

void spmv_parallel(int rows, int cols, const int *restrict row_ptr, const int *restrict col_idx,
                   const double *restrict val, const double *restrict x, double *restrict y)
{
    int nnz = row_ptr[rows];

#pragma acc parallel loop gang vector_length(32) copyout(y[0 : rows]) \
    copyin(row_ptr[0 : rows + 1], col_idx[0 : nnz], val[0 : nnz], x[0 : cols])
    for (int i = 0; i < rows; ++i) {
        double sum = 0.0;
#pragma acc loop vector reduction(+ : sum)
        for (int k = row_ptr[i]; k < row_ptr[i + 1]; ++k)
            sum += val[k] * x[col_idx[k]];
        y[i] = sum;
    }
}
