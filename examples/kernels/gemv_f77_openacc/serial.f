C     SPDX-License-Identifier: Apache-2.0
C     General matrix-vector product, serial: Y = ALPHA*A*X + BETA*Y.
      SUBROUTINE GEMV_SERIAL(M, N, ALPHA, A, X, BETA, Y)
      IMPLICIT NONE
      INTEGER M, N, I, J
      DOUBLE PRECISION ALPHA, BETA, A(M,N), X(N), Y(M), S
      DO I = 1, M
         S = 0.0D0
         DO J = 1, N
            S = S + A(I,J)*X(J)
         END DO
         Y(I) = ALPHA*S + BETA*Y(I)
      END DO
      END
