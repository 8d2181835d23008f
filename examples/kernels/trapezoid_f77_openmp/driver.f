C     SPDX-License-Identifier: Apache-2.0
C     Driver: both trapezoid rules agree and the finest comes near pi.
      PROGRAM TRAPEZOID_DRIVER
      IMPLICIT NONE
      INTEGER NCASE
      DOUBLE PRECISION TOL
      PARAMETER (NCASE = 4, TOL = 1.0D-12)
      INTEGER I, PANELS(NCASE)
      DOUBLE PRECISION WANT(NCASE), GOT(NCASE), WORST
      DOUBLE PRECISION WITCH, TRAPEZOID_SERIAL, TRAPEZOID_PARALLEL
      DOUBLE PRECISION MAXDIFF
      EXTERNAL WITCH, TRAPEZOID_SERIAL, TRAPEZOID_PARALLEL, MAXDIFF
      DATA PANELS /1, 2, 3, 200003/
      DO I = 1, NCASE
         WANT(I) = TRAPEZOID_SERIAL(WITCH, 0.0D0, 1.0D0, PANELS(I))
         GOT(I) = TRAPEZOID_PARALLEL(WITCH, 0.0D0, 1.0D0, PANELS(I))
      END DO
      WORST = MAXDIFF(NCASE, WANT, GOT)
      IF (ABS(GOT(NCASE) - ACOS(-1.0D0)) .GT. 1.0D-9) WORST = 1.0D0
      CALL REPORT('trapezoid_f77_openmp', WORST, TOL)
      END
C     ------------------------------------------------------------------
      DOUBLE PRECISION FUNCTION WITCH(X)
      IMPLICIT NONE
      DOUBLE PRECISION X
      WITCH = 4.0D0/(1.0D0 + X*X)
      END
C     ------------------------------------------------------------------
C     Largest difference relative to max(1, |want|). The negated test
C     lets NaN and infinity, which compare false, through as huge.
      DOUBLE PRECISION FUNCTION MAXDIFF(N, WANT, GOT)
      IMPLICIT NONE
      INTEGER N, I
      DOUBLE PRECISION WANT(N), GOT(N), D
      MAXDIFF = 0.0D0
      DO I = 1, N
         D = ABS(WANT(I) - GOT(I))/MAX(1.0D0, ABS(WANT(I)))
         IF (.NOT. (D .LE. HUGE(D))) D = HUGE(D)
         MAXDIFF = MAX(MAXDIFF, D)
      END DO
      END
C     ------------------------------------------------------------------
      SUBROUTINE REPORT(NAME, WORST, TOLERANCE)
      IMPLICIT NONE
      CHARACTER*(*) NAME
      DOUBLE PRECISION WORST, TOLERANCE
      IF (WORST .LE. TOLERANCE) THEN
         WRITE (*, '(3A, ES9.3)') 'PASS ', NAME, ' max_diff=', WORST
      ELSE
         WRITE (*, '(3A, ES9.3, A, ES9.3)') 'FAIL ', NAME,
     &      ' max_diff=', WORST, ' exceeds tolerance ', TOLERANCE
         STOP 1
      END IF
      END
