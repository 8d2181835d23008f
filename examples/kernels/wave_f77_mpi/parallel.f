C     SPDX-License-Identifier: Apache-2.0
C     1-D wave equation, leapfrog in time, MPI: a block of points per
C     rank, one halo point a side exchanged before each step.
      SUBROUTINE WAVE_PARALLEL(N, NSTEP, C2, UOLD, U)
      IMPLICIT NONE
      INCLUDE 'mpif.h'
      INTEGER N, NSTEP, I, ISTEP, IP, LO, HI, LEFT, RIGHT
      INTEGER NRANKS, MYRANK, IERR
      INTEGER, ALLOCATABLE :: COUNTS(:), DISPLS(:)
      DOUBLE PRECISION C2, UOLD(0:N+1), U(0:N+1), UNEW
      CALL MPI_COMM_RANK(MPI_COMM_WORLD, MYRANK, IERR)
      CALL MPI_COMM_SIZE(MPI_COMM_WORLD, NRANKS, IERR)
C     The first ranks take the remainder, so empty ranks come last.
      ALLOCATE (COUNTS(0:NRANKS-1), DISPLS(0:NRANKS-1))
      DO IP = 0, NRANKS - 1
         COUNTS(IP) = N/NRANKS
         IF (IP .LT. MOD(N, NRANKS)) COUNTS(IP) = COUNTS(IP) + 1
         DISPLS(IP) = IP*(N/NRANKS) + MIN(IP, MOD(N, NRANKS))
      END DO
      LO = DISPLS(MYRANK) + 1
      HI = DISPLS(MYRANK) + COUNTS(MYRANK)
      LEFT = MPI_PROC_NULL
      RIGHT = MPI_PROC_NULL
      IF (LO .GT. 1 .AND. LO .LE. HI) LEFT = MYRANK - 1
      IF (LO .LE. HI .AND. HI .LT. N) RIGHT = MYRANK + 1
      IF (LO .LE. HI) THEN
         DO ISTEP = 1, NSTEP
            CALL MPI_SENDRECV(
     &         U(HI), 1, MPI_DOUBLE_PRECISION, RIGHT, 0,
     &         U(LO-1), 1, MPI_DOUBLE_PRECISION, LEFT, 0,
     &         MPI_COMM_WORLD, MPI_STATUS_IGNORE, IERR)
            CALL MPI_SENDRECV(
     &         U(LO), 1, MPI_DOUBLE_PRECISION, LEFT, 1,
     &         U(HI+1), 1, MPI_DOUBLE_PRECISION, RIGHT, 1,
     &         MPI_COMM_WORLD, MPI_STATUS_IGNORE, IERR)
            DO I = LO, HI
               UOLD(I) = 2.0D0*U(I) - UOLD(I)
     &                   + C2*(U(I-1) - 2.0D0*U(I) + U(I+1))
            END DO
            DO I = LO, HI
               UNEW = UOLD(I)
               UOLD(I) = U(I)
               U(I) = UNEW
            END DO
         END DO
      END IF
      CALL MPI_ALLGATHERV(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, U(1),
     &                    COUNTS, DISPLS, MPI_DOUBLE_PRECISION,
     &                    MPI_COMM_WORLD, IERR)
      CALL MPI_ALLGATHERV(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, UOLD(1),
     &                    COUNTS, DISPLS, MPI_DOUBLE_PRECISION,
     &                    MPI_COMM_WORLD, IERR)
      END
