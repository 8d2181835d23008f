C     SPDX-License-Identifier: Apache-2.0
C     1-D wave equation, leapfrog in time, serial: UOLD and U are two
C     time levels with fixed ends; C2 is the squared Courant number.
      SUBROUTINE WAVE_SERIAL(N, NSTEP, C2, UOLD, U)
      IMPLICIT NONE
      INTEGER N, NSTEP, I, ISTEP
      DOUBLE PRECISION C2, UOLD(0:N+1), U(0:N+1), UNEW
      DO ISTEP = 1, NSTEP
C        UOLD takes the new level, then the two levels change places.
         DO I = 1, N
            UOLD(I) = 2.0D0*U(I) - UOLD(I)
     &                + C2*(U(I-1) - 2.0D0*U(I) + U(I+1))
         END DO
         DO I = 1, N
            UNEW = UOLD(I)
            UOLD(I) = U(I)
            U(I) = UNEW
         END DO
      END DO
      END
