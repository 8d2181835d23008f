! SPDX-License-Identifier: Apache-2.0
! Driver: mandelbrot_serial and mandelbrot_parallel count the same iterations everywhere.
program mandelbrot_driver
  use, intrinsic :: iso_fortran_env, only: dp => real64
  use mandelbrot_serial_mod, only: mandelbrot_serial
  use mandelbrot_parallel_mod, only: mandelbrot_parallel
  implicit none
  character(*), parameter :: name = 'mandelbrot_f90_openmp'
  real(dp), parameter :: tolerance = 0.0_dp
  integer, parameter :: max_iter = 200, nx = 161, ny = 121
  complex(dp), parameter :: corner = (-2.1_dp, -1.2_dp)
  integer :: got(nx, ny), want(nx, ny)

  want = -1
  got = -2
  call mandelbrot_serial(nx, ny, corner, 0.019_dp, max_iter, want)
  call mandelbrot_parallel(nx, ny, corner, 0.019_dp, max_iter, got)
  call report(real(maxval(abs(want - got)), dp))

contains

  subroutine report(worst)
    real(dp), intent(in) :: worst

    if (worst <= tolerance) then
      print '(3a, es9.3)', 'PASS ', name, ' max_diff=', worst
    else
      print '(3a, es9.3, a, es9.3)', 'FAIL ', name, ' max_diff=', worst, ' exceeds tolerance ', tolerance
      stop 1
    end if
  end subroutine report

end program mandelbrot_driver
