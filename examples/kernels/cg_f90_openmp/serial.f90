! SPDX-License-Identifier: Apache-2.0
! Conjugate gradient, serial, for (1 - Laplacian) x = b on a grid with zero boundary.
module cg_serial_mod
  use, intrinsic :: iso_fortran_env, only: dp => real64
  implicit none
  private
  public :: cg_serial

contains

  subroutine cg_serial(nx, ny, max_iter, rtol, b, x, residual)
    integer, intent(in) :: nx, ny, max_iter
    real(dp), intent(in) :: rtol, b(nx, ny)
    real(dp), intent(out) :: x(nx, ny), residual
    real(dp), allocatable :: p(:, :), q(:, :), r(:, :)
    real(dp) :: alpha, beta, pq, rr, rr_new, target_rr
    integer :: i, iter, j

    ! The search direction carries a zero frame, so the stencil needs no boundary cases.
    allocate (p(0:nx + 1, 0:ny + 1), q(nx, ny), r(nx, ny))
    p = 0.0_dp
    x = 0.0_dp
    r = b
    p(1:nx, 1:ny) = b
    rr = sum(b * b)
    target_rr = rtol**2 * rr

    do iter = 1, max_iter
      if (rr <= target_rr) exit
      pq = 0.0_dp
      do j = 1, ny
        do i = 1, nx
          q(i, j) = 5.0_dp * p(i, j) - p(i - 1, j) - p(i + 1, j) - p(i, j - 1) - p(i, j + 1)
          pq = pq + p(i, j) * q(i, j)
        end do
      end do
      alpha = rr / pq
      rr_new = 0.0_dp
      do j = 1, ny
        do i = 1, nx
          x(i, j) = x(i, j) + alpha * p(i, j)
          r(i, j) = r(i, j) - alpha * q(i, j)
          rr_new = rr_new + r(i, j)**2
        end do
      end do
      beta = rr_new / rr
      rr = rr_new
      do j = 1, ny
        do i = 1, nx
          p(i, j) = r(i, j) + beta * p(i, j)
        end do
      end do
    end do
    residual = sqrt(rr)
  end subroutine cg_serial

end module cg_serial_mod
