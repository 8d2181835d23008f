C     SPDX-License-Identifier: Apache-2.0
C     Driver: both searches name the same value and place on every rank,
C     with ties and with fewer elements than ranks.
      PROGRAM ARGMAX_DRIVER
      IMPLICIT NONE
      INTEGER N, NCASE
      DOUBLE PRECISION TOL
      PARAMETER (N = 50021, NCASE = 5, TOL = 0.0D0)
      INTEGER I, K, IERR, IWANT, IGOT, LENGTH(NCASE), PEAK(NCASE)
      DOUBLE PRECISION X(N), WANT(2*NCASE), GOT(2*NCASE), MAXDIFF
      EXTERNAL MAXDIFF
      DATA LENGTH /1, 3, N, N, N/
      DATA PEAK /1, 2, 1, 33333, N/
      CALL MPI_INIT(IERR)
      DO K = 1, NCASE
         DO I = 1, N
            X(I) = SIN(0.01D0*DBLE(I))
         END DO
C        The peak recurs at the end: its first occurrence counts.
         X(PEAK(K)) = 2.0D0
         X(LENGTH(K)) = 2.0D0
         IGOT = -1
         GOT(K) = -1.0D0
         CALL ARGMAX_SERIAL(LENGTH(K), X, WANT(K), IWANT)
         CALL ARGMAX_PARALLEL(LENGTH(K), X, GOT(K), IGOT)
         WANT(NCASE+K) = DBLE(IWANT)
         GOT(NCASE+K) = DBLE(IGOT)
      END DO
      CALL REPORT('argmax_f77_mpi', MAXDIFF(2*NCASE, WANT, GOT), TOL)
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
