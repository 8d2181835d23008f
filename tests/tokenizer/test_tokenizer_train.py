from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpctrain.config import load_config
from hpctrain.corpus.document import LANGUAGES, Document
from hpctrain.errors import ConfigError, DataError
from hpctrain.manifest import is_finished
from hpctrain.tokenizer.codec import MODEL_NAME, Tokenizer
from hpctrain.tokenizer.lexicon import directive_text
from hpctrain.tokenizer.sample import draw_sample, language_shares
from hpctrain.tokenizer.train import TokenizerConfig, train_tokenizer

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "tokenizer").glob("*.yaml"))
SMALL = TokenizerConfig(vocab_size=700, sample_bytes=200_000)


def pairs(documents: list[Document]) -> list[tuple[str, bytes]]:
    return [(document.language, document.content) for document in documents]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path: Path) -> None:
    assert load_config(path, [], TokenizerConfig)


def test_default_config_file_states_the_defaults() -> None:
    assert load_config(CONFIGS[-1], [], TokenizerConfig) == TokenizerConfig()


def test_equal_documents_give_an_equal_model_in_any_order(documents: list[Document], tmp_path: Path) -> None:
    first = train_tokenizer(SMALL, pairs(documents), LANGUAGES, {"corpus": "a"}, tmp_path / "first")
    second = train_tokenizer(SMALL, pairs(documents)[::-1], LANGUAGES, {"corpus": "a"}, tmp_path / "second")
    assert first.fingerprint == second.fingerprint
    assert first.model_dump() == second.model_dump()
    assert list(first.files) == [MODEL_NAME]
    assert first.counts["pieces"] == 700
    assert sum(first.counts["sample_bytes"].values()) <= 200_000


