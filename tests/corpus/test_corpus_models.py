"""Programming models: what is used counts, in every spelling; what is only mentioned does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.corpus.document import LANGUAGES
from hpctrain.corpus.models import MODELS, programming_models

FIXED, FREE = "fortran-fixed", "fortran-free"


@pytest.mark.parametrize(
    ("language", "content", "models"),
    [
        # OpenMP and OpenACC, by directive and by call
        ("c", b"  # pragma omp parallel for \\\n  reduction(+:s)\nfor(;;);\n", "openmp"),
        ("c", b'#define PAR _Pragma("omp parallel")\n', "openmp"),
        ("c", b"__pragma(omp parallel) for(;;);\n", "openmp"),
        ("c", b"n = omp_get_max_threads();\n", "openmp"),
        ("cpp", b"#pragma acc parallel loop\nfor(;;);\n", "openacc"),
        (FIXED, b"C$OMP PARALLEL DO\n      end\n", "openmp"),
        (FIXED, b"*$omp parallel do\n      end\n", "openmp"),
        (FIXED, b"c$    i = omp_get_thread_num()\n", "openmp"),
        (FREE, b"!$ n = 2\n", "openmp"),
        (FREE, b"  !$Omp parallel &\n  !$omp& private(x)\n", "openmp"),
        (FREE, b"!$ACC kernels\n", "openacc"),
        (FIXED, b"*$acc kernels\n", "openacc"),
        # MPI
        (
            FIXED,
            b"      include 'mpif.h'\n      CALL MPI_SEND(a, 1, MPI_REAL, 0, 0, MPI_COMM_WORLD, ie)\n",
            "mpi",
        ),
        (FREE, b"use mpi_f08\ncall mpi_init\n", "mpi"),
        (FREE, b"type(MPI_Comm) :: comm\n", "mpi"),
        ("c", b"MPI_Init(&argc, &argv);\n", "mpi"),
        ("c", b"#define SEND(x) MPI_Send(x)\n", "mpi"),
        ("c", b'#define SEND(x) puts("a"); /* why */ \\\n  MPI_Send(x)\n', "mpi"),
        ("cpp", b"void f(MPI_Comm comm);\n", "mpi"),
        # GPUs
        ("cuda", b"__global__ void f() {}\n", "cuda"),
        ("cuda", b"f<<<grid, block>>>(x);\n", "cuda"),
        ("cpp", b"cudaMalloc(&p, n);\n", "cuda"),
        ("cpp", b"cublasDgemm(handle);\n", "cuda"),
        ("cuda", b"namespace cg = cooperative_groups;\n", "cuda"),
        ("hip", b"__global__ void f() {}\n", "hip"),
        ("cpp", b"hipMalloc(&p, n); f<<<1, 2>>>(x);\n", "hip"),
        ("cpp", b"#ifdef A\nhipMalloc(&p, n);\n#else\ncudaMalloc(&p, n);\n#endif\n", "cuda hip"),
        (FREE, b"attributes(global) subroutine f(x)\nend subroutine\n", "cuda"),
        (FREE, b"!$cuf kernel do <<<*,*>>>\n", "cuda"),
        (FREE, b"call f<<<grid, 256>>>(x)\n", "cuda"),
        ("opencl", b"int x;\n", "opencl"),
        ("c", b"err = clEnqueueNDRangeKernel(q);\n", "opencl"),
        # C++ layers
        ("cpp", b"using namespace sycl;\n", "sycl"),
        ("cpp", b"cl::sycl::queue q;\n", "sycl"),
        ("cpp", b"Kokkos::parallel_for(n, KOKKOS_LAMBDA(int i) {});\n", "kokkos"),
        ("cpp", b"RAJA::forall<RAJA::omp_parallel_for_exec>(r, [=](int i) {});\n", "raja"),
        # threads and coarrays
        ("c", b"pthread_mutex_t m;\n", "pthreads"),
        ("c", b"pthread_create(&t, 0, f, 0);\n", "pthreads"),
        (FREE, b"real :: x(10)[*]\nsync all\n", "coarrays"),
        (FREE, b"me = this_image()\n", "coarrays"),
        (FREE, b"integer, codimension[2,*] :: y\n", "coarrays"),
        # several
        ("c", b"#pragma omp simd\nMPI_Barrier(c);\n", "mpi openmp"),
    ],
)
def test_models_that_are_used(language: str, content: bytes, models: str) -> None:
    assert programming_models(content, language) == frozenset(models.split())


@pytest.mark.parametrize(
    ("language", "content"),
    [
        ("c", b"/* #pragma omp parallel\n MPI_Send() */\n// cudaMalloc()\n"),
        ("c", b'puts("MPI_Send(x); pthread_create(); __global__");\n'),
        ("cpp", b'auto s = R"(\n#pragma omp parallel\n__kernel void f() {})";\n'),
        ("c", b"#include <mpi.h>\n#include <omp.h>\n#ifdef MPI_Foo\n#endif\n"),
        ("c", b"#define MPI_Send(x) x\n"),
        ("c", b'#define TEXT "MPI_Send(x)"\n'),
        ("c", b"int compact_form; hypre_clCreate; my_pthread_create(); NOT_MPI_Send(x);\n"),
        ("cpp", b"A<B<C<int>>> x; std::cout << a << b;\n"),
        (FIXED, b"C     call MPI_SEND here\nc omp parallel\n      print *, 'call mpi_init'\n"),
        (FIXED, b"      x = 1".ljust(72) + b"MPI_INIT\n"),
        (FREE, b"! !$omp parallel\nx = 1 !$omp parallel\nprint *, '!$omp'\n"),
        (FREE, b"mpi_rank = 1\ncall mpi_wrapper(x)\nx = [1, 2]\n"),
        (FREE, b"sync = 1\ny = (/ 1, 2 /)\n"),
    ],
)
def test_mentions_are_no_use(language: str, content: bytes) -> None:
    assert programming_models(content, language) == frozenset()


@given(st.binary(max_size=300), st.sampled_from([*LANGUAGES, "docs"]))
def test_any_bytes_have_models_of_the_list(content: bytes, language: str) -> None:
    assert programming_models(content, language) <= set(MODELS)


@pytest.mark.parametrize("language", ["cpp", FIXED, FREE])
@pytest.mark.parametrize(
    "scrap", [b" ", b"\n", b" \n", b"<", b"[", b"a ", b"a[1,", b"use ", b",\n", b"MPI_", b"("]
)
def test_time_is_linear_in_hostile_code(language: str, scrap: bytes) -> None:
    assert programming_models(scrap * 200_000, language) == frozenset()  # if quadratic, the test times out
