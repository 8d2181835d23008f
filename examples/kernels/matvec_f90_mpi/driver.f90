! SPDX-License-Identifier: Apache-2.0
! Driver: matvec_serial and matvec_parallel agree, also with fewer columns than ranks.
program matvec_driver
  use, intrinsic :: ieee_arithmetic, only: ieee_is_nan, ieee_quiet_nan, ieee_value
  use, intrinsic :: iso_fortran_env, only: dp => real64
  use mpi_f08
  use matvec_serial_mod, only: matvec_serial
  use matvec_parallel_mod, only: matvec_parallel
  implicit none
  character(*), parameter :: name = 'matvec_f90_mpi'
  real(dp), parameter :: tolerance = 1.0e-12_dp
  integer, parameter :: m = 211, columns(3) = [1, 3, 173]
  real(dp), allocatable :: a(:, :), x(:)
  real(dp) :: got(m), want(m), worst
  integer :: c, i, j, n, rank

  call MPI_Init()
  call MPI_Comm_rank(MPI_COMM_WORLD, rank)
  worst = 0.0_dp
  do c = 1, size(columns)
    n = columns(c)
    a = reshape([((sin(0.3_dp * i + 0.8_dp * j), i=1, m), j=1, n)], [m, n])
    x = [(cos(0.6_dp * j), j=1, n)]
    want = ieee_value(1.0_dp, ieee_quiet_nan)
    got = want
    call matvec_serial(m, n, a, x, want)
    call matvec_parallel(m, n, a, x, got)
    worst = max(worst, maxval(rel_diff(want, got)))
  end do
  call report(worst)

contains

  ! Relative to max(1, |want|); NaN, the poison, counts as the largest number.
  elemental real(dp) function rel_diff(want, got)
    real(dp), intent(in) :: want, got

    rel_diff = abs(want - got) / max(1.0_dp, abs(want))
    if (ieee_is_nan(rel_diff)) rel_diff = huge(rel_diff)
  end function rel_diff

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

end program matvec_driver
