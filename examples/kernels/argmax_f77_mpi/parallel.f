C     SPDX-License-Identifier: Apache-2.0
C     Largest element of X and its first position, MPI: ranks search
C     blocks, MPI_MAXLOC picks the winner and the lowest index on ties.
      SUBROUTINE ARGMAX_PARALLEL(N, X, XMAX, IMAX)
      IMPLICIT NONE
      INCLUDE 'mpif.h'
      INTEGER N, IMAX, I, NCHUNK, NRANKS, MYRANK, IERR
      DOUBLE PRECISION X(N), XMAX, MINE(2), BEST(2)
      CALL MPI_COMM_RANK(MPI_COMM_WORLD, MYRANK, IERR)
      CALL MPI_COMM_SIZE(MPI_COMM_WORLD, NRANKS, IERR)
C     A rank without elements offers a value and an index that lose.
      MINE(1) = -HUGE(XMAX)
      MINE(2) = DBLE(N + 1)
      NCHUNK = (N + NRANKS - 1)/NRANKS
      DO I = MYRANK*NCHUNK + 1, MIN((MYRANK + 1)*NCHUNK, N)
         IF (X(I) .GT. MINE(1) .OR. MINE(2) .GT. DBLE(N)) THEN
            MINE(1) = X(I)
            MINE(2) = DBLE(I)
         END IF
      END DO
C     The pair type is two doubles: indices stay exact up to 2**53.
      CALL MPI_ALLREDUCE(MINE, BEST, 1, MPI_2DOUBLE_PRECISION,
     &                   MPI_MAXLOC, MPI_COMM_WORLD, IERR)
      XMAX = BEST(1)
      IMAX = NINT(BEST(2))
      END
