! SPDX-License-Identifier: Apache-2.0
! Driver: life_serial and life_parallel breed the same generation, also with fewer columns than ranks.
program life_driver
  use, intrinsic :: iso_fortran_env, only: dp => real64
  use mpi_f08
  use life_serial_mod, only: life_serial
  use life_parallel_mod, only: life_parallel
  implicit none
  character(*), parameter :: name = 'life_f90_mpi'
  real(dp), parameter :: tolerance = 0.0_dp
  integer, parameter :: generations = 50, nx = 47, widths(3) = [1, 3, 59]
  integer, allocatable :: got(:, :), want(:, :)
  real(dp) :: worst
  integer :: c, i, j, rank

  call MPI_Init()
  call MPI_Comm_rank(MPI_COMM_WORLD, rank)
  worst = 0.0_dp
  do c = 1, size(widths)
    want = reshape([((merge(1, 0, modulo(i * i + 3 * j * j + i * j, 7) < 3), i=1, nx), j=1, widths(c))], &
                   [nx, widths(c)])
    got = want
    call life_serial(nx, widths(c), generations, want)
    call life_parallel(nx, widths(c), generations, got)
    worst = max(worst, real(maxval(abs(want - got)), dp))
  end do
  ! A dead board would agree with any other dead board.
  if (sum(want) == 0) worst = huge(worst)
  call report(worst)

contains

  ! Every rank learns the worst difference, so every rank exits alike.
  subroutine report(local)
    real(dp), intent(in) :: local
    real(dp) :: worst

    call MPI_Allreduce(local, worst, 1, MPI_DOUBLE_PRECISION, MPI_MAX, MPI_COMM_WORLD)
    if (rank == 0) then
      if (worst <= tolerance) then
        print '(3a, es9.3)', 'PASS ', name, ' max_diff=', worst
      else
        print '(3a, es9.3, a, es9.3)', 'FAIL ', name, ' max_diff=', worst, ' exceeds tolerance ', tolerance
      end if
    end if
    call MPI_Finalize()
    if (.not. worst <= tolerance) stop 1
  end subroutine report

end program life_driver
