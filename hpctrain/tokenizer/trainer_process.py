"""The process in which SentencePiece trains: its C++ log can then be read for progress, and it can be killed.

Reads {"options": {...}, "texts": [...]} as JSON from stdin and writes the model to the path in argv[1].
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import sentencepiece


def main() -> None:
    """Train on what stdin holds. A failure leaves a traceback on stderr and a nonzero exit status."""
    request = json.load(sys.stdin)
    with Path(sys.argv[1]).open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(request["texts"]), model_writer=model, **request["options"]
        )


if __name__ == "__main__":
    main()
