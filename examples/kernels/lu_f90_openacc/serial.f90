! SPDX-License-Identifier: Apache-2.0
! LU factorisation without pivoting in place, serial: A becomes L (unit diagonal) and U.
module lu_serial_mod
  use, intrinsic :: iso_fortran_env, only: dp => real64
  implicit none
  private
  public :: lu_serial

contains

  subroutine lu_serial(n, a)
    integer, intent(in) :: n
    real(dp), intent(inout) :: a(n, n)
    integer :: i, j, k

    do k = 1, n - 1
      do i = k + 1, n
        a(i, k) = a(i, k) / a(k, k)
      end do
      do j = k + 1, n
        do i = k + 1, n
          a(i, j) = a(i, j) - a(i, k) * a(k, j)
        end do
      end do
    end do
  end subroutine lu_serial

end module lu_serial_mod
