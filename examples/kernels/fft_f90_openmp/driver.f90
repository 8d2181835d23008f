! SPDX-License-Identifier: Apache-2.0
! Driver: fft_serial and fft_parallel agree with each other and, when short, with the definition.
program fft_driver
  use, intrinsic :: ieee_arithmetic, only: ieee_is_nan
  use, intrinsic :: iso_fortran_env, only: dp => real64
  use fft_serial_mod, only: fft_serial
  use fft_parallel_mod, only: fft_parallel
  implicit none
  character(*), parameter :: name = 'fft_f90_openmp'
  real(dp), parameter :: tolerance = 1.0e-11_dp
  integer, parameter :: log2n(4) = [0, 1, 5, 13]
  complex(dp), allocatable :: dft(:), got(:), input(:), want(:)
  real(dp) :: angle, worst
  integer :: c, i, k, n

  worst = 0.0_dp
  do c = 1, size(log2n)
    n = 2**log2n(c)
    input = [(cmplx(sin(0.9_dp * i), cos(0.4_dp * i * i), dp), i=0, n - 1)]
    want = input
    got = input
    call fft_serial(log2n(c), want)
    call fft_parallel(log2n(c), got)
    worst = max(worst, maxval(rel_diff(want, got)))
    if (n <= 32) then
      angle = -2.0_dp * acos(-1.0_dp) / n
      dft = [(sum(input * [(exp(cmplx(0.0_dp, angle * i * k, dp)), i=0, n - 1)]), k=0, n - 1)]
      worst = max(worst, maxval(rel_diff(dft, got)))
    end if
  end do
  call report(worst)

contains

  ! Relative to max(1, |want|); NaN counts as the largest number.
  elemental real(dp) function rel_diff(want, got)
    complex(dp), intent(in) :: want, got

    rel_diff = abs(want - got) / max(1.0_dp, abs(want))
    if (ieee_is_nan(rel_diff)) rel_diff = huge(rel_diff)
  end function rel_diff

  subroutine report(worst)
    real(dp), intent(in) :: worst

    if (worst <= tolerance) then
      print '(3a, es9.3)', 'PASS ', name, ' max_diff=', worst
    else
      print '(3a, es9.3, a, es9.3)', 'FAIL ', name, ' max_diff=', worst, ' exceeds tolerance ', tolerance
      stop 1
    end if
  end subroutine report

end program fft_driver
