! SPDX-License-Identifier: Apache-2.0
! Mandelbrot escape times, OpenMP: columns differ in cost, so they are handed out on demand.
module mandelbrot_parallel_mod
  use, intrinsic :: iso_fortran_env, only: dp => real64
  implicit none
  private
  public :: mandelbrot_parallel

contains

  subroutine mandelbrot_parallel(nx, ny, corner, step, max_iter, counts)
    integer, intent(in) :: nx, ny, max_iter
    complex(dp), intent(in) :: corner
    real(dp), intent(in) :: step
    integer, intent(out) :: counts(nx, ny)
    complex(dp) :: c, z
    integer :: i, iter, j

    !$omp parallel do schedule(dynamic) default(none) private(c, z, i, iter) &
    !$omp shared(nx, ny, corner, step, max_iter, counts)
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
    !$omp end parallel do
  end subroutine mandelbrot_parallel

end module mandelbrot_parallel_mod
