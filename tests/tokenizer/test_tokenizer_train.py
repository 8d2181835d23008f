from __future__ import annotations

from pathlib import Path

import pytest

from hpctrain.config import load_config
from hpctrain.corpus.document import LANGUAGES, Document
from hpctrain.errors import ConfigError, DataError
from hpctrain.manifest import is_finished
from hpctrain.tokenizer.codec import MODEL_NAME, Tokenizer
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
    assert not {text.encode() for text in sample.training["c"]} & set(sample.held_out["c"])
    assert draw_sample(documents, 50_000, 0.5, seed=1).training != sample.training
