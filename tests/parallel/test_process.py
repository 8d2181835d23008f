"""From the variables of every launcher to one place in the world, or one clear error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.errors import LaunchError
from hpctrain.parallel.process import ALONE, Gang
from hpctrain.parallel.world import World, discover_world, is_placed, rank_of

MASTER = {"MASTER_ADDR": "n07", "MASTER_PORT": "29511"}
LAUNCHERS = {
    "torchrun": {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"},
    "OpenMPI": {
        "OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    },
    "MPICH": {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1"},
    "PALS": {"PALS_RANKID": "5", "PALS_NRANKS": "8", "PALS_LOCAL_RANKID": "1"},
    "Flux": {"FLUX_TASK_RANK": "5", "FLUX_JOB_SIZE": "8", "FLUX_TASK_LOCAL_ID": "1"},
    "Slurm": {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"},
}  # fmt: skip
SLURM = {**LAUNCHERS["Slurm"], "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_place_under_every_launcher(launcher: str) -> None:
    environment = {**LAUNCHERS[launcher], **MASTER, "PATH": "/bin"}
    assert discover_world(environment) == World(5, 8, 1, "n07", 29511)
    assert rank_of(environment) == 5
    assert is_placed(environment)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_one_rank_under_a_launcher_needs_no_meeting_point(launcher: str) -> None:
    alone = {name: "1" if "SIZE" in name or "NRANKS" in name or "TASKS" in name else "0"
             for name in LAUNCHERS[launcher]}  # fmt: skip
    world = discover_world(alone)
    assert (world.rank, world.size, world.local_rank, world.master_address) == (0, 1, 0, "127.0.0.1")
    assert not is_placed(alone)


def test_alone_it_is_a_world_of_one() -> None:
    assert discover_world({}) == World(0, 1, 0, "127.0.0.1", 0)
    assert rank_of({}) == 0
    assert not is_placed({})


@pytest.mark.parametrize("name", ["SLURM_LOCALID", "PMI_LOCAL_RANK", "PALS_LOCAL_RANKID"])
def test_the_local_rank_is_found_where_the_rank_came_over_pmi(name: str) -> None:
    """`srun --mpi=pmi2` sets PMI_RANK, but not MPI_LOCALRANKID: every rank would take the first GPU."""
    environment = {"PMI_RANK": "5", "PMI_SIZE": "8", name: "1", **MASTER}
    assert discover_world(environment).local_rank == 1


def test_the_step_of_mpiruns_daemons_is_no_step_of_ranks() -> None:
    """Open MPI starts its daemons by srun on all nodes but the first; the ranks inherit their variables."""
    daemons = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NODELIST": "n02"}
    script = NO_MEETING_POINT.replace(
        '{"PMI_RANK": "1", "PMI_SIZE": "2"}', repr({**LAUNCHERS["OpenMPI"], **daemons})
    )
    script = "import sys; sys.modules['mpi4py'] = None\n" + script
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "MASTER_ADDR and MASTER_PORT are not set" in found.stdout, found.stderr


def test_torchrun_inside_a_slurm_job_is_trusted_first() -> None:
    environment = {**SLURM, **LAUNCHERS["torchrun"], "RANK": "2", **MASTER}
    assert discover_world(environment).rank == 2


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "16"},  # a batch script that forgot srun
        {"SLURM_JOB_NUM_NODES": "2"},
        {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "PMI_RANK": "0", "PMI_SIZE": "1"},
        {"SLURM_STEP_NUM_TASKS": "4", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"},
    ],
)
def test_silent_worlds_of_one_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(LaunchError, match=r"promised \d+ tasks, but this process is a world of one"):
        discover_world({**environment, "SLURM_JOB_ID": "4711"})


def test_one_task_or_ranks_of_ones_own_are_no_broken_promise() -> None:
    assert discover_world({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_ID": "4711"}).job_id == "4711"
    own = {"SLURM_NTASKS": "16", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    assert discover_world(own).size == 1


def test_mpirun_in_an_allocation_may_start_more_than_its_daemons() -> None:
    daemons = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "n[2-3]"}
    assert discover_world({**LAUNCHERS["OpenMPI"], **daemons, **MASTER}).size == 8


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "127.0.1.1"])
@pytest.mark.parametrize(
    ("launcher", "spans"),
    [("Slurm", {"SLURM_STEP_NUM_NODES": "2"}), ("OpenMPI", {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}),
     ("torchrun", {"LOCAL_WORLD_SIZE": "4"}), ("MPICH", {"MPI_LOCALNRANKS": "4"})],
)  # fmt: skip
def test_a_loopback_address_is_no_meeting_point_for_several_nodes(
    address: str, launcher: str, spans: dict[str, str]
) -> None:
    point = {**MASTER, "MASTER_ADDR": address}
    with pytest.raises(LaunchError, match="every node takes for itself"):
        discover_world({**LAUNCHERS[launcher], **spans, **point})
    one_node = {name: "1" if "NODES" in name else "8" for name in spans}
    assert discover_world({**LAUNCHERS[launcher], **one_node, **point}).master_address == address


def test_what_the_batch_script_tells() -> None:
    told = {
        "HPCTRAIN_SERIES": "s1",
        "HPCTRAIN_TOKEN": "t",
        "HPCTRAIN_DEADLINE": "1700000000",
        "HPCTRAIN_JOB_START": "1",
    }
    world = discover_world({"SLURM_JOB_ID": "7", **told})
    assert (world.series, world.token, world.deadline, world.job_start) == ("s1", "t", 1.7e9, 1.0)
    assert discover_world({"SLURM_JOB_ID": "7"}).series == "7"
    assert "'t'" not in repr(world), "a secret is not printed"
    with pytest.raises(LaunchError, match="HPCTRAIN_DEADLINE"):
        discover_world({"HPCTRAIN_DEADLINE": "soon"})


@pytest.mark.parametrize(
    ("variables", "job_id"),
    [
        ({"SLURM_JOB_ID": "4711"}, "4711"),
        ({"PBS_JOBID": "12.polaris"}, "12.polaris"),
        ({"FLUX_JOB_ID": "fA1"}, "fA1"),
    ],
)
def test_the_job_is_known(variables: dict[str, str], job_id: str) -> None:
    assert discover_world({**variables, **LAUNCHERS["torchrun"], **MASTER}).job_id == job_id


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n01", "n01"),
        ("n[01-04,7]", "n01"),
        ("n[01-04,7],m1", "n01"),
        ("n[7,1-3]", "n7"),
        ("n[007]", "n007"),
        ("login", "login"),
        ("a1,b[2-3]", "a1"),
        ("a-b[1-2]-c", "a-b1-c"),
        ("nid[001234-001240,001300]", "nid001234"),
        ("x1000c0s[0-3]b0n0", "x1000c0s0b0n0"),
        ("rack[1-2]n[03-04]", "rack1n03"),
        ("r[1,3]-c[0-1]-n[10-12],other", "r1-c0-n10"),
        ("gpu-a100-[08-09].cluster.example", "gpu-a100-08.cluster.example"),
    ],
)
def test_the_first_host_of_a_slurm_node_list(nodes: str, first: str) -> None:
    world = discover_world({**SLURM, "SLURM_STEP_NODELIST": nodes})
    assert (world.rank, world.size, world.master_address) == (5, 8, first)


@pytest.mark.parametrize("nodes", ["", "[1-2]", "n[", "n[]", "n[a-b]", ",n1"])
def test_a_node_list_that_is_not_understood(nodes: str) -> None:
    with pytest.raises(LaunchError, match="is not understood; set MASTER_ADDR"):
        discover_world({**SLURM, "SLURM_STEP_NODELIST": nodes})


@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_ranks_of_one_slurm_step_agree_on_a_port_and_the_next_step_takes_another(job: int, step: int) -> None:
    def port(rank: int, step: int) -> int:
        ids = {"SLURM_PROCID": str(rank), "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)}
        return discover_world({**SLURM, "SLURM_STEP_NODELIST": "n[1-2]", **ids}).master_port

    assert port(0, step) == port(7, step)
    assert port(0, step) != port(0, step + 1)
    assert 1024 < port(0, step) < 65536


def test_an_explicit_meeting_point_is_taken_before_slurms() -> None:
    world = discover_world({**SLURM, "SLURM_STEP_NODELIST": "n[1-2]", **MASTER})
    assert (world.master_address, world.master_port) == ("n07", 29511)


@pytest.mark.parametrize(
    ("variables", "named"),
    [({"RANK": "x"}, "RANK"), ({"WORLD_SIZE": ""}, "WORLD_SIZE"), ({"LOCAL_RANK": "1.5"}, "LOCAL_RANK"),
     ({"MASTER_PORT": "http"}, "MASTER_PORT")],
)  # fmt: skip
def test_variables_that_are_no_numbers_are_named(variables: dict[str, str], named: str) -> None:
    with pytest.raises(LaunchError, match=f"{named} .* not a whole number"):
        discover_world({**LAUNCHERS["torchrun"], **MASTER, **variables})


NO_MEETING_POINT = """
import sys
from hpctrain.errors import LaunchError
from hpctrain.parallel.world import discover_world
try:
    discover_world({"PMI_RANK": "1", "PMI_SIZE": "2"})
except LaunchError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("failure", ["ImportError", "RuntimeError"])
def test_without_mpi4py_a_missing_meeting_point_says_what_to_set(tmp_path: Path, failure: str) -> None:
    """mpi4py raises RuntimeError where it is installed and no MPI library is found."""
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text(f"raise {failure}('libmpi.so.40: not found')\n")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + NO_MEETING_POINT
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert found.returncode == LaunchError.exit_code, found.stderr
    assert "MASTER_ADDR and MASTER_PORT are not set" in found.stdout
    assert "libmpi.so.40: not found" in found.stdout
    assert "host of rank 0" in found.stdout


def test_a_gang_of_one_needs_no_process_group() -> None:
    assert ALONE.concatenate(["a", "b"]) == ["a", "b"]
    assert Gang(0, 1) == ALONE
