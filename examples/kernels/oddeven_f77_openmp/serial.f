C     SPDX-License-Identifier: Apache-2.0
C     Odd-even transposition sort, serial, ascending.
      SUBROUTINE ODDEVEN_SERIAL(N, X)
      IMPLICIT NONE
      INTEGER N, I, IPHASE
      DOUBLE PRECISION X(N), T
      DO IPHASE = 1, N
         DO I = 1 + MOD(IPHASE, 2), N - 1, 2
            IF (X(I) .GT. X(I+1)) THEN
               T = X(I)
               X(I) = X(I+1)
               X(I+1) = T
            END IF
         END DO
      END DO
      END
