"""A corpus built by real MPI ranks on two nodes of a real Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Desk

from hpctrain.config import load_config
from hpctrain.corpus.build import CorpusConfig, build_corpus

pytestmark = [pytest.mark.ranks, pytest.mark.slow]


def test_a_corpus_of_two_nodes_equals_that_of_one_process(desk: Desk, tmp_path: Path) -> None:
    mpi = desk.mpi("pmix")
    if not mpi:
        pytest.skip("this Slurm cannot start Open MPI's ranks")
    source = {"name": "kernels", "kind": "directory", "path": str(ROOT / "examples"), "licence": "Apache-2.0"}
    config = tmp_path / "corpus.yaml"
    config.write_text(yaml.safe_dump({"sources": [source]}))
    job = desk.submit("corpus.sh", config, "--out", tmp_path / "nodes", options="-N2", **mpi)
    assert job.result() == ("COMPLETED", 0, 0), job.output()
    assert "2 ranks on 2 nodes by srun" in job.output()
    build_corpus(load_config(config, [], CorpusConfig), tmp_path / "alone")
    files = [path.name for path in sorted((tmp_path / "alone").iterdir())]
    assert "documents-00000.h5" in files
    assert [path.name for path in sorted((tmp_path / "nodes").iterdir())] == files
    for name in files:
        assert (tmp_path / "nodes" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
