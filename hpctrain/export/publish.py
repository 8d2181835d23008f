"""What every export has in common: found finished or written, proven, carded, published, noted in the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hpctrain.errors import DataError
from hpctrain.export.proof import Proof, tell
from hpctrain.export.source import Source
from hpctrain.manifest import Manifest, StageWriter, find_finished, read_manifest, write_stage
from hpctrain.progress import say
from hpctrain.train.metrics import EVENTS_NAME, JsonLines, now

EXPORT_KIND = "export"
EXPORT_FORMAT = 2


def publish(
    source: Source,
    out: Path,
    options: dict[str, str],
    write: Callable[[StageWriter], Proof],
) -> Manifest:
    """Publish what `write` writes and proves as the stage `out`, unless it is there already.

    `options` are those of the format, such as its type of numbers; other ones are another export. Raises
    DataError if `out` holds something else, and whatever `write` raises; nothing is published then.
    """
    inputs = {
        "checkpoint": source.whole.manifest.fingerprint,
        "tokenizer": source.tokenizer.fingerprint,
        **options,
    }
    if finished := find_finished(out, EXPORT_KIND, EXPORT_FORMAT, inputs):
        say(f"{out}: up to date")
        return finished
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out}: holds something that is no export; remove it or choose another directory")
    with write_stage(out, EXPORT_KIND, EXPORT_FORMAT) as stage:
        proof = write(stage)
        stage.inputs = inputs
        stage.counts = {"step": source.whole.state.step, "parameters": source.parameters}
        stage.details = {
            "run": str(source.run),
            "proven_with": list(proof.tools),
            "largest_logit_difference": proof.logit_difference,
            "largest_rounding_difference": proof.rounding_difference,
            "same_choice": proof.same_choice,
            "greedy_tokens": proof.greedy_tokens,
        }
    _note_in_run(source, out, options)
    tell(out, proof)
    return read_manifest(out, EXPORT_KIND, EXPORT_FORMAT)


def _note_in_run(source: Source, out: Path, options: dict[str, str]) -> None:
    """Let the run know where it was exported to, if it may be written to: it can be another user's."""
    step = source.whole.state.step
    try:
        events = JsonLines(source.run / EVENTS_NAME)
        events.append({"time": now(), "event": "export", "step": step, "path": str(out), **options})
        events.close()
    except OSError as reason:
        say(f"warning: the export is not noted in {source.run / EVENTS_NAME}: {reason.strerror}")
