! SPDX-License-Identifier: Apache-2.0
! Dense matrix-vector product, serial: y = A x, by columns as Fortran stores them.
module matvec_serial_mod
  use, intrinsic :: iso_fortran_env, only: dp => real64
  implicit none
  private
  public :: matvec_serial

contains

  subroutine matvec_serial(m, n, a, x, y)
    integer, intent(in) :: m, n
    real(dp), intent(in) :: a(m, n), x(n)
    real(dp), intent(out) :: y(m)
    integer :: j

    y = 0.0_dp
    do j = 1, n
      y = y + x(j) * a(:, j)
    end do
  end subroutine matvec_serial

end module matvec_serial_mod
