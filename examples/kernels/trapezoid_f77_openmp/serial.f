C     SPDX-License-Identifier: Apache-2.0
C     Composite trapezoid rule over N panels, serial.
      DOUBLE PRECISION FUNCTION TRAPEZOID_SERIAL(F, A, B, N)
      IMPLICIT NONE
      INTEGER N, I
      DOUBLE PRECISION F, A, B, H, S
      EXTERNAL F
      H = (B - A)/DBLE(N)
      S = 0.5D0*(F(A) + F(B))
      DO 10 I = 1, N - 1
         S = S + F(A + DBLE(I)*H)
   10 CONTINUE
      TRAPEZOID_SERIAL = H*S
      END
