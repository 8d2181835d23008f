"""Near-duplicates: recall, precision and speed on planted copies, against datasketch and rensa.

What a copy is, is decided for all by the exact similarity of normalised shingles.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import statistics
import sysconfig
import tempfile
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.table import Row, row
from hpctrain.corpus.languages import UNDECIDED, find_language
from hpctrain.corpus.lexer import LIVE, Kind, mask, regions
from hpctrain.corpus.minhash import Hashes, Signature, jaccard, mix
from hpctrain.corpus.nearby import DuplicatesConfig, Signer, find_near_duplicates
from hpctrain.parallel.crew import ALONE

CONFIG = DuplicatesConfig()
PLACES, WORDS = CONFIG.permutations, CONFIG.shingle_tokens
RENSA_BANDS = 16  # of 8 rows: rensa leaves the choice to its user, and finds most with so many
SUFFIXES = {".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".cuh", ".f", ".f90"}
HANDS = ("as it was", "other comments", "other case", "other form", "other precision")

Text = tuple[bytes, str]
Matches = list[list[int]]
"""For each document the earlier ones that it was found to be a copy of."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    installed = Path(sysconfig.get_paths()["purelib"])
    parser.add_argument(
        "--source", type=Path, nargs="+", default=[installed], help="directories of originals"
    )
    parser.add_argument("--lapack", type=Path, help="an unpacked LAPACK, whose own copies are looked for too")
    parser.add_argument("--documents", type=int, default=2000, help="originals; every second one gets a copy")
    parser.add_argument("--rounds", type=int, default=3)


def measure(options: argparse.Namespace) -> list[Row]:
    """Find planted copies by every variant, from text and from equal shingles; then LAPACK's; then memory."""
    signer = Signer(CONFIG)
    found = [text for root in options.source for _, text in read_texts(root)]
    bench = Planted(*plant(choose_originals(found, options.documents, signer)), signer)
    rows = bench.rows("from text", list(text_variants(signer)), options.rounds, HANDS)
    rows += bench.rows("from equal shingles", list(shingle_variants(signer, bench.shingles)), options.rounds)
    return [*rows, *(lapack_rows(options.lapack, signer) if options.lapack else []), *memory_rows()]


# --- what finds copies ---


@dataclass(frozen=True)
class Variant:
    """One way to find copies among texts."""

    name: str
    match: Callable[[Sequence[Text]], Matches]


def text_variants(signer: Signer) -> Iterator[Variant]:
    """From bytes to matches: ours, and each peer as its documentation would have it, on words."""

    def ours(texts: Sequence[Text]) -> Matches:
        """Shingles go to disk once, as a build keeps them, and come back for comparisons."""
        signatures, ends = [], [0]
        with tempfile.TemporaryFile() as file:
            for text in texts:
                shingles = signer.shingles_of(*text)
                signatures.append(signer.sketch(shingles))
                ends.append(ends[-1] + file.write(shingles.tobytes()))

            def read(place: int) -> Hashes:
                file.seek(ends[place])
                return np.frombuffer(file.read(ends[place + 1] - ends[place]), np.uint64)

            return _search(np.array(signatures), read)

    def words_of(texts: Sequence[Text]) -> list[set[str]]:
        found = []
        for content, _ in texts:
            words = content.decode(errors="replace").split()
            found.append({" ".join(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1))})
        return found

    yield Variant("hpctrain", ours)
    for name, match in installed_peers():
        yield Variant(f"{name} on {WORDS} words", lambda texts, match=match: match(words_of(texts)))


