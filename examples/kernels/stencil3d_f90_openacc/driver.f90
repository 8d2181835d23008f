! SPDX-License-Identifier: Apache-2.0
! Driver: stencil3d_serial and stencil3d_parallel agree on three different odd extents.
program stencil3d_driver
  use, intrinsic :: ieee_arithmetic, only: ieee_is_nan, ieee_quiet_nan, ieee_value
  use, intrinsic :: iso_fortran_env, only: dp => real64
  use stencil3d_serial_mod, only: stencil3d_serial
  use stencil3d_parallel_mod, only: stencil3d_parallel
  implicit none
  character(*), parameter :: name = 'stencil3d_f90_openacc'
  real(dp), parameter :: tolerance = 1.0e-14_dp
  integer, parameter :: nx = 37, ny = 29, nz = 23
  real(dp), allocatable :: got(:, :, :), u(:, :, :), want(:, :, :)
  integer :: i, j, k

  allocate (u(0:nx + 1, 0:ny + 1, 0:nz + 1), want(nx, ny, nz), got(nx, ny, nz))
  do k = 0, nz + 1
    do j = 0, ny + 1
      do i = 0, nx + 1
        u(i, j, k) = sin(0.3_dp * i) + cos(0.5_dp * j * k)
      end do
    end do
  end do
  want = ieee_value(1.0_dp, ieee_quiet_nan)
  got = want
  call stencil3d_serial(nx, ny, nz, 0.4_dp, 0.1_dp, u, want)
  call stencil3d_parallel(nx, ny, nz, 0.4_dp, 0.1_dp, u, got)
  call report(maxval(rel_diff(want, got)))

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

end program stencil3d_driver
