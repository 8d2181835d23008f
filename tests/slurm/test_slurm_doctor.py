"""The preflight on two real nodes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from conftest import ROOT


def examine(cluster: Cluster, *arguments: object) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of `srun ... hpctrain doctor` with two ranks on each of two nodes."""
    srun = ["srun", "-N2", "--ntasks-per-node=2", "--mpi=none", ROOT / "launch" / "rank.sh"]
    command = [sys.executable, "-m", "hpctrain", "doctor", "--json", "--seconds", "120", *arguments]
    found = subprocess.run(
        cluster.command(*srun, *command), env={**cluster.environment, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert found.stdout, found.stderr
    return found.returncode, json.loads(found.stdout)


def line(answer: dict[str, Any], check: str) -> dict[str, str]:
    return next(line for line in answer["lines"] if line["check"] == check)


@pytest.mark.ranks
def test_two_nodes_that_share_a_directory(cluster: Cluster, tmp_path: Path) -> None:
    code, answer = examine(cluster, "--run-dir", tmp_path)
    wrong = [line for line in answer["lines"] if line["verdict"] == "wrong"]
    assert (code, wrong) == (0, [])
    assert answer["ranks"] == 4
    assert "refused to 3 others" in line(answer, "locks")["found"]
    assert line(answer, "torch")["where"] == "all 4 ranks"
    assert list(tmp_path.iterdir()) == []
    if cluster.mode == "namespaces":  # else both nodes have this machine's name
        assert len(answer["hosts"]) == 2
        assert "2 nodes within" in line(answer, "clocks")["found"]
        assert "seen on all 2 nodes" in line(answer, "shared")["found"]
        assert "gloo over eth0" in line(answer, "network")["found"]


@pytest.mark.ranks
def test_a_directory_that_the_other_node_does_not_see(cluster: Cluster) -> None:
    if cluster.mode != "namespaces":
        pytest.skip("the nodes of this cluster share everything")
    code, answer = examine(cluster, "--run-dir", "/dev/shm")
    assert code == 2
    assert [line["check"] for line in answer["lines"] if line["verdict"] == "wrong"] == ["shared"]
    assert f"not seen on {answer['hosts'][1]}" in line(answer, "shared")["found"]
