from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpctrain.corpus.document import LANGUAGES, Document
from hpctrain.errors import DataError
from hpctrain.manifest import MANIFEST_NAME, commit
from hpctrain.tokenizer.codec import (
    MODEL_NAME,
    SPECIAL_NAMES,
    TOKENIZER_FORMAT,
    TOKENIZER_KIND,
    Tokenizer,
    language_piece,
    special_ids,
    special_piece,
)
from hpctrain.tokenizer.describe import bytes_per_token, describe, describe_text

HOSTILE = [
    b"",
    b"\0",
    b"\xff\xfe\xfd",
    "\u2581".encode(),
    b"a\xe2\x96\x81\xe2\x96 \xe2b",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xc0\x80 overlong",
    b"\xf4\x90\x80\x80",
    "\ufeff\ufffd\uffff\U0010ffff\U000e0001 \u2585 \u2047".encode(),
    b"\r\n\r\r\n\n",
    b"\t\t \t  \x0b\x0c",
    b" " * 1000,
    b"x" * 70_000,
    b" leading and trailing  ",
    b"<0x41><0xFF><unk><pad>",
    b"e\xcc\x81 \xef\xac\x81 \xe2\x85\xa3 \xef\xbc\xa1",
]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_directory: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_directory)


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bytes_come_back(tokenizer: Tokenizer, content: bytes) -> None:
    assert tokenizer.decode(tokenizer.encode(content)) == content


def test_real_documents_come_back(tokenizer: Tokenizer, documents: list[Document]) -> None:
    contents = [document.content for document in documents]
    encoded = tokenizer.encode_batch(contents, num_threads=2)
    assert [tokenizer.decode(ids) for ids in encoded] == contents
    assert all(ids.dtype == tokenizer.dtype == np.uint16 for ids in encoded)
    assert [ids.tolist() for ids in encoded] == [tokenizer.encode(content) for content in contents]
    for content, ids in zip(contents, encoded, strict=True):
        assert tokenizer.token_bytes[ids].sum() == len(content)


@settings(max_examples=1000, deadline=None)
@given(content=st.binary(max_size=300))
def test_any_bytes_come_back(tokenizer: Tokenizer, content: bytes) -> None:
    assert tokenizer.decode(tokenizer.encode(content)) == content


_FRAGMENTS = [special_piece(name).encode() for name in SPECIAL_NAMES] + [
    b"\t", b"\r\n", b"      DO 10 I = 1, N\n", b"     &", b"!$omp parallel do", b"<0x0A>", b"\xe2\x96\x81",
    b"\xe2", b"\xff", b"\0", "é".encode(), b"   ", language_piece("c").encode(), b"x", b"<", b">", b"7",
]  # fmt: skip


@settings(max_examples=1000, deadline=None)
@given(parts=st.lists(st.sampled_from(_FRAGMENTS), max_size=40))
def test_source_like_text_comes_back_without_control_tokens(tokenizer: Tokenizer, parts: list[bytes]) -> None:
    content = b"".join(parts)
    ids = tokenizer.encode(content)
    assert tokenizer.decode(ids) == content
    control = {*special_ids(tokenizer).values(), *tokenizer.languages.values()}
    assert not control & set(ids)


def test_control_tokens_stand_for_nothing(tokenizer: Tokenizer) -> None:
    control = [*special_ids(tokenizer).values(), *tokenizer.languages.values()]
    assert tokenizer.decode(control) == b""
    assert not tokenizer.token_bytes[control].any()
    others = np.delete(tokenizer.token_bytes, control)
    assert others.all()
    assert control == list(range(len(control)))


def test_document_layout(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_document("fortran-free", "src/a b.f90", b"end program\n").tolist()
    special = tokenizer.special
    content_at = ids.index(special.content)
    assert ids[:3] == [special.document, tokenizer.language_id("fortran-free"), special.file_name]
    assert tokenizer.decode(ids[3:content_at]) == b"src/a b.f90"
    assert tokenizer.decode(ids[content_at + 1 : -1]) == b"end program\n"
    assert ids[-1] == special.end
    assert ids.count(special.document) == ids.count(special.end) == 1


def test_batch_of_documents_equals_one_by_one(tokenizer: Tokenizer, documents: list[Document]) -> None:
    batch = [(document.language, document.path, document.content) for document in documents[::5]]
    for ids, document in zip(tokenizer.encode_documents(batch, num_threads=2), batch, strict=True):
        assert np.array_equal(ids, tokenizer.encode_document(*document))


def test_every_language_has_a_token_whether_seen_or_not(tokenizer: Tokenizer) -> None:
    assert tuple(tokenizer.languages) == LANGUAGES
    with pytest.raises(DataError, match="no token for the language cobol"):
        tokenizer.language_id("cobol")


@pytest.mark.parametrize("ids", [[-1], [2048], [5, 1 << 40]])
def test_ids_outside_the_vocabulary_are_refused(tokenizer: Tokenizer, ids: list[int]) -> None:
    with pytest.raises(DataError, match="vocabulary of 2048"):
        tokenizer.decode(ids)


def test_pickles(tokenizer: Tokenizer) -> None:
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode(HOSTILE[4]) == tokenizer.encode(HOSTILE[4])
    assert copy.fingerprint == tokenizer.fingerprint


def test_damage_is_found_before_the_model_is_parsed(tokenizer_directory: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "tokenizer"
    shutil.copytree(tokenizer_directory, damaged)
    model = damaged / MODEL_NAME
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(DataError, match=r"tokenizer\.model: checksum differs"):
        Tokenizer.load(damaged)
    (damaged / MANIFEST_NAME).unlink()
    with pytest.raises(DataError, match="not finished"):
        Tokenizer.load(damaged)


@pytest.mark.parametrize(
    ("content", "message"), [(b"not a model", "not a SentencePiece model"), (b"", "lacks")]
)
def test_a_file_that_is_no_model_of_ours_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / MODEL_NAME).write_bytes(content)
    commit(tmp_path, TOKENIZER_KIND, TOKENIZER_FORMAT, {}, {}, {})
    with pytest.raises(DataError, match=message):
        Tokenizer.load(tmp_path)


def test_descriptions(tokenizer: Tokenizer, tokenizer_directory: Path, documents: list[Document]) -> None:
    figures = bytes_per_token(tokenizer, [(d.language, d.content) for d in documents])
    assert set(figures) == {*(d.language for d in documents), "all"}
    assert 1 < figures["all"] < 10
    page = describe(tokenizer_directory)
    assert "2,048 pieces" in page
    assert "fim_prefix 6" in page
    assert "fortran-fixed" in page
    assert "5 bytes in" in describe_text(tokenizer, b"a\tb\r\n")
    assert describe_text(tokenizer, b"") == "0 bytes in 0 tokens"
