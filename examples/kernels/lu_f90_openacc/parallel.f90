! SPDX-License-Identifier: Apache-2.0
! LU factorisation without pivoting in place, OpenACC: the matrix stays on the device throughout.
module lu_parallel_mod
  use, intrinsic :: iso_fortran_env, only: dp => real64
  implicit none
  private
  public :: lu_parallel

contains

  subroutine lu_parallel(n, a)
    integer, intent(in) :: n
    real(dp), intent(inout) :: a(n, n)
    integer :: i, j, k

    !$acc data copy(a)
    do k = 1, n - 1
      !$acc parallel loop present(a)
      do i = k + 1, n
        a(i, k) = a(i, k) / a(k, k)
      end do
      ! Columns over gangs, rows over vector lanes: neighbouring lanes touch neighbouring memory.
      !$acc parallel loop gang present(a)
      do j = k + 1, n
        !$acc loop vector
        do i = k + 1, n
          a(i, j) = a(i, j) - a(i, k) * a(k, j)
        end do
      end do
    end do
    !$acc end data
  end subroutine lu_parallel

end module lu_parallel_mod
