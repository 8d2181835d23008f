C     SPDX-License-Identifier: Apache-2.0
C     Driver: both solvers agree on both time levels, for uneven blocks
C     and for fewer points than ranks.
      PROGRAM WAVE_DRIVER
      IMPLICIT NONE
      INTEGER N, NCASE, NSTEP
      DOUBLE PRECISION TOL
      PARAMETER (N = 1003, NCASE = 3, NSTEP = 150, TOL = 1.0D-11)
      INTEGER I, K, IERR, LENGTH(NCASE)
      DOUBLE PRECISION WOLD(0:N+1), WANT(0:N+1)
      DOUBLE PRECISION GOLD(0:N+1), GOT(0:N+1), WORST, MAXDIFF
      EXTERNAL MAXDIFF
      DATA LENGTH /1, 3, N/
      CALL MPI_INIT(IERR)
      WORST = 0.0D0
      DO K = 1, NCASE
         DO I = 0, LENGTH(K) + 1
            WANT(I) = SIN(0.05D0*DBLE(I)) + 0.2D0*COS(0.3D0*DBLE(I))
            WOLD(I) = WANT(I) + 1.0D-3*SIN(0.02D0*DBLE(I))
            GOT(I) = WANT(I)
            GOLD(I) = WOLD(I)
         END DO
         CALL WAVE_SERIAL(LENGTH(K), NSTEP, 0.49D0, WOLD, WANT)
         CALL WAVE_PARALLEL(LENGTH(K), NSTEP, 0.49D0, GOLD, GOT)
         WORST = MAX(WORST, MAXDIFF(LENGTH(K) + 2, WANT, GOT))
         WORST = MAX(WORST, MAXDIFF(LENGTH(K) + 2, WOLD, GOLD))
      END DO
      CALL REPORT('wave_f77_mpi', WORST, TOL)
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
C     Every rank learns the worst difference, so every rank exits alike.
      SUBROUTINE REPORT(NAME, LOCAL, TOLERANCE)
      IMPLICIT NONE
      INCLUDE 'mpif.h'
      CHARACTER*(*) NAME
      DOUBLE PRECISION LOCAL, WORST, TOLERANCE
      INTEGER RANK, IERR
      CALL MPI_COMM_RANK(MPI_COMM_WORLD, RANK, IERR)
      CALL MPI_ALLREDUCE(LOCAL, WORST, 1, MPI_DOUBLE_PRECISION,
     &                   MPI_MAX, MPI_COMM_WORLD, IERR)
      IF (RANK .EQ. 0) THEN
         IF (WORST .LE. TOLERANCE) THEN
            WRITE (*, '(3A, ES9.3)') 'PASS ', NAME, ' max_diff=', WORST
         ELSE
            WRITE (*, '(3A, ES9.3, A, ES9.3)') 'FAIL ', NAME,
     &         ' max_diff=', WORST, ' exceeds tolerance ', TOLERANCE
         END IF
      END IF
      CALL MPI_FINALIZE(IERR)
      IF (.NOT. (WORST .LE. TOLERANCE)) STOP 1
      END
