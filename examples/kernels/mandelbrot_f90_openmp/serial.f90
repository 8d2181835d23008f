! SPDX-License-Identifier: Apache-2.0
! Mandelbrot escape times, serial, on an nx x ny window of the complex plane.
module mandelbrot_serial_mod
  use, intrinsic :: iso_fortran_env, only: dp => real64
  implicit none
  private
  public :: mandelbrot_serial

contains

  subroutine mandelbrot_serial(nx, ny, corner, step, max_iter, counts)
    integer, intent(in) :: nx, ny, max_iter
    complex(dp), intent(in) :: corner
    real(dp), intent(in) :: step
    integer, intent(out) :: counts(nx, ny)
    complex(dp) :: c, z
    integer :: i, iter, j

    do j = 1, ny
      do i = 1, nx
        c = corner + step * cmplx(i - 1, j - 1, dp)
        z = (0.0_dp, 0.0_dp)
        do iter = 0, max_iter - 1
          if (real(z)**2 + aimag(z)**2 > 4.0_dp) exit
          z = z * z + c
        end do
        counts(i, j) = iter
      end do
    end do
  end subroutine mandelbrot_serial

end module mandelbrot_serial_mod
