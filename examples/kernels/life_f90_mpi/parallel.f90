! SPDX-License-Identifier: Apache-2.0
! Game of Life on a torus, MPI: blocks of columns in a ring, halo columns by send-receive.
module life_parallel_mod
  use mpi_f08
  implicit none
  private
  public :: life_parallel

contains

  subroutine life_parallel(nx, ny, generations, cells)
    integer, intent(in) :: nx, ny, generations
    integer, intent(inout) :: cells(nx, ny)
    integer, allocatable :: counts(:), displs(:), mine(:, :), old(:, :)
    integer :: active, alive, first, g, i, j, left, p, rank, ranks, right, width

    call MPI_Comm_rank(MPI_COMM_WORLD, rank)
    call MPI_Comm_size(MPI_COMM_WORLD, ranks)

    ! The first ranks take the remainder; ranks beyond the last column stay out of the ring.
    allocate (counts(0:ranks - 1), displs(0:ranks - 1))
    do p = 0, ranks - 1
      counts(p) = ny / ranks + merge(1, 0, p < mod(ny, ranks))
      displs(p) = p * (ny / ranks) + min(p, mod(ny, ranks))
    end do
    width = counts(rank)
    first = displs(rank)
    active = min(ranks, ny)
    left = modulo(rank - 1, active)
    right = modulo(rank + 1, active)

    allocate (old(0:nx + 1, 0:width + 1), mine(nx, width))
    mine = cells(:, first + 1:first + width)
    if (width > 0) then
      do g = 1, generations
        old(1:nx, 1:width) = mine
        call MPI_Sendrecv(mine(:, width), nx, MPI_INTEGER, right, 0, &
                          old(1:nx, 0), nx, MPI_INTEGER, left, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE)
        call MPI_Sendrecv(mine(:, 1), nx, MPI_INTEGER, left, 1, &
                          old(1:nx, width + 1), nx, MPI_INTEGER, right, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE)
        old(0, :) = old(nx, :)
        old(nx + 1, :) = old(1, :)
        do j = 1, width
          do i = 1, nx
            alive = sum(old(i - 1:i + 1, j - 1:j + 1)) - old(i, j)
            mine(i, j) = merge(1, 0, alive == 3 .or. (alive == 2 .and. old(i, j) == 1))
          end do
        end do
      end do
    end if

    call MPI_Allgatherv(mine, nx * width, MPI_INTEGER, cells, nx * counts, nx * displs, MPI_INTEGER, &
                        MPI_COMM_WORLD)
  end subroutine life_parallel

end module life_parallel_mod
