"""The tokenizer that the repository ships: whole, lossless, as its card says, and usable as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpctrain.config import fingerprint, load_config
from hpctrain.corpus.document import LANGUAGES, Document
from hpctrain.manifest import find_damage, read_manifest
from hpctrain.shards.pack import build_shards
from hpctrain.tokenizer.codec import TOKENIZER_FORMAT, TOKENIZER_KIND, Tokenizer
from hpctrain.tokenizer.describe import bytes_per_token
from hpctrain.tokenizer.huggingface import to_tokenizer_json
from hpctrain.tokenizer.train import TokenizerConfig

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "tokenizer" / "32k"
CARD = ROOT / "tokenizer" / "README.md"


@pytest.fixture(scope="module")
def shipped() -> Tokenizer:
    return Tokenizer.load(SHIPPED)


def test_manifest_and_recipe_agree(shipped: Tokenizer) -> None:
    manifest = read_manifest(SHIPPED, TOKENIZER_KIND, TOKENIZER_FORMAT)
    assert find_damage(SHIPPED, manifest) == []
    assert shipped.vocab_size == manifest.counts["pieces"] == 32768
    assert set(LANGUAGES) <= set(shipped.languages)
    recipe = load_config(ROOT / "configs" / "tokenizer" / "32k.yaml", [], TokenizerConfig)
    assert manifest.details["config"] == recipe.model_dump()
    assert manifest.inputs["config"] == fingerprint(recipe)
    assert shipped.fingerprint in CARD.read_text(), "the card is of another model"


@settings(max_examples=500, deadline=None)
@given(
    content=st.binary(max_size=400)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_any_bytes_come_back(shipped: Tokenizer, content: bytes) -> None:
    ids = shipped.encode(content)
    assert shipped.decode(ids) == content
    assert not set(ids) & set(shipped.languages.values())


@pytest.mark.parametrize("piece", ["      CALL", "     $", "<<<", ">>>"])
def test_what_the_card_says_are_pieces(shipped: Tokenizer, piece: str) -> None:
    assert len(shipped.encode(piece.encode())) == 1
    assert f"`{piece}`" in CARD.read_text()


@pytest.mark.parametrize(
    "sentinel", ["!$omp", "c$omp", "!$OMP", "C$OMP", "*$OMP", "!$acc", "C$ACC", "!DIR$", "     $"]
)
def test_the_start_of_a_line_is_one_piece(shipped: Tokenizer, sentinel: str) -> None:
    ids = shipped.encode(f"x\n{sentinel} DO".encode())
    assert shipped.decode([ids[1]]).removeprefix(b"\n") == sentinel.encode()
    assert f"`{sentinel}`" in CARD.read_text()


def test_the_card_is_right_about_real_documents(shipped: Tokenizer, documents: list[Document]) -> None:
    """Its figures are of whole packages; here is a part of the other code that it names."""
    row = r"^\| ([a-z-]+) \| ([\d.]+) \| ([\d.]+) \| [\d.]+ \| ([\d.]+) \|"
    card = {name: tuple(map(float, figures)) for name, *figures in re.findall(row, CARD.read_text(), re.M)}
    found = bytes_per_token(shipped, [(d.language, d.content) for d in documents])
    for language in ("c", "cpp", "cuda", "fortran-free"):
        assert found[language] == pytest.approx(card[language][2], rel=0.15), language
    assert all(ours > theirs for ours, theirs, _ in card.values())
    held_out = read_manifest(SHIPPED, TOKENIZER_KIND, TOKENIZER_FORMAT).counts["held_out_bytes_per_token"]
    for language in ("c", "cpp", "fortran-fixed", "fortran-free", "all"):  # little text in others
        figure = held_out[language]
        assert figure == pytest.approx(card[language][0], rel=0.1), language


def test_shards_of_any_corpus_of_its_languages(corpus_directory: Path, tmp_path: Path) -> None:
    manifest = build_shards(corpus_directory, SHIPPED, tmp_path / "shards")
    assert manifest.inputs["tokenizer"] == Tokenizer.load(SHIPPED).fingerprint
    assert sum(manifest.counts["tokens"]["train"].values()) > 0


def test_it_can_be_exported(shipped: Tokenizer) -> None:
    from tokenizers import Tokenizer as HuggingFaceTokenizer

    theirs = HuggingFaceTokenizer.from_str(to_tokenizer_json(shipped))
    text = "      CALL DGEMM( 'N', A, LDA )\nC$OMP PARALLEL DO\n  k<<<g, b>>>(x);  // \u00e9\n"
    assert theirs.encode(text).ids == shipped.encode(text.encode())
