"""Small trees of code and configs over them, for tests that build whole corpora."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from hpctrain.corpus.build import CorpusConfig

C = b"""\
/* SPDX-License-Identifier: MIT */
int weighted_sum%d(int first, int second)
{
    return first + second + %d;
}
"""
FORTRAN = b"""\
      subroutine scale%d(values, count)
      integer count
      real values(count)
      call check(values, count, %d)
      end
"""


def c_file(number: int) -> bytes:
    """A C file under MIT like no other number's."""
    return C % (number, number)


def fortran_file(number: int) -> bytes:
    """A fixed-form Fortran file that states no licence."""
    return FORTRAN % (number, number)


def make_tree(root: Path, files: dict[str, bytes]) -> Path:
    """Write files below a root."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def make_config(*sources: dict[str, Any], **sections: Any) -> CorpusConfig:
    """A corpus config of some sources."""
    return CorpusConfig.model_validate({"sources": list(sources), **sections})


def directory(root: Path, name: str = "tree", **settings: Any) -> dict[str, Any]:
    """A source that is a directory."""
    return {"name": name, "kind": "directory", "path": str(root), **settings}


def ledger(corpus: Path, source: str = "tree") -> dict[str, Any]:
    """The ledger of one source."""
    found: dict[str, Any] = json.loads((corpus / "ledger.json").read_text())
    return dict(found["sources"][source])


def dropped(corpus: Path, source: str = "tree") -> dict[str, int]:
    """How many files of a source were dropped, by reason."""
    return {reason: tally["files"] for reason, tally in ledger(corpus, source)["dropped"].items()}


def content_of(corpus: Path) -> dict[str, bytes]:
    """Every file of a stage, by name."""
    return {str(path.relative_to(corpus)): path.read_bytes() for path in corpus.rglob("*") if path.is_file()}


def write_config(path: Path, config: CorpusConfig) -> Path:
    """A config as the YAML file that the command reads."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path
