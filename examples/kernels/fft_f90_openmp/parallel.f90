! SPDX-License-Identifier: Apache-2.0
! Forward FFT of length 2**log2n in place, OpenMP: one team for all stages, n/2 butterflies in each.
module fft_parallel_mod
  use, intrinsic :: iso_fortran_env, only: dp => real64
  implicit none
  private
  public :: fft_parallel

contains

  subroutine fft_parallel(log2n, x)
    integer, intent(in) :: log2n
    complex(dp), intent(inout) :: x(0:2**log2n - 1)
    complex(dp), allocatable :: twiddle(:)
    complex(dp) :: t
    real(dp) :: angle
    integer :: bit, half, i, j, k, lo, m, n, stage

    n = 2**log2n
    allocate (twiddle(0:max(n / 2 - 1, 0)))
    angle = -2.0_dp * acos(-1.0_dp) / n

    !$omp parallel default(none) private(bit, half, i, j, k, lo, m, stage, t) &
    !$omp shared(angle, log2n, n, twiddle, x)
    !$omp do schedule(static)
    do k = 0, n / 2 - 1
      twiddle(k) = cmplx(cos(angle * k), sin(angle * k), dp)
    end do
    !$omp end do nowait

    ! Only the lower index of a pair swaps, so no element has two writers.
    !$omp do schedule(static)
    do i = 0, n - 1
      j = 0
      do bit = 0, log2n - 1
        if (btest(i, bit)) j = ibset(j, log2n - 1 - bit)
      end do
      if (i < j) then
        t = x(i)
        x(i) = x(j)
        x(j) = t
      end if
    end do
    !$omp end do

    ! A flat butterfly index keeps every thread busy in early and in late stages.
    do stage = 1, log2n
      half = 2**(stage - 1)
      !$omp do schedule(static)
      do m = 0, n / 2 - 1
        k = iand(m, half - 1)
        lo = 2 * (m - k) + k
        t = twiddle(k * (n / (2 * half))) * x(lo + half)
        x(lo + half) = x(lo) - t
        x(lo) = x(lo) + t
      end do
      !$omp end do
    end do
    !$omp end parallel
  end subroutine fft_parallel

end module fft_parallel_mod
