! SPDX-License-Identifier: Apache-2.0
! Conjugate gradient, OpenMP: vector updates fused with the dot products they feed.
module cg_parallel_mod
  use, intrinsic :: iso_fortran_env, only: dp => real64
  implicit none
  private
  public :: cg_parallel

contains

  subroutine cg_parallel(nx, ny, max_iter, rtol, b, x, residual)
    integer, intent(in) :: nx, ny, max_iter
    real(dp), intent(in) :: rtol, b(nx, ny)
    real(dp), intent(out) :: x(nx, ny), residual
    real(dp), allocatable :: p(:, :), q(:, :), r(:, :)
    real(dp) :: alpha, beta, pq, rr, rr_new, target_rr
    integer :: i, iter, j

    ! The search direction carries a zero frame, so the stencil needs no boundary cases.
    allocate (p(0:nx + 1, 0:ny + 1), q(nx, ny), r(nx, ny))
    p(:, 0) = 0.0_dp
    p(:, ny + 1) = 0.0_dp
    rr = 0.0_dp
    ! First touch: each thread initialises the columns that it works on later.
    !$omp parallel do schedule(static) reduction(+:rr)
    do j = 1, ny
      p(0, j) = 0.0_dp
      p(nx + 1, j) = 0.0_dp
      do i = 1, nx
        x(i, j) = 0.0_dp
        r(i, j) = b(i, j)
        p(i, j) = b(i, j)
        rr = rr + b(i, j)**2
      end do
    end do
    !$omp end parallel do
    target_rr = rtol**2 * rr

    do iter = 1, max_iter
      if (rr <= target_rr) exit
      pq = 0.0_dp
      !$omp parallel do schedule(static) reduction(+:pq)
      do j = 1, ny
        do i = 1, nx
          q(i, j) = 5.0_dp * p(i, j) - p(i - 1, j) - p(i + 1, j) - p(i, j - 1) - p(i, j + 1)
          pq = pq + p(i, j) * q(i, j)
        end do
      end do
      !$omp end parallel do
      alpha = rr / pq
      rr_new = 0.0_dp
      !$omp parallel do schedule(static) reduction(+:rr_new)
      do j = 1, ny
        do i = 1, nx
          x(i, j) = x(i, j) + alpha * p(i, j)
          r(i, j) = r(i, j) - alpha * q(i, j)
          rr_new = rr_new + r(i, j)**2
        end do
      end do
      !$omp end parallel do
      beta = rr_new / rr
      rr = rr_new
      !$omp parallel do schedule(static)
      do j = 1, ny
        do i = 1, nx
          p(i, j) = r(i, j) + beta * p(i, j)
        end do
      end do
      !$omp end parallel do
    end do
    residual = sqrt(rr)
  end subroutine cg_parallel

end module cg_parallel_mod
