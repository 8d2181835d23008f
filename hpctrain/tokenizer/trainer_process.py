"""The process in which SentencePiece trains: its C++ log can then be read for progress, and it can be killed.

Stdin is a file that `write_request` made; the model goes to the path in argv[1].
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import sentencepiece


def write_request(stream: BinaryIO, options: Mapping[str, Any], texts: Iterable[bytes]) -> None:
    """Write the trainer's options as a line of JSON, then each text after its length on a line."""
    stream.write(json.dumps(dict(options)).encode() + b"\n")
    for text in texts:
        stream.write(b"%d\n%b" % (len(text), text))


def _read_texts(stream: BinaryIO) -> Iterator[bytes]:
    while line := stream.readline():
        yield stream.read(int(line))


def main() -> None:
    """Train on what stdin holds. A failure leaves a traceback on stderr and a nonzero exit status."""
    options = json.loads(sys.stdin.buffer.readline())
    with Path(sys.argv[1]).open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_read_texts(sys.stdin.buffer), model_writer=model, **options
        )


if __name__ == "__main__":
    main()
