C     SPDX-License-Identifier: Apache-2.0
C     Red-black SOR for the Poisson equation, OpenMP: points of a colour
C     depend on the other colour alone, so a colour updates in parallel.
      SUBROUTINE SOR_PARALLEL(M, N, NSWEEP, OMEGA, F, U)
      IMPLICIT NONE
      INTEGER M, N, NSWEEP, I, J, ISWEEP, ICOLOR
      DOUBLE PRECISION OMEGA, F(M,N), U(0:M+1,0:N+1), GS
!$OMP PARALLEL DEFAULT(NONE) PRIVATE(I, J, ISWEEP, ICOLOR, GS)
!$OMP&         SHARED(M, N, NSWEEP, OMEGA, F, U)
      DO ISWEEP = 1, NSWEEP
         DO ICOLOR = 0, 1
C           The barrier at END DO separates the colours.
!$OMP DO SCHEDULE(STATIC)
            DO J = 1, N
               DO I = 1 + MOD(J + ICOLOR, 2), M, 2
                  GS = 0.25D0*(U(I-1,J) + U(I+1,J) + U(I,J-1)
     &                         + U(I,J+1) - F(I,J))
                  U(I,J) = U(I,J) + OMEGA*(GS - U(I,J))
               END DO
            END DO
!$OMP END DO
         END DO
      END DO
!$OMP END PARALLEL
      END
