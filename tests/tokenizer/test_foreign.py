"""Tokenizers of other families: lossless, with our marks, and with their ids for ordinary text."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.corpus.document import LANGUAGES, Document
from hpctrain.errors import DataError
from hpctrain.manifest import write_stage
from hpctrain.tokenizer.adopt import Adopted, adopt
from hpctrain.tokenizer.codec import FOREIGN_NAME, MARKS_NAME, TOKENIZER_FORMAT, TOKENIZER_KIND, Tokenizer
from hpctrain.tokenizer.describe import describe
from hpctrain.tokenizer.foreign import ForeignTokenizer
from hpctrain.tokenizer.huggingface import to_tokenizer_json, tokenizer_config

sys.path.insert(0, str(Path(__file__).parents[1] / "importing"))
from foreign_models import FAMILIES, write_tokenizer

ROWS = 700


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp(request.param)
    write_tokenizer(directory, request.param)
    return directory


@pytest.fixture(scope="module")
def adopted(directory: Path) -> Adopted:
    return adopt(directory, ROWS, LANGUAGES)


@pytest.fixture(scope="module")
def stage(adopted: Adopted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stage") / "tokenizer"
    with write_stage(out, TOKENIZER_KIND, TOKENIZER_FORMAT) as writer:
        adopted.write(writer)
    return out


@pytest.fixture(scope="module")
def ours(stage: Path) -> Tokenizer:
    return Tokenizer.load(stage)


@pytest.fixture(scope="module")
def theirs(directory: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory)


@given(
    content=st.binary(max_size=200)
    | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.sampled_from(["<s>", "</s>", "<|endoftext|>", "<|fim_prefix|>", "<content>", "<unk>", "<0x0A>"]).map(
        lambda piece: f"a {piece} b{piece}".encode()
    )
)
def test_any_bytes_come_back_and_no_text_is_a_control_token(ours: Tokenizer, content: bytes) -> None:
    assert isinstance(ours, ForeignTokenizer)
    ids = ours.encode(content)
    assert ours.decode(ids) == content
    assert int(ours.token_bytes[ids].sum()) == len(content)
    assert not set(ids) & (set(ours.marks.controls) - set(ours.marks.raw_bytes.values()))
    assert max(ids, default=0) < ours.vocab_size


def test_real_documents_come_back_on_several_threads(ours: Tokenizer, documents: list[Document]) -> None:
    contents = [document.content[:5000] for document in documents]
    one, several = ours.encode_batch(contents, num_threads=1), ours.encode_batch(contents, num_threads=2)
    for content, first, second in zip(contents, one, several, strict=True):
        assert first.dtype == ours.dtype
        np.testing.assert_array_equal(first, second)
        assert ours.decode(first) == content


def test_ordinary_text_has_the_ids_that_the_model_learnt(ours: Tokenizer, theirs: Any) -> None:
    """A word space that a family puts before its text is left out here, so the text begins inside a line."""
    for text in ("int i = 0;\n\tsum += x[i] * y[i];\n", "MPI_Comm_rank(comm, &rank);  // r\u00e9sum\u00e9"):
        expected = theirs.encode("\n" + text, add_special_tokens=False)
        newline = theirs.encode("\n", add_special_tokens=False)
        assert expected[: len(newline)] == newline
        assert ours.encode(b"\n" + text.encode()) == expected[len(newline) - len(ours.encode(b"\n")) :]


def test_a_document_has_each_mark_once_and_in_order(ours: Tokenizer) -> None:
    special = ours.special
    ids = ours.encode_document("fortran-free", "axpy.f90", b"end\n").tolist()
    marks = [
        special.document,
        ours.languages["fortran-free"],
        special.file_name,
        special.content,
        special.end,
    ]
    assert [id_ for id_ in ids if id_ in marks] == marks
    assert ours.decode(ids) == b"axpy.f90end\n"
    values = [getattr(special, name) for name in ("document", "end", "pad", "file_name", "content")]
    values += [special.fim_prefix, special.fim_suffix, special.fim_middle, *ours.languages.values()]
    assert len(set(values)) == len(values)


def test_their_marks_are_ours_where_there_are_such(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path, "qwen2")
    marks = adopt(tmp_path, ROWS, LANGUAGES).marks
    for name, piece in {
        "end": "<|endoftext|>", "fim_prefix": "<|fim_prefix|>", "fim_suffix": "<|fim_suffix|>",
        "fim_middle": "<|fim_middle|>", "file_name": "<|file_sep|>", "unk": "<|endoftext|>",
    }.items():  # fmt: skip
        assert marks.special[name] == tokenizer.token_to_id(piece)
    assert marks.special["pad"] != marks.special["end"], "padding that is the end could not be told from it"
    assert marks.special["document"] in marks.added


def test_spare_rows_are_used_before_new_ones(directory: Path) -> None:
    spare = adopt(directory, ROWS, LANGUAGES)
    assert spare.marks.vocab_size == ROWS
    assert any("spare rows" in note for note in spare.notes)
    full = adopt(directory, spare.marks.known, LANGUAGES)
    assert full.marks.vocab_size % 64 == 0
    assert full.marks.vocab_size > full.marks.known
    assert any("grown from" in note for note in full.notes)
    assert full.marks.special == spare.marks.special


def test_what_is_exported_encodes_as_we_do(ours: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    (tmp_path / "tokenizer.json").write_text(to_tokenizer_json(ours), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(ours)), encoding="utf-8")
    exported = AutoTokenizer.from_pretrained(tmp_path)
    text = " do i = 1, n\n   y(i) = y(i) + a * x(i)  ! \u65e5\u672c\n"
    assert exported.encode(text, add_special_tokens=False) == ours.encode(text.encode())
    assert exported.decode(ours.encode(text.encode())) == text
    special = ours.special
    assert (exported.bos_token_id, exported.eos_token_id) == (special.document, special.end)
    assert exported.pad_token_id == special.pad
    assert exported.convert_tokens_to_ids("<language:c>") == ours.languages["c"]
    again = adopt(tmp_path, ours.vocab_size, LANGUAGES)
    assert again.marks.special == {name: getattr(special, name) for name in again.marks.special}
    assert again.marks.added == []


def test_it_survives_pickling_and_is_described(ours: Tokenizer, stage: Path) -> None:
    text = b"call mpi_init(ierr)\n"
    assert pickle.loads(pickle.dumps(ours)).encode(text) == ours.encode(text)
    assert f"{ROWS:,} pieces" in describe(stage)


def test_damage_is_found(stage: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(stage, tmp_path / "t")
    (tmp_path / "t" / FOREIGN_NAME).write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path / "t")


def test_marks_that_do_not_fit_are_refused(adopted: Adopted) -> None:
    with pytest.raises(DataError, match="beyond a vocabulary of 10"):
        ForeignTokenizer(adopted.json, {}, adopted.marks.model_copy(update={"vocab_size": 10}), "")
    special = {name: id_ for name, id_ in adopted.marks.special.items() if name != "end"}
    with pytest.raises(DataError, match=f"{MARKS_NAME} lacks end"):
        ForeignTokenizer(adopted.json, {}, adopted.marks.model_copy(update={"special": special}), "")
    with pytest.raises(DataError, match="not a tokenizer"):
        ForeignTokenizer("{", {}, adopted.marks, "")


def test_a_tokenizer_of_another_model_is_refused(directory: Path) -> None:
    with pytest.raises(DataError, match=r"embedding 100 rows; it is the tokenizer of another model"):
        adopt(directory, 100, LANGUAGES)


def _save(tokenizer: Any, directory: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(directory)


def test_what_would_lose_bytes_is_refused_by_name(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Theirs
    from tokenizers import models, normalizers

    _save(Theirs(models.WordPiece({"<unk>": 0, "a": 1}, unk_token="<unk>")), tmp_path / "pieces")
    with pytest.raises(DataError, match="WordPiece; only BPE is supported"):
        adopt(tmp_path / "pieces", ROWS, LANGUAGES)
    _save(Theirs(models.BPE({"<unk>": 0, "a": 1}, [], unk_token="<unk>")), tmp_path / "plain")
    with pytest.raises(DataError, match="neither byte-level pieces nor byte fallback"):
        adopt(tmp_path / "plain", ROWS, LANGUAGES)
    lower = FAMILIES["llama2"]()[0]
    lower.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "\u2581")])
    _save(lower, tmp_path / "lower")
    with pytest.raises(DataError, match="changes text by Lowercase"):
        adopt(tmp_path / "lower", ROWS, LANGUAGES)


def test_no_tokenizer_or_one_that_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tokenizer that can be loaded"):
        adopt(tmp_path, ROWS, LANGUAGES)
    write_tokenizer(tmp_path, "llama3")
    (tmp_path / "tokenizer.json").write_text((tmp_path / "tokenizer.json").read_text()[:-200])
    with pytest.raises(DataError, match="no tokenizer that can be loaded"):
        adopt(tmp_path, ROWS, LANGUAGES)


def test_bytes_without_a_piece_get_one(tmp_path: Path) -> None:
    """As in vocabularies that were made from text alone: some bytes occur in no UTF-8."""
    from transformers import PreTrainedTokenizerFast

    tokenizer, roles = FAMILIES["llama3"]()
    tree = json.loads(tokenizer.to_str())
    letter = "\u00f5"  # of byte 0xF5
    last = max(tree["model"]["vocab"], key=tree["model"]["vocab"].__getitem__)
    tree["model"]["vocab"][f"{last}x"] = tree["model"]["vocab"].pop(letter)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer.from_str(json.dumps(tree)), **roles).save_pretrained(
        tmp_path
    )
    adopted = adopt(tmp_path, ROWS, LANGUAGES)
    assert set(adopted.marks.raw_bytes) == {0xF5}
    ours = ForeignTokenizer(adopted.json, adopted.config, adopted.marks, "")
    assert ours.decode(ours.encode(b"a\xf5\xe9b")) == b"a\xf5\xe9b"
    assert ours.encode(b"\xf5") == [adopted.marks.raw_bytes[0xF5]]
    (tmp_path / "tokenizer.json").write_text(adopted.json, encoding="utf-8")
    assert adopt(tmp_path, ROWS, LANGUAGES).marks.raw_bytes == adopted.marks.raw_bytes