def test_a_finished_tokenizer_is_kept_and_another_is_refused(
    documents: list[Document], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tokenizer"
    first = train_tokenizer(SMALL, pairs(documents), LANGUAGES, {"corpus": "a"}, out)
    assert train_tokenizer(SMALL, iter(()), LANGUAGES, {"corpus": "a"}, out) == first
    assert "up to date" in capsys.readouterr().err
    with pytest.raises(DataError, match="made from another corpus"):
        train_tokenizer(SMALL, pairs(documents), LANGUAGES, {"corpus": "b"}, out)
    with pytest.raises(DataError, match="made from another config"):
        train_tokenizer(TokenizerConfig(), pairs(documents), LANGUAGES, {"corpus": "a"}, out)


def test_vocabulary_that_the_text_cannot_fill(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"vocab_size: 700 is more than the text gives: at most \d+"):
        train_tokenizer(SMALL, [("c", b"int i;\n")], LANGUAGES, {}, tmp_path / "out")
    assert not is_finished(tmp_path / "out")


def test_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(SMALL, [], LANGUAGES, {}, tmp_path / "out")
    with pytest.raises(DataError, match="a document is in cobol"):
        train_tokenizer(SMALL, [("cobol", b"MOVE A TO B")], LANGUAGES, {}, tmp_path / "out")


def test_text_that_spells_control_tokens_trains_and_stays_text(
    documents: list[Document], tmp_path: Path
) -> None:
    spelled = b"<document> <content> <end> <0x41> \xe2\x96\x81 \xff \0\n" * 500
    train_tokenizer(SMALL, [*pairs(documents), ("c", spelled)], LANGUAGES, {}, tmp_path / "out")
    tokenizer = Tokenizer.load(tmp_path / "out")
    ids = tokenizer.encode(spelled)
    assert tokenizer.decode(ids) == spelled
    assert min(ids) > max(tokenizer.languages.values())


def test_shares_are_balanced_and_bounded() -> None:
    sizes = {"c": 1_000_000, "fortran-free": 10_000, "hip": 10}
    shares = language_shares(sizes, 100_000, 0.5)
    assert shares["hip"] == 10
    assert 99_000 <= sum(shares.values()) <= 100_000
    assert shares["fortran-free"] == pytest.approx(shares["c"] / 10, rel=0.01)
    assert language_shares(sizes, 10**9, 0.5) == sizes
    even = language_shares({"a": 900, "b": 500}, 600, 0)
    assert even == {"a": 300, "b": 300}
    assert language_shares({}, 100, 0.5) == {}


def test_sample_is_bounded_and_holds_documents_out() -> None:
    documents = [("c", b"%06d" % number * 100) for number in range(1000)]
    sample = draw_sample(documents, 50_000, 0.5, seed=0)
    assert sum(map(len, sample.training["c"])) == 50_000
    assert 0 < len(sample.held_out["c"]) < 50
    assert not set(sample.training["c"]) & set(sample.held_out["c"])
    assert draw_sample(documents, 50_000, 0.5, seed=1).training != sample.training


def test_weights_decide_and_what_they_do_not_name_is_left_out() -> None:
    sizes = {"c": 10_000, "cuda": 10_000, "fortran-free": 500, "hip": 10_000}
    shares = language_shares(sizes, 4_000, {"c": 1, "fortran-free": 1, "cuda": 2})
    assert shares["fortran-free"] == 500, "all there is of it"
    assert shares["cuda"] == pytest.approx(2 * shares["c"], abs=1)
    assert sum(shares.values()) == pytest.approx(4_000, abs=3)
    assert "hip" not in shares
    documents = [(language, b"%s %05d\n" % (language.encode(), n)) for language in sizes for n in range(100)]
    sample = draw_sample(documents, 900, {"c": 1, "hip": 2}, seed=0)
    assert {name: sum(map(len, drawn)) for name, drawn in sample.training.items()} == {"c": 300, "hip": 600}


def test_weights_that_mean_nothing(
    documents: list[Document], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.yaml"
    path.write_text("language_weights: {c: 0, cpp: -1}\n")
    with pytest.raises(ConfigError, match=r"c: 0\.0, cpp: -1\.0"):
        load_config(path, [], TokenizerConfig)
    cobol = SMALL.model_copy(update={"language_weights": {"cobol": 1.0}})
    with pytest.raises(ConfigError, match="no language is called cobol; valid: c, cpp"):
        train_tokenizer(cobol, pairs(documents), LANGUAGES, {}, tmp_path / "out")
    absent = SMALL.model_copy(update={"language_weights": {"c": 1.0, "hip": 1.0}})
    only_c = [pair for pair in pairs(documents) if pair[0] == "c"]
    manifest = train_tokenizer(absent, only_c, LANGUAGES, {}, tmp_path / "out")
    assert list(manifest.counts["sample_bytes"]) == ["c"]
    assert "the documents hold no hip" in capsys.readouterr().err


@pytest.mark.parametrize("counted", [True, False])
def test_sizes_change_the_memory_not_the_sample(documents: list[Document], counted: bool) -> None:
    sizes: dict[str, int] = {}
    for language, content in pairs(documents):
        sizes[language] = sizes.get(language, 0) + len(content)
    sample = draw_sample(pairs(documents), 60_000, 0.5, seed=0, sizes=sizes if counted else None)
    total = sum(len(text) for drawn in sample.training.values() for text in drawn)
    assert 55_000 < total <= 60_000
    assert set(sample.training) == set(sizes)


def test_memory_of_the_sample_does_not_grow_with_the_corpus() -> None:
    """The bound that docs/data.md states, on a stream fifty times as long."""
    bound, count, length = 1 << 20, 3_200, 1 << 14
    languages = ("c", "cpp", "cuda", "fortran-free")

    def stream() -> Iterator[tuple[str, bytes]]:
        for number in range(count):
            yield languages[number % 4], b"%08d" % number * (length // 8)

    sizes = dict.fromkeys(languages, count // 4 * length)
    tracemalloc.start()
    sample = draw_sample(stream(), bound, 0.5, seed=0, sizes=sizes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    held_out = sum(len(content) for drawn in sample.held_out.values() for content in drawn)
    assert sum(len(text) for drawn in sample.training.values() for text in drawn) > 0.98 * bound
    assert peak - held_out < 2 * bound


_MEASURE = """
import json, resource, sys
from pathlib import Path
from hpctrain.tokenizer.train import TokenizerConfig, train_tokenizer
size = int(sys.argv[2])
words = [f"{a}{b} = {b}({a})\\n" for a in ("alpha", "beta", "gamma") for b in map(str, range(4_000))]
text = "".join(words).encode()
documents = (("c", b"%d" % n + text[n * 997 % 50_000 :][:100_000]) for n in range(size // 90_000))
config = TokenizerConfig(vocab_size=600, sample_bytes=size)
train_tokenizer(config, documents, ["c"], {}, Path(sys.argv[1]), {"c": size})
print(json.dumps(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024))
"""


@pytest.mark.slow
def test_memory_of_the_trainer_is_bounded_as_stated(tmp_path: Path) -> None:
    """100 MiB and 48 bytes a byte of text: TokenizerConfig.sample_bytes."""
    size = 4 << 20
    command = [sys.executable, "-c", _MEASURE, str(tmp_path / "out"), str(size)]
    peak = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    assert size < peak < (100 << 20) + 48 * size


def test_directives_become_pieces_where_the_corpus_has_few(documents: list[Document], tmp_path: Path) -> None:
    text = directive_text(1_000_000)
    assert len(text) == 1_000_000
    assert all(
        word in text for word in (b"!$omp parallel do\n", b"C$OMP& \n", b"*$OMP END DO\n", b"a<<<"[1:])
    )
    config = TokenizerConfig(vocab_size=4096, sample_bytes=1 << 20)
    for name, wanted in (("with", True), ("without", False)):
        record = config.model_copy(update={"directives": wanted})
        train_tokenizer(record, pairs(documents), LANGUAGES, {}, tmp_path / name)
    cuts = {
        name: Tokenizer.load(tmp_path / name).encode(b"C$OMP PARALLEL DO\nk<<<")
        for name in ("with", "without")
    }
    assert len(cuts["with"]) < len(cuts["without"])
