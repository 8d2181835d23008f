"""Programs without their MPI calls, and put together again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.corpus.document import Document
from hpctrain.tasks.config import TaskConfig
from hpctrain.tasks.mpi import MARK, Call, mpi_records, parse_calls, restore, shown_lines, strip_calls
from hpctrain.tasks.record import Record

C = """\
#include <mpi.h>

int main(int argc, char **argv)
{
    int rank, size, flag = 0;
    MPI_Init(&argc, &argv); /* first of all */
    int error = MPI_Comm_size(MPI_COMM_WORLD, &size);
    error = MPI_Comm_rank(MPI_COMM_WORLD,
                          &rank);
    if (rank == 0)
        MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 1) {
        MPI_Send(&flag, 1, MPI_INT, 0, 0, MPI_COMM_WORLD);
    } else
        MPI_Barrier(MPI_COMM_WORLD);
    // MPI_Abort(MPI_COMM_WORLD, 1);
    if (MPI_Initialized(&flag)) return 1;
    (void)MPI_Finalize();
    hypre_MPI_Barrier(0);
    MPI_Wait(0, 0); flag = 1;
}
"""
FIXED = """\
      PROGRAM RING
      INCLUDE 'mpif.h'
      INTEGER IERR, N
      CALL MPI_INIT(IERR)
C     CALL MPI_ABORT(MPI_COMM_WORLD, 1, IERR)
      CALL MPI_SENDRECV(N, 1, MPI_INTEGER, 0, 0,
     &                  N, 1, MPI_INTEGER, 0, 0,
     &                  MPI_COMM_WORLD, MPI_STATUS_IGNORE, IERR)
      IF (N .GT. 0) CALL MPI_BARRIER(MPI_COMM_WORLD, IERR)
   10 CALL MPI_FINALIZE(IERR)
      END
"""
FREE = """\
program ring
  use mpi_f08
  real(8) :: t
  call MPI_Init
  t = MPI_Wtime()
  call mpi_bcast(t, 1, & ! what
                 MPI_REAL8, 0, &
                 MPI_COMM_WORLD)
  print *, "call mpi_init"
  if (t > 0) then
    call MPI_Finalize()
  end if
end program
"""
PROGRAMS = {"c": C, "fortran-fixed": FIXED, "fortran-free": FREE}


@pytest.mark.parametrize("language", PROGRAMS)
def test_what_is_taken_out_can_be_put_back(language: str) -> None:
    stripped = strip_calls(PROGRAMS[language].encode(), language)
    assert stripped is not None
    assert restore(stripped.lines, stripped.calls) == PROGRAMS[language]
    assert shown_lines(stripped.prompt()) == list(stripped.lines)
    parsed = parse_calls(stripped.response(), language)
    assert parsed == list(stripped.calls)
    assert restore(shown_lines(stripped.prompt()), parsed) == PROGRAMS[language]


def test_only_statements_of_their_own_are_taken() -> None:
    names = {}
    for language, text in PROGRAMS.items():
        stripped = strip_calls(text.encode(), language)
        assert stripped is not None
        names[language] = [call.name() for call in stripped.calls]
    assert names == {
        "c": ["mpi_init", "mpi_comm_rank", "mpi_send", "mpi_finalize"],
        "fortran-fixed": ["mpi_init", "mpi_sendrecv"],
        "fortran-free": ["mpi_init", "mpi_wtime", "mpi_bcast", "mpi_finalize"],
    }


def test_a_place_is_the_shown_line_before() -> None:
    stripped = strip_calls(C.encode(), "c")
    assert stripped is not None
    places = {call.name(): stripped.lines[call.place - 1] for call in stripped.calls}
    assert places["mpi_init"] == "    int rank, size, flag = 0;"
    assert places["mpi_send"] == "    if (rank == 1) {"
    assert stripped.prompt().startswith("1|#include <mpi.h>\n2|\n3|int main")
    assert stripped.prompt().endswith("}\n" + MARK)
    assert "4|" not in stripped.prompt().split("\n")[4]
    assert stripped.response().startswith("5|    MPI_Init(&argc, &argv); /* first of all */\n6|    error = ")


def test_statements_are_compared_without_blanks_lines_and_fortran_case() -> None:
    fixed = Call(1, ("      CALL MPI_SEND(N, 1,", "     &   MPI_INTEGER, IERR)"))
    free = Call(1, ("  call mpi_send(n,1, & ! here", "    mpi_integer, ierr)"))
    assert (
        fixed.statement("fortran-fixed")
        == free.statement("fortran-free")
        == "callmpi_send(n,1,mpi_integer,ierr)"
    )
    assert Call(1, ("MPI_Send( &N );",)).statement("c") == "MPI_Send(&N);"


def test_an_answer_is_read_up_to_the_first_line_that_is_no_call() -> None:
    answer = "3|MPI_Init(0,\n3|  0);\n3|MPI_Finalize();\n9|MPI_Barrier(c);\nand so on\n9|MPI_Abort();\n"
    assert [(call.place, call.name(), len(call.lines)) for call in parse_calls(answer, "c")] == [
        (3, "mpi_init", 2), (3, "mpi_finalize", 1), (9, "mpi_barrier", 1),
    ]  # fmt: skip
    assert parse_calls("no idea", "c") == []


def test_a_place_behind_the_end_is_the_end() -> None:
    assert restore(["a", "b"], [Call(0, ("x",)), Call(99, ("y",))]) == "x\na\nb\ny\n"


def records(content: str, language: str, **options: object) -> list[Record]:
    document = Document("tree", "src/ring.c", language, "MIT", "family", "train", content.encode(), "mpi")
    task = TaskConfig.model_validate({"name": "mpi", "data": "data", "corpus": "corpus", **options})
    return list(mpi_records(document, task))


def test_a_short_file_is_one_record_a_long_one_is_its_functions() -> None:
    (whole,) = records(C, "c")
    assert whole.meta["is_whole"]
    assert whole.path == "ring.c"
    parts = records(C + "/* " + "x" * 4000 + " */\nint pad;\n", "c")
    assert [part.meta["is_whole"] for part in parts] == [False]
    assert parts[0].prompt.startswith("1|int main(int argc")
    assert parts[0].response.endswith("(void)MPI_Finalize();\n")
    assert records("int x;\n", "c") == []


@given(st.text(alphabet="MPI_Senda(),;{}\n/*\"' &=!c", max_size=200), st.sampled_from(sorted(PROGRAMS)))
def test_any_text_comes_back_whole(text: str, language: str) -> None:
    content = text + "\n  MPI_Send(x);\n      call mpi_send(x)\n"
    stripped = strip_calls(content.encode(), language)
    assert stripped is not None
    assert restore(stripped.lines, stripped.calls) == content