def shingle_variants(signer: Signer, shingles: Sequence[Hashes]) -> Iterator[Variant]:
    """From the same shingles to matches, so that only signatures and the search differ."""
    rng = np.random.default_rng(1)
    factors = rng.integers(0, 1 << 63, PLACES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    terms = rng.integers(0, 1 << 63, PLACES, dtype=np.uint64)

    def independent(hashes: Hashes) -> Signature:
        least: Hashes = np.full(PLACES, ~np.uint64(0))
        for start in range(0, len(hashes), 1024):  # 1 MB at a time
            least = np.minimum(least, mix(hashes[start : start + 1024, None] * factors + terms).min(axis=0))
        return least.astype(np.uint32)

    def by(sketch: Callable[[Hashes], Signature]) -> Matches:
        return _search(np.array([sketch(one) for one in shingles]), shingles.__getitem__)

    yield Variant("hpctrain", lambda _: by(signer.sketch))
    yield Variant(f"hpctrain with {PLACES} hash functions", lambda _: by(independent))
    as_bytes = [[hashed.tobytes() for hashed in one] for one in shingles]
    for name, match in installed_peers():
        yield Variant(name, lambda _, match=match: match(as_bytes))


def _search(signatures: Signature, read: Callable[[int], Hashes]) -> Matches:
    found: Matches = [[] for _ in signatures]
    for dropped, kept, _ in find_near_duplicates(signatures, read, CONFIG, ALONE).tolist():
        found[dropped].append(kept)
    return found


def installed_peers() -> Iterator[tuple[str, Callable[[Any], Matches]]]:
    for name, match in (("datasketch", _match_datasketch), ("rensa", _match_rensa)):
        if importlib.util.find_spec(name):
            yield name, match
        else:
            print(f"{name} is left out: pip install 'hpctrain[bench]' brings it")


def _match_datasketch(sets: Sequence[Any]) -> Matches:
    from datasketch import MinHash, MinHashLSH

    index, found = MinHashLSH(threshold=CONFIG.threshold, num_perm=PLACES), []
    for number, one in enumerate(sets):
        sketch = MinHash(num_perm=PLACES)
        sketch.update_batch([item.encode() if isinstance(item, str) else item for item in one])
        found.append(index.query(sketch))
        index.insert(number, sketch)
    return found


def _match_rensa(sets: Sequence[Any]) -> Matches:
    from rensa import RMinHash, RMinHashLSH

    index, found = RMinHashLSH(CONFIG.threshold, PLACES, RENSA_BANDS), []
    for number, one in enumerate(sets):
        sketch = RMinHash(PLACES, 1)
        sketch.update(list(one))
        found.append(index.query(sketch))
        index.insert(number, sketch)
    return found


# --- planted copies ---


def read_texts(root: Path) -> Iterator[tuple[str, Text]]:
    """Path and text of every file below `root` in a language of the corpus."""
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file() and path.stat().st_size < 1 << 20:
            content = path.read_bytes()
            language = find_language(str(path), content)
            if language:
                yield str(path.relative_to(root)), (content, "c" if language == UNDECIDED else language)


def choose_originals(texts: Sequence[Text], count: int, signer: Signer) -> list[Text]:
    """At most `count` texts in a random order, of which no two are alike, nor too short to tell."""
    config = CONFIG.model_copy(update={"threshold": 0.5})
    order = np.random.default_rng(0).permutation(len(texts))
    drawn = [texts[place] for place in order if len(texts[place][0]) > 2000][: 4 * count]
    shingles = [signer.shingles_of(*text) for text in drawn]
    signatures = np.array([signer.sketch(one) for one in shingles])
    alike = set(find_near_duplicates(signatures, shingles.__getitem__, config, ALONE)["dropped"].tolist())
    return [text for place, text in enumerate(drawn) if place not in alike and len(shingles[place]) > 60][
        :count
    ]


def plant(originals: Sequence[Text]) -> tuple[list[Text], dict[int, tuple[int, str]]]:
    """Originals, then a copy of every second one; and for each copy its original and what was done to it."""
    rng = np.random.default_rng(0)
    texts, origins = list(originals), {}
    for place in range(0, len(originals), 2):
        hand = str(rng.choice(HANDS))
        rewritten = rewrite(originals[place], hand)
        copy = edit(*(rewritten or originals[place]), rng.uniform(0, 0.05), rng)
        origins[len(texts)] = place, hand if rewritten else HANDS[0]
        texts.append(copy)
    return texts, origins


def edit(content: bytes, language: str, share: float, rng: np.random.Generator) -> Text:
    """The text with this share of its names replaced, each by one of its own."""
    names = list(re.finditer(rb"[A-Za-z_]\w*", mask(content, language)))
    parts, position = [], 0
    for number in np.flatnonzero(rng.random(len(names)) < share).tolist():
        parts += [content[position : names[number].start()], b"xx%d" % number]
        position = names[number].end()
    return b"".join([*parts, content[position:]]), language


def rewrite(text: Text, hand: str) -> Text | None:
    """The text as another might have written it, or None where the language has no such choice."""
    content, language = text
    if hand == "other comments":
        bare = mask(content, language, LIVE | {Kind.STRING, Kind.CONTINUATION})
        return re.sub(rb"[ \t]+$|\n(?=\s*\n)", b"", bare, flags=re.MULTILINE), language
    if hand == "other case" and language.startswith("fortran"):
        return content.swapcase(), language
    if hand == "other form" and language == "fortran-fixed":
        return to_free_form(content), "fortran-free"
    if hand == "other precision":
        swapped = {b"float": b"double", b"double": b"float", b"DOUBLE PRECISION": b"REAL"}
        return re.sub(rb"\b(?:float|double|DOUBLE PRECISION)\b", lambda m: swapped[m[0]], content), language
    return None


def to_free_form(content: bytes) -> bytes:
    """Fixed form as free form without comments, in small letters, a statement a line."""
    marks = {region.start for region in regions(content, "fortran-fixed") if region.kind is Kind.CONTINUATION}
    live, lines, start = mask(content, "fortran-fixed", LIVE | {Kind.STRING}), list[bytes](), 0
    for line in live.splitlines(keepends=True):
        text = line.strip().lower()
        if start in marks and lines:
            lines[-1] += b" " + text
        elif text:
            lines.append(text)
        start += len(line)
    return b"\n".join(re.sub(rb"(.{60,100}) ", rb"\1 &\n   ", line) for line in lines) + b"\n"


class Planted:
    """Texts, where copies are, and the exact similarities that a variant's answers are judged by."""

    def __init__(self, texts: list[Text], origins: dict[int, tuple[int, str]], signer: Signer) -> None:
        self.texts, self.origins = texts, origins
        self.shingles = [signer.shingles_of(*text) for text in texts]
        self.megabytes = sum(len(content) for content, _ in texts) / 1e6
        self.similarity = {copy: self.exact(copy, place) for copy, (place, _) in origins.items()}
        close = sum(each >= CONFIG.threshold for each in self.similarity.values())
        print(f"{len(texts) - len(origins)} originals, {len(origins)} copies, {close} of them at or above "
              f"{CONFIG.threshold}; {self.megabytes:.1f} MB")  # fmt: skip

    def exact(self, one: int, other: int) -> float:
        """Similarity of two texts."""
        return jaccard(self.shingles[one], self.shingles[other])

    def rows(
        self, case: str, variants: Sequence[Variant], rounds: int, hands: Sequence[str] = ()
    ) -> list[Row]:
        """Each variant once a round, in turn; then what it found, also of the copies by these hands."""
        seconds: dict[str, list[float]] = defaultdict(list)
        matches: dict[str, Matches] = {}
        for _ in range(rounds):
            for variant in variants:
                began = time.process_time()
                matches[variant.name] = variant.match(self.texts)
                seconds[variant.name].append(time.process_time() - began)
        base = statistics.median(len(self.texts) / each for each in seconds["hpctrain"])
        rows = []
        for name, times in seconds.items():
            rows.append(row(case, name, "documents/s", [len(self.texts) / each for each in times], base))
            rows.append(row(case, name, "MB/s", [self.megabytes / each for each in times]))
            rows += [row(case, name, metric, [value]) for metric, value in self.judge(matches[name], hands)]
        return rows

    def judge(self, matches: Matches, hands: Sequence[str]) -> Iterator[tuple[str, float]]:
        """Recall over copies at the threshold or above, also by similarity and hand, and precision."""
        groups: dict[str, list[bool]] = defaultdict(list)
        for copy, similarity in self.similarity.items():
            if similarity >= CONFIG.threshold:
                bin_name = "0.8 to 0.9" if similarity < 0.9 else "0.9 to 1"
                for group in ("", bin_name, *({self.origins[copy][1]} & set(hands))):
                    groups[f"recall{', ' if group else ''}{group}"].append(bool(matches[copy]))
        yield from sorted((name, float(np.mean(values))) for name, values in groups.items())
        flagged = [
            max(self.exact(later, one) for one in earlier) >= CONFIG.threshold
            for later, earlier in enumerate(matches)
            if earlier
        ]
        yield "precision", float(np.mean(flagged))


# --- LAPACK's own copies, and memory ---


def lapack_rows(root: Path, signer: Signer) -> list[Row]:
    """Real copies: each routine in the other precision, and each file as another project might vendor it."""
    texts = [(path, text) for path, text in read_texts(root) if path.startswith(("SRC/", "BLAS/SRC/"))]
    groups: dict[str, list[str]] = defaultdict(list)
    for path, _ in texts:
        folder, _, name = path.rpartition("/")
        for pair in ("sd", "cz"):
            if name[0] in pair:
                groups[f"{folder}/{pair}{name[1:]}"].append(path)
    pairs = [members for members in groups.values() if len(members) == 2]
    vendored = [(to_free_form(text[0]), "fortran-free") for _, text in texts if text[1] == "fortran-fixed"]
    everything, places = [text for _, text in texts], {path: place for place, (path, _) in enumerate(texts)}
    rows = []
    for variant in text_variants(signer):
        matches = variant.match(everything)
        found = [any(matches[places[path]] for path in members) for members in pairs]
        rows.append(row("LAPACK", variant.name, "recall, s and d, c and z", [float(np.mean(found))]))
        found = [bool(one) for one in variant.match([*everything, *vendored])[len(everything) :]]
        rows.append(row("LAPACK", variant.name, "recall, free form", [float(np.mean(found))]))
    return rows


def memory_rows() -> list[Row]:
    """Bytes allocated at the peak of a search, from the differences of searches that differ in one thing."""

    def peak(documents: int, table_rows: int, copies: bool) -> int:
        with tempfile.NamedTemporaryFile() as file:
            signatures = np.memmap(file, np.uint32, "w+", shape=(documents, PLACES), order="F")
            for place in range(PLACES):
                signatures[:, place] = np.arange(documents) // (2 if copies else 1)
            alike = np.arange(50, dtype=np.uint64)
            tracemalloc.start()
            find_near_duplicates(signatures, lambda _: alike, CONFIG, ALONE, table_rows, cache_bytes=0)
            used = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return used

    small, large = 1 << 14, 1 << 17
    base = peak(large, small, copies=False)
    per_document = (peak(2 * large, small, copies=False) - base) / large
    per_row = (peak(large, large, copies=False) - base) / (large - small)
    per_copy = (peak(large, small, copies=True) - base) / (large / 2)
    return [
        row("memory", "hpctrain", f"bytes a {what}", [value])
        for what, value in (("document", per_document), ("row of a table", per_row), ("copy", per_copy))
    ]
