C     SPDX-License-Identifier: Apache-2.0
C     Driver: both SOR solvers agree everywhere, boundary included.
      PROGRAM SOR_DRIVER
      IMPLICIT NONE
      INTEGER M, N, NCELL, NSWEEP
      DOUBLE PRECISION TOL
      PARAMETER (M = 67, N = 51, NCELL = (M + 2)*(N + 2))
      PARAMETER (NSWEEP = 40, TOL = 1.0D-12)
      INTEGER I, J
      DOUBLE PRECISION F(M,N), WANT(0:M+1,0:N+1), GOT(0:M+1,0:N+1)
      DOUBLE PRECISION MAXDIFF
      EXTERNAL MAXDIFF
      DO J = 1, N
         DO I = 1, M
            F(I,J) = 0.01D0*SIN(0.2D0*DBLE(I*J))
         END DO
      END DO
      DO J = 0, N + 1
         DO I = 0, M + 1
            WANT(I,J) = COS(0.3D0*DBLE(I)) + SIN(0.7D0*DBLE(J))
            GOT(I,J) = WANT(I,J)
         END DO
      END DO
      CALL SOR_SERIAL(M, N, NSWEEP, 1.6D0, F, WANT)
      CALL SOR_PARALLEL(M, N, NSWEEP, 1.6D0, F, GOT)
      CALL REPORT('sor_f77_openmp', MAXDIFF(NCELL, WANT, GOT), TOL)
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
