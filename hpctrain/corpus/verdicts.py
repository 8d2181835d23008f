"""What became of every file that a build saw, in Parquet tables that any tool reads.

verdicts-00000.parquet ...      one row a file, in corpus order
    source, unit, path, bytes
    reason      why it was dropped; "" for a document
    detail      of a duplicate the file that stayed; of a contamination the benchmark
    document    the document's place in the corpus, null for a dropped file
    language, licence, models, family, split, secrets
    sample      how the file begins, for a few dropped files of each unit and reason
duplicates-00000.parquet ...    one row a dropped duplicate
    source, path, bytes         where it stood
    kept_source, kept_path      the document that stayed
    kind                        exact or near
    jaccard                     1 for exact ones, else the similarity of the two sets of shingles
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpctrain.corpus.document import read_corpus_manifest
from hpctrain.errors import DataError
from hpctrain.manifest import find_damage

_TEXTS = ("reason", "detail", "language", "licence", "models", "family", "split", "secrets")
VERDICTS = pa.schema(
    [("source", pa.string()), ("unit", pa.string()), ("path", pa.string()), ("bytes", pa.int64())]
    + [(name, pa.string()) for name in _TEXTS]
    + [("document", pa.int64()), ("sample", pa.binary())]
)
DUPLICATES = pa.schema(
    [("source", pa.string()), ("path", pa.string()), ("bytes", pa.int64())]
    + [(name, pa.string()) for name in ("kept_source", "kept_path", "kind")]
    + [("jaccard", pa.float64())]
)


def verdicts_name(index: int) -> str:
    """Name of a verdict table by its place in corpus order."""
    return f"verdicts-{index:05d}.parquet"


def duplicates_name(index: int) -> str:
    """Name of the table of the duplicates among the files of `verdicts_name(index)`."""
    return f"duplicates-{index:05d}.parquet"


def open_table(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of one table; equal rows give equal bytes."""
    return pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)


def read_verdicts(directory: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The verdicts of a corpus in batches, all columns or some. Raises DataError where they are damaged."""
    return _read(directory, "verdicts-", columns)


def read_duplicates(directory: Path) -> Iterator[pa.RecordBatch]:
    """The duplicates of a corpus in batches. Raises DataError where they are damaged."""
    return _read(directory, "duplicates-", None)


def _read(directory: Path, prefix: str, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    manifest = read_corpus_manifest(directory)
    for name in sorted(name for name in manifest.files if name.startswith(prefix)):
        if damage := find_damage(directory, manifest, [name]):
            raise DataError(f"{damage[0]}; build the corpus again or restore the file")
        with pq.ParquetFile(directory / name) as file:
            yield from file.iter_batches(columns=columns)


def why(directory: Path, path: str, limit: int = 20) -> list[dict[str, Any]]:
    """The verdicts on the files at `path`: a whole path, `source/path`, or the end of one.

    At most `limit` rows. Raises DataError if no file of that name was seen.
    """
    found: list[dict[str, Any]] = []
    for batch in read_verdicts(directory):
        for row in _matching(batch, path.strip("/")):
            found.append({name: value for name, value in row.items() if name != "sample"})
            if len(found) == limit:
                return found
    if not found:
        raise DataError(f"{directory}: no source had a file {path}; upper and lower case are different")
    return found


def _matching(batch: pa.RecordBatch, path: str) -> list[dict[str, Any]]:
    pairs = zip(batch.column("source").to_pylist(), batch.column("path").to_pylist(), strict=True)
    rows = [i for i, (source, name) in enumerate(pairs) if f"/{source}/{name}".endswith(f"/{path}")]
    return batch.take(pa.array(rows, pa.int64())).to_pylist() if rows else []


def explain(verdict: dict[str, Any]) -> str:
    """A row of `why` in words."""
    name = f"{verdict['source']}/{verdict['path']}"
    facts = [f"{verdict['bytes']:,} bytes", verdict["language"], verdict["licence"]]
    if verdict["reason"]:
        detail = f" ({verdict['detail']})" if verdict["detail"] else ""
        return f"{name}\n  dropped: {verdict['reason']}{detail}\n  {', '.join(filter(None, facts))}"
    facts += [f"family {verdict['family']}"]
    facts += [f"uses {verdict['models']}"] if verdict["models"] else []
    facts += [f"replaced {verdict['secrets']}"] if verdict["secrets"] else []
    return (
        f"{name}\n  document {verdict['document']} of {verdict['split']}\n  {', '.join(filter(None, facts))}"
    )
