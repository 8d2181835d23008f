! SPDX-License-Identifier: Apache-2.0
! Driver: cg_serial and cg_parallel converge to the same solution.
program cg_driver
  use, intrinsic :: ieee_arithmetic, only: ieee_is_nan, ieee_quiet_nan, ieee_value
  use, intrinsic :: iso_fortran_env, only: dp => real64
  use cg_serial_mod, only: cg_serial
  use cg_parallel_mod, only: cg_parallel
  implicit none
  character(*), parameter :: name = 'cg_f90_openmp'
  real(dp), parameter :: tolerance = 1.0e-9_dp
  integer, parameter :: nx = 61, ny = 53
  real(dp) :: b(nx, ny), got(nx, ny), got_residual, want(nx, ny), want_residual
  integer :: i, j

  do j = 1, ny
    do i = 1, nx
      b(i, j) = sin(0.3_dp * i) * cos(0.7_dp * j) + 0.1_dp * mod(i * j, 7)
    end do
  end do
  want = ieee_value(1.0_dp, ieee_quiet_nan)
  got = want
  call cg_serial(nx, ny, 200, 1.0e-11_dp, b, want, want_residual)
  call cg_parallel(nx, ny, 200, 1.0e-11_dp, b, got, got_residual)
  call report(max(maxval(rel_diff(want, got)), rel_diff(want_residual, got_residual)))

contains

  ! Relative to max(1, |want|); NaN, the poison, counts as the largest number.
  elemental real(dp) function rel_diff(want, got)
    real(dp), intent(in) :: want, got

    rel_diff = abs(want - got) / max(1.0_dp, abs(want))
    if (ieee_is_nan(rel_diff)) rel_diff = huge(rel_diff)
  end function rel_diff

  subroutine report(worst)
    real(dp), intent(in) :: worst

    if (worst <= tolerance) then
      print '(3a, es9.3)', 'PASS ', name, ' max_diff=', worst
    else
      print '(3a, es9.3, a, es9.3)', 'FAIL ', name, ' max_diff=', worst, ' exceeds tolerance ', tolerance
      stop 1
    end if
  end subroutine report

end program cg_driver
