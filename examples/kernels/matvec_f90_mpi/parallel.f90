! SPDX-License-Identifier: Apache-2.0
! Dense matrix-vector product, MPI: ranks own blocks of columns, an all-reduce adds their vectors.
module matvec_parallel_mod
  use, intrinsic :: iso_fortran_env, only: dp => real64
  use mpi_f08
  implicit none
  private
  public :: matvec_parallel

contains

  subroutine matvec_parallel(m, n, a, x, y)
    integer, intent(in) :: m, n
    real(dp), intent(in) :: a(m, n), x(n)
    real(dp), intent(out) :: y(m)
    integer :: chunk, j, rank, ranks

    call MPI_Comm_rank(MPI_COMM_WORLD, rank)
    call MPI_Comm_size(MPI_COMM_WORLD, ranks)

    chunk = (n + ranks - 1) / ranks
    y = 0.0_dp
    do j = rank * chunk + 1, min((rank + 1) * chunk, n)
      y = y + x(j) * a(:, j)
    end do
    call MPI_Allreduce(MPI_IN_PLACE, y, m, MPI_DOUBLE_PRECISION, MPI_SUM, MPI_COMM_WORLD)
  end subroutine matvec_parallel

end module matvec_parallel_mod
