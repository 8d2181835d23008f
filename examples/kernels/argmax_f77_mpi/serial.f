C     SPDX-License-Identifier: Apache-2.0
C     Largest element of X and its first position, serial.
      SUBROUTINE ARGMAX_SERIAL(N, X, XMAX, IMAX)
      IMPLICIT NONE
      INTEGER N, IMAX, I
      DOUBLE PRECISION X(N), XMAX
      XMAX = X(1)
      IMAX = 1
      DO I = 2, N
         IF (X(I) .GT. XMAX) THEN
            XMAX = X(I)
            IMAX = I
         END IF
      END DO
      END
