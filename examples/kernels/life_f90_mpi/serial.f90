! SPDX-License-Identifier: Apache-2.0
! Game of Life on a torus, serial; a cell is 1 when alive and 0 when dead.
module life_serial_mod
  implicit none
  private
  public :: life_serial

contains

  subroutine life_serial(nx, ny, generations, cells)
    integer, intent(in) :: nx, ny, generations
    integer, intent(inout) :: cells(nx, ny)
    integer, allocatable :: old(:, :)
    integer :: alive, g, i, j

    allocate (old(0:nx + 1, 0:ny + 1))
    do g = 1, generations
      old(1:nx, 1:ny) = cells
      old(1:nx, 0) = cells(:, ny)
      old(1:nx, ny + 1) = cells(:, 1)
      old(0, :) = old(nx, :)
      old(nx + 1, :) = old(1, :)
      do j = 1, ny
        do i = 1, nx
          alive = sum(old(i - 1:i + 1, j - 1:j + 1)) - old(i, j)
          cells(i, j) = merge(1, 0, alive == 3 .or. (alive == 2 .and. old(i, j) == 1))
        end do
      end do
    end do
  end subroutine life_serial

end module life_serial_mod
