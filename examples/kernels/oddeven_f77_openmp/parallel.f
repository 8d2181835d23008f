C     SPDX-License-Identifier: Apache-2.0
C     Odd-even transposition sort, OpenMP: the pairs of a phase are
C     disjoint, so a phase is one work-shared loop.
      SUBROUTINE ODDEVEN_PARALLEL(N, X)
      IMPLICIT NONE
      INTEGER N, I, IPHASE
      DOUBLE PRECISION X(N), T
C$OMP PARALLEL DEFAULT(NONE) SHARED(N, X) PRIVATE(I, IPHASE, T)
      DO IPHASE = 1, N
C$OMP DO SCHEDULE(STATIC)
         DO I = 1 + MOD(IPHASE, 2), N - 1, 2
            IF (X(I) .GT. X(I+1)) THEN
               T = X(I)
               X(I) = X(I+1)
               X(I+1) = T
            END IF
         END DO
C$OMP END DO
      END DO
C$OMP END PARALLEL
      END
