"""Ranks that share host work: dealt once each, errors raised on all, and no world of the wrong size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mpi import mpi_environment, mpiexec

from hpctrain.errors import DataError, LaunchError
from hpctrain.parallel.crew import ALONE, join_crew

HEAD = """
import os, sys, time
from pathlib import Path
from hpctrain.errors import DataError, HpctrainError
from hpctrain.parallel.crew import join_crew, write_stage_together
out = Path(sys.argv[1])
"""


def run(ranks: int, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a piece of code in ranks that have imported what HEAD says."""
    command = [*mpiexec(ranks), "-c", HEAD + code, *map(str, arguments)]
    return subprocess.run(
        command, env=mpi_environment(), capture_output=True, text=True, timeout=120, check=False
    )


def test_alone_every_call_is_the_plain_thing() -> None:
    with join_crew({}) as crew:
        assert (crew.rank, crew.size) == (0, 1)
        assert crew.allgather(3) == crew.gather(3) == crew.exchange([3]) == [3]
        assert crew.once(lambda: 5) == crew.bcast(5) == crew.total(5) == 5
        reported: list[float] = []
        with crew.deal("abc", lambda amount, status: reported.append(amount)) as deal:
            for item in deal:
                deal.advance(ord(item))
        assert reported == [97, 98, 99]
    with pytest.raises(DataError), ALONE.together():
        raise DataError("mine")


def test_promised_ranks_that_are_missing_are_an_error() -> None:
    with pytest.raises(LaunchError, match="promised 4 tasks"), join_crew({"SLURM_NTASKS": "4"}):
        pass


def test_a_launcher_without_mpi_is_an_error() -> None:
    """As under `srun` where it and MPI do not know each other: MPI sees a world of one."""
    code = "import os\nfrom hpctrain.parallel.crew import join_crew\nwith join_crew(os.environ): pass"
    placed = {**mpi_environment(), "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
    mpiexec(1)  # skips where MPI is missing
    found = subprocess.run(
        [sys.executable, "-c", code], env=placed, capture_output=True, text=True, check=False
    )
    assert "the launcher says rank 1 of 2, MPI says rank 0 of 1" in found.stderr


@pytest.mark.ranks
def test_every_item_is_dealt_once(tmp_path: Path) -> None:
    code = """
with join_crew(os.environ) as crew:
    done, reported = [], []
    items = [("item", i) for i in range(200)] if crew.rank == 0 else []
    with crew.deal(items, lambda amount, status: reported.append(amount)) as deal:
        for item in deal:
            time.sleep(0.002 * (item[1] % 3))
            deal.advance(1)
            done.append(item)
    everyone = crew.allgather(done)
    assert sorted(item for part in everyone for item in part) == [("item", i) for i in range(200)]
    assert all(everyone), [len(part) for part in everyone]
    assert crew.rank or sum(reported) == 200
    assert crew.exchange([10 * crew.rank + r for r in range(3)]) == [10 * r + crew.rank for r in range(3)]
    assert crew.once(lambda: crew.rank) == 0 and crew.total(crew.rank) == 3
    (out / str(crew.rank)).touch()
"""
    found = run(3, code, tmp_path)
    assert found.returncode == 0, found.stderr
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.ranks
@pytest.mark.parametrize("failing", [0, 2])
@pytest.mark.parametrize("error", ["DataError('told')", "ValueError('not told')"])
def test_an_error_in_a_deal_is_raised_on_all(failing: int, error: str, tmp_path: Path) -> None:
    code = f"""
with join_crew(os.environ) as crew:
    seen = 0
    try:
        with crew.deal(range(100_000)) as deal:
            for item in deal:
                seen += 1
                if crew.rank == {failing} and seen == 3:
                    raise {error}
    except HpctrainError as reason:
        assert "told" in str(reason) and reason.everywhere
        assert seen < 90_000
        (out / str(crew.rank)).touch()
    crew.barrier()
"""
    found = run(3, code, tmp_path)
    assert found.returncode == 0, found.stderr
    assert len(list(tmp_path.iterdir())) == 3
    assert ("Traceback" in found.stderr) == error.startswith("Value")


@pytest.mark.ranks
def test_an_error_outside_of_what_is_done_together_ends_all(tmp_path: Path) -> None:
    code = """
with join_crew(os.environ) as crew:
    if crew.rank == 1:
        raise DataError("only here")
    crew.barrier()
"""
    found = run(2, code, tmp_path)
    assert found.returncode == 3
    assert found.stderr.count("hpctrain: rank 1: only here") == 1


@pytest.mark.ranks
def test_a_stage_of_all_ranks(tmp_path: Path) -> None:
    code = """
with join_crew(os.environ) as crew, write_stage_together(crew, out / "stage", "corpus", 1) as writer:
    writer.path(f"part-{crew.rank}").write_text(str(crew.rank))
    writer.seal(f"part-{crew.rank}")
    if crew.rank == 0:
        writer.path("also").write_text("not sealed")
        writer.counts = {"ranks": crew.size}
"""
    assert run(2, code, tmp_path).returncode == 0
    from hpctrain.manifest import find_damage, read_manifest

    manifest = read_manifest(tmp_path / "stage", "corpus", 1)
    assert sorted(manifest.files) == ["also", "part-0", "part-1"]
    assert manifest.counts == {"ranks": 2}
    assert not find_damage(tmp_path / "stage", manifest)
