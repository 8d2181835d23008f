"""Small real stages that several rooms test with: a corpus and a tokenizer, built once a session."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from runner import Runner
from stages import write_corpus

from hpctrain.corpus.document import LANGUAGES, Document
from hpctrain.shards.pack import build_shards
from hpctrain.tokenizer.train import TokenizerConfig, train_tokenizer

# The same examples in every run, however slow the machine; `--hypothesis-profile default` looks for new ones.
settings.register_profile("hpctrain", derandomize=True, deadline=None)
settings.load_profile("hpctrain")

FIXED_FORM = b"""\
C     FIXED FORM: LABELS IN COLUMNS 1-5, CONTINUATION IN COLUMN 6
      SUBROUTINE AXPY(N, A, X, Y)
      INTEGER N, I\r
      DOUBLE PRECISION A, X(*), Y(*)
c$omp parallel do
      DO 10 I = 1, N
         Y(I) = Y(I) +
     &          A*X(I)
   10 CONTINUE
      END                                                               AXPY0010
"""
HIP = b"""\
#include <hip/hip_runtime.h>
__global__ void scale(float *x, float a, int n) {
\tint i = blockIdx.x * blockDim.x + threadIdx.x;
\tif (i < n) x[i] *= a;
}
"""
OPENCL = b"""\
__kernel void scale(__global float *x, const float a) {
    const size_t i = get_global_id(0);
    x[i] *= a;  // \xc3\xa9t\xc3\xa9, \xe2\x96\x81, and a byte that is not UTF-8: \xff
}
"""


def _installed_files() -> list[tuple[str, Path]]:
    """Real sources that come with packages which hpctrain depends on."""
    numpy_root = Path(np.__file__).parent
    spec = importlib.util.find_spec("deepspeed")
    assert spec is not None
    assert spec.submodule_search_locations
    kernels = Path(spec.submodule_search_locations[0]) / "ops" / "csrc"
    found = [
        ("c", sorted(Path(np.get_include()).rglob("*.h"))),
        ("cpp", sorted(kernels.rglob("*.cpp"))),
        ("cuda", sorted(kernels.rglob("*.cu"))),
        ("fortran-fixed", sorted(numpy_root.rglob("*.f"))),
        ("fortran-free", sorted(numpy_root.rglob("*.f90"))),
    ]
    return [(language, path) for language, paths in found for path in paths[:30]]


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    """About 140 documents in every language, some of them hostile, in two splits."""
    texts = [(language, path.name, path.read_bytes()) for language, path in _installed_files()]
    texts += [
        ("fortran-fixed", "axpy.f", FIXED_FORM),
        ("hip", "scale.hip", HIP),
        ("opencl", "scale.cl", OPENCL),
    ]
    texts += [
        ("c", "control.c", b'char *s = "<fim_prefix> <document> <end>";\n'),
        ("c", "nul.c", b"a\0b\r\n"),
    ]
    return [
        Document("installed", f"{number}/{name}", language, "Apache-2.0", f"family-{number}",
                 "validation" if number % 8 == 3 else "train", content[:40_000])
        for number, (language, name, content) in enumerate(texts)
        if content
    ]  # fmt: skip


@pytest.fixture(scope="session")
def corpus_directory(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished corpus of `documents`."""
    return write_corpus(tmp_path_factory.mktemp("stages") / "corpus", documents)


@pytest.fixture(scope="session")
def tokenizer_directory(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tokenizer of 2,048 pieces, trained on the train split of `documents`."""
    out = tmp_path_factory.mktemp("stages") / "tokenizer"
    train = ((document.language, document.content) for document in documents if document.split == "train")
    train_tokenizer(TokenizerConfig(vocab_size=2048), train, LANGUAGES, {"corpus": "none"}, out)
    return out


@pytest.fixture(scope="session")
def shards_directory(
    corpus_directory: Path, tokenizer_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Finished shards of `corpus_directory`."""
    out = tmp_path_factory.mktemp("stages") / "shards"
    build_shards(corpus_directory, tokenizer_directory, out)
    return out


@pytest.fixture
def runner(tmp_path: Path, shards_directory: Path) -> Runner:
    """A runner in a directory of its own."""
    return Runner(tmp_path, shards_directory)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, shards_directory: Path) -> Runner:
    """A run that went straight to its end on two ranks; tests may evaluate and export it, not train it."""
    runner = Runner(tmp_path_factory.mktemp("finished"), shards_directory)
    runner.train(runner.config(train={"evaluate_every_steps": 3, "evaluate_sequences": 4}))
    return runner
