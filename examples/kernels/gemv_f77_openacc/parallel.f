C     SPDX-License-Identifier: Apache-2.0
C     General matrix-vector product, OpenACC: a lane per row, so lanes
C     read neighbouring elements of each column.
      SUBROUTINE GEMV_PARALLEL(M, N, ALPHA, A, X, BETA, Y)
      IMPLICIT NONE
      INTEGER M, N, I, J
      DOUBLE PRECISION ALPHA, BETA, A(M,N), X(N), Y(M), S
C$ACC PARALLEL LOOP GANG VECTOR PRIVATE(S)
C$ACC& COPYIN(A, X) COPY(Y)
      DO I = 1, M
         S = 0.0D0
C$ACC LOOP SEQ
         DO J = 1, N
            S = S + A(I,J)*X(J)
         END DO
         Y(I) = ALPHA*S + BETA*Y(I)
      END DO
C$ACC END PARALLEL LOOP
      END
