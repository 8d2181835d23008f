C     SPDX-License-Identifier: Apache-2.0
C     Driver: both products agree, and neither writes past its vector.
      PROGRAM GEMV_DRIVER
      IMPLICIT NONE
      INTEGER M, N, NGUARD
      DOUBLE PRECISION TOL
      PARAMETER (M = 307, N = 193, NGUARD = 8, TOL = 1.0D-13)
      INTEGER I, J
      DOUBLE PRECISION A(M,N), X(N), WANT(M+NGUARD), GOT(M+NGUARD)
      DOUBLE PRECISION MAXDIFF
      EXTERNAL MAXDIFF
      DO J = 1, N
         X(J) = COS(0.6D0*DBLE(J))
         DO I = 1, M
            A(I,J) = SIN(0.1D0*DBLE(I + 3*J))
         END DO
      END DO
      DO I = 1, M + NGUARD
         WANT(I) = SIN(DBLE(I))
         GOT(I) = WANT(I)
      END DO
      CALL GEMV_SERIAL(M, N, 1.5D0, A, X, -0.5D0, WANT)
      CALL GEMV_PARALLEL(M, N, 1.5D0, A, X, -0.5D0, GOT)
      DO I = M + 1, M + NGUARD
         WANT(I) = SIN(DBLE(I))
      END DO
      CALL REPORT('gemv_f77_openacc', MAXDIFF(M+NGUARD, WANT, GOT), TOL)
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
