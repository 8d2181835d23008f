from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from hpctrain.corpus.document import Document
from hpctrain.tokenizer.codec import Tokenizer
from hpctrain.tokenizer.huggingface import to_tokenizer_json, tokenizer_config
from hpctrain.tokenizer.runs import SPACE_SIGN

LITERAL = "x<fim_prefix>y"


@pytest.fixture(scope="module")
def ours(tokenizer_directory: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_directory)


@pytest.fixture(scope="module")
def exported(ours: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("huggingface")
    (directory / "tokenizer.json").write_text(to_tokenizer_json(ours), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(ours)), encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def theirs(exported: Path) -> Any:
    return AutoTokenizer.from_pretrained(exported)


def test_ids_and_text_are_identical_on_real_documents(
    ours: Tokenizer, theirs: Any, documents: list[Document]
) -> None:
    compared = 0
    for document in documents:
        try:
            text = document.content.decode()
        except UnicodeDecodeError:
            continue
        if SPACE_SIGN in text or "<fim_prefix>" in text:
            continue
        ids = theirs.encode(text, add_special_tokens=False)
        assert ids == ours.encode(document.content), document.path
        assert theirs.decode(ids) == text
        compared += 1
    assert compared > 100


@pytest.mark.parametrize(
    "text", ["", "   ", "\t\t\r\n", "日本語 é 😀", " x", "\0", "e\u0301 \ufb01", "<0x41>"]
)
def test_ids_and_text_are_identical_on_odd_text(ours: Tokenizer, theirs: Any, text: str) -> None:
    ids = theirs.encode(text)
    assert ids == ours.encode(text.encode())
    assert theirs.decode(ids) == text


def test_roles_of_control_tokens(ours: Tokenizer, theirs: Any) -> None:
    special = ours.special
    assert (theirs.unk_token_id, theirs.pad_token_id) == (special.unk, special.pad)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (special.document, special.end)
    assert len(theirs) == ours.vocab_size
    ids = ours.encode_document("c", "a.c", b"int i;\n").tolist()
    assert theirs.decode(ids, skip_special_tokens=True) == "a.cint i;\n"
    assert theirs.decode(ids) == "<document><language:c><file_name>a.c<content>int i;\n<end>"


def test_literal_control_text_is_special_there_unless_split(
    ours: Tokenizer, theirs: Any, exported: Path
) -> None:
    assert ours.special.fim_prefix in theirs.encode(LITERAL)
    assert theirs.encode(LITERAL, split_special_tokens=True) == ours.encode(LITERAL.encode())
    splitting = AutoTokenizer.from_pretrained(exported, split_special_tokens=True)
    assert splitting.encode(LITERAL) == ours.encode(LITERAL.encode())
