"""What a tokenizer does to text, in figures and in sight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from hpctrain.manifest import read_manifest
from hpctrain.tokenizer.codec import TOKENIZER_FORMAT, TOKENIZER_KIND, Tokenizer, special_ids


def bytes_per_token(tokenizer: Tokenizer, documents: Iterable[tuple[str, bytes]]) -> dict[str, float]:
    """Mean bytes a token of (language, content) pairs, by language and for `all` of them together."""
    sizes: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for language, content in documents:
        ids = len(tokenizer.encode(content))
        for name in (language, "all"):
            sizes[name] += len(content)
            tokens[name] += ids
    return {name: round(sizes[name] / tokens[name], 3) for name in sorted(tokens) if tokens[name]}


def describe(directory: Path) -> str:
    """A page about a finished tokenizer: size, bytes per token of held-out text by language, control tokens.

    Raises DataError if the tokenizer is missing or damaged.
    """
    tokenizer = Tokenizer.load(directory)
    counts = read_manifest(directory, TOKENIZER_KIND, TOKENIZER_FORMAT).counts
    sample, measured = counts.get("sample_bytes", {}), counts.get("held_out_bytes_per_token", {})
    rows = [f"{'language':<16}{'bytes trained on':>18}{'bytes per token':>18}"]
    for language, size in [*sample.items(), ("all", sum(sample.values()))]:
        rows.append(f"{language:<16}{size:>18,}{measured.get(language, '-'):>18}")
    special = ", ".join(f"{name} {id_}" for name, id_ in special_ids(tokenizer).items())
    languages = ", ".join(f"{name} {id_}" for name, id_ in tokenizer.languages.items())
    return "\n".join(
        [
            f"{directory}: {tokenizer.vocab_size:,} pieces, fingerprint {tokenizer.fingerprint}",
            *rows,
            f"control tokens: {special}",
            f"language tokens: {languages}",
        ]
    )


def describe_text(tokenizer: Tokenizer, content: bytes) -> str:
    """The pieces of a text between bars, with line ends shown as `\\n` before the real ones, and a total."""
    shown = []
    for id_ in tokenizer.encode(content):
        piece = tokenizer.decode([id_]).decode("utf-8", "backslashreplace")
        shown.append(piece.replace("\r", "\\r").replace("\t", "\\t").replace("\n", "\\n\n"))
    total = f"{len(content):,} bytes in {len(shown):,} tokens"
    return "|".join(shown) + (
        f"\n{total}, {len(content) / len(shown):.2f} bytes per token" if shown else total
    )
