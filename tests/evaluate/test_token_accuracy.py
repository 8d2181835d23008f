"""Next-token accuracy where it matters: which tokens count, and that the share is the model's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from runner import Runner

from hpctrain.evaluate.models import ModelOptions, RunModel
from hpctrain.evaluate.scored import first_sequences, heldout_streams, score_heldout
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.evaluate.token_accuracy import SPANS, _plan, find_hpc_spans, run_tokens
from hpctrain.train.trained import Trained, load_trained

CASES = [
    (
        "c",
        b'#pragma omp parallel for\nMPI_Send(a, f(b), MPI_INT); // MPI_Recv(a)\nputs("MPI_Init(x)");',
        {("directive", b"#pragma omp parallel for"), ("MPI call", b"MPI_Send(a, f(b), MPI_INT)")},
    ),
    (
        "cuda",
        b"scale<float> <<<grid, dim3(8, 8)>>>(x, g(n));\nint y = x << 3;",
        {("kernel launch", b"scale<float> <<<grid, dim3(8, 8)>>>(x, g(n))")},
    ),
    (
        "fortran-free",
        b"!$omp do\ncall MPI_Bcast(x, size(x), &\n  ierr)\n! call mpi_barrier(c)\n",
        {("directive", b"!$omp do"), ("MPI call", b"call MPI_Bcast(x, size(x), &\n  ierr)")},
    ),
    (
        "fortran-fixed",
        b"      CALL MPI_INIT(IERR)\nC     CALL MPI_FINALIZE(IERR)\n",
        {("MPI call", b"CALL MPI_INIT(IERR)")},
    ),
]


@pytest.mark.parametrize(("language", "content", "expected"), CASES, ids=lambda each: str(each)[:12])
def test_the_spans(language: str, content: bytes, expected: set[tuple[str, bytes]]) -> None:
    found = {(kind, content[start:stop]) for kind, start, stop in find_hpc_spans(content, language)}
    assert {(kind, text.strip()) for kind, text in found} == expected


@pytest.fixture(scope="module")
def trained(finished: Runner) -> Trained:
    return load_trained(finished.directory / "run")


def test_the_share_is_that_of_the_models_likeliest_tokens(trained: Trained) -> None:
    model = RunModel("run", trained, ModelOptions(device="cpu"))
    result = run_tokens(model, SuiteOptions(limit=3))
    found = {(s.group["span"], s.group.get("language", "")): s for s in result.scores}
    assert found["directive", ""].count > 0
    for language, stream in heldout_streams(trained, trained.config.data.shards).items():
        sequences = first_sequences(stream, 64, 10_000)
        spread = sequences if len(sequences) <= 3 else [0, (len(sequences) - 1) // 2, sequences[-1]]
        [text] = score_heldout(trained, {language: (stream, spread)})
        score = found["anywhere", language]
        assert score.count == len(text.positions)
        assert score.value == pytest.approx(text.hits.mean())
        ids = text.stream.read(0, int(text.positions[-1]) + 1).astype(np.int64)
        _check_one(trained, ids, text.positions[0], bool(text.hits[0]), float(text.nats[0]))
    assert found["anywhere", ""].count == sum(
        score.count for (span, language), score in found.items() if span == "anywhere" and language
    )


def _check_one(trained: Trained, ids: np.ndarray, place: int, hit: bool, nats: float) -> None:
    """The first token that counts, from the model itself."""
    boundaries = torch.tensor([0, int(place)], dtype=torch.int32)
    with torch.no_grad():
        logits = trained.model(torch.tensor(ids[None, : int(place)]), boundaries)[0, -1]
    assert hit == (int(logits.argmax()) == ids[place])
    assert nats == pytest.approx(-float(torch.log_softmax(logits, -1)[ids[place]]), rel=1e-4)


def test_tokens_of_directives_are_those_that_spell_them(trained: Trained) -> None:
    seen = 0
    for language, stream in heldout_streams(trained, trained.config.data.shards).items():
        plan = _plan(stream, language, trained.tokenizer, 64, limit=2)
        assert len(plan.sequences) <= 2 * (1 + len(SPANS))
        which = plan.where(np.arange(len(stream)))
        spelt = trained.tokenizer.decode(stream.read(0, len(stream))[which["directive"]]).lower()
        seen += spelt.count(b"pragma") + spelt.count(b"$omp")
        assert which["directive"].mean() < 0.5
    assert seen
