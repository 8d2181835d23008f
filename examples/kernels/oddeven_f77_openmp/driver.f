C     SPDX-License-Identifier: Apache-2.0
C     Driver: both sorts give the same ascending sequence.
      PROGRAM ODDEVEN_DRIVER
      IMPLICIT NONE
      INTEGER N
      DOUBLE PRECISION TOL
      PARAMETER (N = 701, TOL = 0.0D0)
      INTEGER I
      DOUBLE PRECISION WANT(N), GOT(N), WORST, MAXDIFF
      EXTERNAL MAXDIFF
      DO I = 1, N
C        Values repeat, and the sequence is far from sorted.
         WANT(I) = DBLE(MOD(I*7919, 503)) - 251.0D0
         GOT(I) = WANT(I)
      END DO
      CALL ODDEVEN_SERIAL(N, WANT)
      CALL ODDEVEN_PARALLEL(N, GOT)
      WORST = MAXDIFF(N, WANT, GOT)
      DO I = 2, N
         IF (GOT(I) .LT. GOT(I-1)) WORST = 1.0D0
      END DO
      CALL REPORT('oddeven_f77_openmp', WORST, TOL)
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
