"""Make a foreign tokenizer fit our data: lossless, with a token for each of our marks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as HuggingFaceTokenizer

from hpctrain.errors import DataError
from hpctrain.manifest import StageWriter
from hpctrain.tokenizer.codec import (
    FOREIGN_CONFIG_NAME,
    FOREIGN_NAME,
    MARKS_NAME,
    SPECIAL_NAMES,
    language_piece,
    special_piece,
)
from hpctrain.tokenizer.foreign import ForeignTokenizer, Marks, byte_ids, is_byte_level, steps

_SPELLINGS = {  # by whom: Qwen, StarCoder, Code Llama, DeepSeek
    "file_name": ("<|file_sep|>", "<file_sep>", "<filename>"),
    "fim_prefix": ("<|fim_prefix|>", "\u2581<PRE>", "<\uff5cfim\u2581begin\uff5c>"),
    "fim_suffix": ("<|fim_suffix|>", "\u2581<SUF>", "<\uff5cfim\u2581hole\uff5c>"),
    "fim_middle": ("<|fim_middle|>", "\u2581<MID>", "<\uff5cfim\u2581end\uff5c>"),
}
_ROLES = {"unk": "unk_token", "pad": "pad_token", "document": "bos_token", "end": "eos_token"}
_MARK = re.compile(r"\s*[<\[].+[>\]]", re.DOTALL)
_DROPPED = {"NFC": "NFC normalisation is", "Prepend": "space before a text is"}
_KEPT = ("Replace",)
_ROUND_ROWS = 64
_PROBES = (
    b"", b" ", b"  x", b"int main(void) {\n\treturn 0;\n}\n", b"      DO 10 I = 1, N\r\n   10 CONTINUE\r\n",
    "e\u0301 \u2581 \u65e5\u672c\u8a9e \U0001f600 \ufb01".encode(), bytes(range(256)), b" \n \n\n  \n",
)  # fmt: skip


@dataclass
class Adopted:
    """A foreign tokenizer as a stage will hold it, and what had to be done to it."""

    json: str
    config: dict[str, Any]
    marks: Marks
    notes: list[str] = field(default_factory=list)
    """What the user should know, a sentence each."""

    def write(self, stage: StageWriter) -> None:
        """Write the files of a tokenizer stage."""
        stage.path(FOREIGN_NAME).write_text(self.json, encoding="utf-8")
        stage.write_json(FOREIGN_CONFIG_NAME, self.config)
        stage.write_json(MARKS_NAME, self.marks.model_dump(mode="json"))
        stage.counts = {"pieces": self.marks.vocab_size, "added": len(self.marks.added)}


def adopt(source: Path, rows: int, languages: Sequence[str]) -> Adopted:
    """Take the tokenizer of a Hugging Face directory whose model has an embedding of `rows` rows.

    Control tokens that it lacks take spare ids, or new ones where none is spare. Raises DataError if there is
    none, if it does not fit the model, or if it would lose bytes.
    """
    theirs = _load(source)
    tree: dict[str, Any] = json.loads(theirs.backend_tokenizer.to_str())
    notes = _make_lossless(tree, source)
    if len(theirs) > rows:
        raise DataError(
            f"{source}: the tokenizer has {len(theirs):,} tokens, the model's embedding {rows:,} rows; "
            "it is the tokenizer of another model"
        )
    known = {token["content"]: token["id"] for token in tree["added_tokens"]}
    controls = {
        piece: id_
        for piece, id_ in known.items()
        if _MARK.fullmatch(piece) or piece in theirs.all_special_tokens
    }
    found = _find_roles(theirs, controls)
    spoken = {name: controls[language_piece(name)] for name in languages if language_piece(name) in controls}
    new = [special_piece(name) for name in SPECIAL_NAMES if name not in found]
    new += [language_piece(name) for name in languages if name not in spoken]
    lost = sorted(set(range(256)) - set(byte_ids(tree)))
    new += [_byte_piece(byte) for byte in lost if _byte_piece(byte) not in controls]
    grown, ids = _add(tree, new, source)
    size = _vocab_size(rows, [*ids.values(), len(theirs) - 1])
    marks = Marks(
        vocab_size=size,
        known=len(theirs),
        special={name: found.get(name, ids.get(special_piece(name), -1)) for name in SPECIAL_NAMES},
        languages={name: spoken.get(name, ids.get(language_piece(name), -1)) for name in languages},
        controls=sorted({*controls.values(), *ids.values()}),
        raw_bytes={byte: {**controls, **ids}[_byte_piece(byte)] for byte in lost},
        added=sorted(ids.values()),
    )
    notes += _tell_rows(new, rows, size)
    adopted = Adopted(grown, _config(theirs, marks, {**controls, **ids}), marks, notes)
    _prove_lossless(adopted, known, source)
    return adopted


def _load(source: Path) -> Any:
    """The tokenizer as transformers loads it, with nothing run that lies beside it."""
    from transformers import AutoTokenizer

    try:
        theirs = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except Exception as reason:  # noqa: BLE001 - transformers raises whatever its parts raise
        raise DataError(
            f"{source}: no tokenizer that can be loaded (tokenizer.json): {str(reason).splitlines()[0]}"
        ) from None
    if not hasattr(theirs, "backend_tokenizer"):
        raise DataError(f"{source}: its tokenizer has no tokenizer.json; convert it with transformers first")
    return theirs


def _make_lossless(tree: dict[str, Any], source: Path) -> list[str]:
    """Leave out, in place, what changes text before it is encoded; returns what was. Raises DataError."""
    if tree["model"].get("type") != "BPE":
        raise DataError(f"{source}: the tokenizer is {tree['model'].get('type')}; only BPE is supported")
    if not is_byte_level(tree) and not tree["model"].get("byte_fallback"):
        raise DataError(f"{source}: the tokenizer has neither byte-level pieces nor byte fallback")
    normalizers = steps(tree.get("normalizer"), "normalizers")
    kinds = [str(step.get("type")) for step in normalizers]
    if odd := sorted(set(kinds) - {*_DROPPED, *_KEPT}):
        raise DataError(
            f"{source}: the tokenizer changes text by {', '.join(odd)}, so bytes would not come back"
        )
    dropped = [_DROPPED[kind] for kind in kinds if kind in _DROPPED]
    kept = [step for step, kind in zip(normalizers, kinds, strict=True) if kind in _KEPT]
    tree["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    decoders = steps(tree.get("decoder"), "decoders")
    for step in (*steps(tree.get("pre_tokenizer"), "pretokenizers"), *decoders):
        if step.get("type") == "Metaspace" and step.get("prepend_scheme") != "never":
            step["prepend_scheme"] = "never"
            dropped.append(_DROPPED["Prepend"])
    for step in steps(tree.get("pre_tokenizer"), "pretokenizers"):
        if step.get("type") == "ByteLevel" and step.get("add_prefix_space"):
            step["add_prefix_space"] = False
            dropped.append(_DROPPED["Prepend"])
    kept = [step for step in decoders if step.get("type") != "Strip"]
    tree["decoder"] = {"type": "Sequence", "decoders": kept} if kept else None
    tree["truncation"] = tree["padding"] = None
    left_out = sorted(set(dropped))
    return (
        [f"the tokenizer's {' and '.join(left_out)} left out, so that every byte comes back"]
        if left_out
        else []
    )


def _find_roles(theirs: Any, controls: Mapping[str, int]) -> dict[str, int]:
    """Ids of those of our control tokens that the vocabulary has; no two share one, but unk.

    Where one token plays two parts it is the end: that is what the model learnt to say.
    """
    found: dict[str, int] = {}
    for name in sorted(SPECIAL_NAMES, key=lambda name: (name != "end", name != "document", name == "unk")):
        role = getattr(theirs, _ROLES[name], None) if name in _ROLES else None
        for piece in (role, special_piece(name), *_SPELLINGS.get(name, ())):
            if piece in controls and (name == "unk" or controls[piece] not in found.values()):
                found[name] = controls[piece]
                break
    if "end" in found:
        found.setdefault("unk", found["end"])  # it is never produced
    return found


def _add(tree: Mapping[str, Any], pieces: Sequence[str], source: Path) -> tuple[str, dict[str, int]]:
    """The text of the tokenizer with new control tokens, and their ids."""
    grown = HuggingFaceTokenizer.from_str(json.dumps(tree))
    before = grown.get_vocab(with_added_tokens=True)
    if taken := [piece for piece in pieces if piece in before]:
        raise DataError(f"{source}: {', '.join(taken)} are words of the tokenizer, but not control tokens")
    grown.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in pieces])
    vocabulary = grown.get_vocab(with_added_tokens=True)
    ids = {piece: int(vocabulary[piece]) for piece in pieces}
    if clash := set(ids.values()) & set(before.values()):
        raise DataError(f"{source}: the tokenizer's ids have gaps: {sorted(clash)} were given twice")
    return str(grown.to_str(pretty=False)), ids


def _vocab_size(rows: int, ids: Sequence[int]) -> int:
    """Rows of the embedding that hold all ids; more than there were come in whole blocks."""
    needed = max(ids) + 1
    return rows if needed <= rows else -(-needed // _ROUND_ROWS) * _ROUND_ROWS


def _tell_rows(new: Sequence[str], rows: int, size: int) -> list[str]:
    if not new:
        return []
    where = (
        "spare rows of the embedding"
        if size == rows
        else f"the embedding, grown from {rows:,} to {size:,} rows"
    )
    return [f"{len(new)} tokens were added in {where}, each as the mean of the others: {', '.join(new)}"]


def _byte_piece(byte: int) -> str:
    return f"<byte:0x{byte:02X}>"


def _config(theirs: Any, marks: Marks, controls: Mapping[str, int]) -> dict[str, Any]:
    """The content of `tokenizer_config.json`, with which AutoTokenizer loads what was written."""
    pieces = {id_: piece for piece, id_ in controls.items()}
    template = getattr(theirs, "chat_template", None)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{role: pieces[marks.special[name]] for name, role in _ROLES.items()},
        "clean_up_tokenization_spaces": False,
        **({"chat_template": template} if isinstance(template, str) else {}),
    }


def _prove_lossless(adopted: Adopted, known: Mapping[str, int], source: Path) -> None:
    """Encode what is apt to get lost. Raises DataError if it does not come back, or as a control token."""
    tokenizer = ForeignTokenizer(adopted.json, adopted.config, adopted.marks, "")
    controls = set(adopted.marks.controls) - set(adopted.marks.raw_bytes.values())
    for probe in (*_PROBES, *(piece.encode() for piece in known)):
        ids = tokenizer.encode(probe)
        if tokenizer.decode(ids) != probe or controls & set(ids):
            raise DataError(f"{source}: the tokenizer does not give {probe[:40]!r} back as it was")
