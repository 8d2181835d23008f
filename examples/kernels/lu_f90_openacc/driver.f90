! SPDX-License-Identifier: Apache-2.0
! Driver: lu_serial and lu_parallel agree, and the product of the factors restores the matrix.
program lu_driver
  use, intrinsic :: ieee_arithmetic, only: ieee_is_nan
  use, intrinsic :: iso_fortran_env, only: dp => real64
  use lu_serial_mod, only: lu_serial
  use lu_parallel_mod, only: lu_parallel
  implicit none
  character(*), parameter :: name = 'lu_f90_openacc'
  real(dp), parameter :: tolerance = 1.0e-11_dp
  integer, parameter :: n = 97
  real(dp) :: a(n, n), got(n, n), lower(n, n), upper(n, n), want(n, n)
  integer :: i, j

  ! A dominant diagonal makes elimination stable without pivoting.
  do j = 1, n
    do i = 1, n
      a(i, j) = sin(0.37_dp * i * j) + merge(real(n, dp), 0.0_dp, i == j)
    end do
  end do
  want = a
  got = a
  call lu_serial(n, want)
  call lu_parallel(n, got)

  lower = 0.0_dp
  upper = 0.0_dp
  do j = 1, n
    upper(1:j, j) = got(1:j, j)
    lower(j, j) = 1.0_dp
    lower(j + 1:n, j) = got(j + 1:n, j)
  end do
  call report(max(maxval(rel_diff(want, got)), maxval(rel_diff(a, matmul(lower, upper)))))

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

end program lu_driver
