C     SPDX-License-Identifier: Apache-2.0
C     Composite trapezoid rule over N panels, OpenMP reduction. F is
C     called by several threads at once and must not keep state.
      DOUBLE PRECISION FUNCTION TRAPEZOID_PARALLEL(F, A, B, N)
      IMPLICIT NONE
      INTEGER N, I
      DOUBLE PRECISION F, A, B, H, S
      EXTERNAL F
      H = (B - A)/DBLE(N)
      S = 0.5D0*(F(A) + F(B))
C$OMP PARALLEL DO DEFAULT(NONE) SCHEDULE(STATIC)
C$OMP& PRIVATE(I) SHARED(A, H, N) REDUCTION(+:S)
      DO 10 I = 1, N - 1
         S = S + F(A + DBLE(I)*H)
   10 CONTINUE
C$OMP END PARALLEL DO
      TRAPEZOID_PARALLEL = H*S
      END
