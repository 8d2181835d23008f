! SPDX-License-Identifier: Apache-2.0
! Forward FFT of length 2**log2n in place, serial, iterative radix 2.
module fft_serial_mod
  use, intrinsic :: iso_fortran_env, only: dp => real64
  implicit none
  private
  public :: fft_serial

contains

  subroutine fft_serial(log2n, x)
    integer, intent(in) :: log2n
    complex(dp), intent(inout) :: x(0:2**log2n - 1)
    complex(dp), allocatable :: twiddle(:)
    complex(dp) :: t
    real(dp) :: angle
    integer :: bit, half, i, j, k, lo, n, stage

    n = 2**log2n
    allocate (twiddle(0:max(n / 2 - 1, 0)))
    angle = -2.0_dp * acos(-1.0_dp) / n
    do k = 0, n / 2 - 1
      twiddle(k) = cmplx(cos(angle * k), sin(angle * k), dp)
    end do

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

    do stage = 1, log2n
      half = 2**(stage - 1)
      do lo = 0, n - 1, 2 * half
        do k = 0, half - 1
          t = twiddle(k * (n / (2 * half))) * x(lo + k + half)
          x(lo + k + half) = x(lo + k) - t
          x(lo + k) = x(lo + k) + t
        end do
      end do
    end do
  end subroutine fft_serial

end module fft_serial_mod
