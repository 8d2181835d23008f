! SPDX-License-Identifier: Apache-2.0
! Seven-point 3-D stencil, OpenACC: one flat iteration space over the three loops.
module stencil3d_parallel_mod
  use, intrinsic :: iso_fortran_env, only: dp => real64
  implicit none
  private
  public :: stencil3d_parallel

contains

  subroutine stencil3d_parallel(nx, ny, nz, c0, c1, u, v)
    integer, intent(in) :: nx, ny, nz
    real(dp), intent(in) :: c0, c1, u(0:nx + 1, 0:ny + 1, 0:nz + 1)
    real(dp), intent(out) :: v(nx, ny, nz)
    integer :: i, j, k

    !$acc parallel loop collapse(3) copyin(u) copyout(v)
    do k = 1, nz
      do j = 1, ny
        do i = 1, nx
          v(i, j, k) = c0 * u(i, j, k) + c1 * (u(i - 1, j, k) + u(i + 1, j, k) &
                                               + u(i, j - 1, k) + u(i, j + 1, k) &
                                               + u(i, j, k - 1) + u(i, j, k + 1))
        end do
      end do
    end do
  end subroutine stencil3d_parallel

end module stencil3d_parallel_mod
