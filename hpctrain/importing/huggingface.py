"""A Hugging Face model becomes a directory that is used like a run: compared before it is published."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hpctrain.checkpoint.format import (
    CHECKPOINT_FORMAT,
    CHECKPOINT_KIND,
    checkpoint_name,
    fragment_file,
    fragment_key,
)
from hpctrain.config import dump_yaml, fingerprint
from hpctrain.errors import ConfigError, DataError
from hpctrain.importing.proof import prove
from hpctrain.importing.safetensors_files import SafetensorsFiles, check_tensors
from hpctrain.loader.mixture import DataConfig
from hpctrain.manifest import Manifest, checksum, find_finished, read_manifest, write_stage
from hpctrain.model.attention import eager_attention
from hpctrain.model.config import ModelConfig
from hpctrain.model.huggingface import context_length, from_huggingface_config, huggingface_name
from hpctrain.model.transformer import build_layers, parameter_shapes
from hpctrain.progress import progress, say
from hpctrain.shards.layout import TOKENIZER_DIRECTORY
from hpctrain.tokenizer.adopt import Adopted, adopt
from hpctrain.tokenizer.codec import TOKENIZER_FORMAT, TOKENIZER_KIND
from hpctrain.train.config import RunConfig, RunSection, TrainConfig
from hpctrain.train.rundir import CHECKPOINTS_NAME, CONFIG_NAME, ORIGIN_NAME
from hpctrain.train.trained import Origin

IMPORT_KIND = "import"
IMPORT_FORMAT = 1
_FILE_BYTES = 2 << 30


def import_huggingface(
    source: Path,
    out: Path,
    languages: Sequence[str],
    context: int | None = None,
    accept: Collection[str] = (),
) -> Manifest:
    """Import a Llama or Qwen2 in safetensors, with its tokenizer; returns the manifest of `out`.

    `languages`: labels that get a token. `context`: tokens, by default those that the model states. `accept`:
    settings of `config.json` that are not known here and change nothing. Holds one tensor and a file of 2 GiB
    in memory while it converts, and the whole model in fp32, one after the other, while it compares. Raises
    ConfigError for settings that are not supported, DataError for what is damaged, foreign or differs.
    """
    tree = _read_config(source)
    try:
        model = from_huggingface_config(tree, accept)
        longest = context_length(tree)
    except ConfigError as error:
        raise ConfigError([f"{source / 'config.json'}: {problem}" for problem in error.problems]) from None
    if context is not None and context > longest:
        raise ConfigError(
            f"--context: {context} is more than the {longest} tokens that the model was made for"
        )
    with SafetensorsFiles(source) as files:
        check_tensors(files, _shapes(model, tree["vocab_size"]), model.tied)
        inputs = {**_fingerprints(source, files), "context": str(context or longest)}
        if finished := find_finished(out, IMPORT_KIND, IMPORT_FORMAT, inputs):
            say(f"{out}: up to date")
            return finished
        adopted = adopt(source, tree["vocab_size"], languages)
        for note in adopted.notes:
            say(f"{source}: {note}")
        _warn_of_other_end(tree, adopted, source)
        return _publish(source, out, files, model, adopted, context or longest, inputs)


def _publish(
    source: Path,
    out: Path,
    files: SafetensorsFiles,
    model: ModelConfig,
    adopted: Adopted,
    context: int,
    inputs: dict[str, str],
) -> Manifest:
    with write_stage(out, IMPORT_KIND, IMPORT_FORMAT) as stage:
        config = RunConfig(
            run=RunSection(name=_run_name(source), dir=out),
            data=DataConfig(shards=out / "shards", sequence_length=context),
            model=model,
            train=TrainConfig(steps=1, global_batch_size=1, micro_batch_size=1),
        )
        stage.path(CONFIG_NAME).write_text(dump_yaml(config), encoding="utf-8")
        tokenizer = stage.path(TOKENIZER_DIRECTORY)
        with write_stage(tokenizer, TOKENIZER_KIND, TOKENIZER_FORMAT) as part:
            adopted.write(part)
            part.inputs = {"import": inputs["tokenizer"]}
        identity = {
            "model": fingerprint(model.identity()),
            "tokenizer": read_manifest(tokenizer, TOKENIZER_KIND, TOKENIZER_FORMAT).fingerprint,
        }
        checkpoint = stage.path(f"{CHECKPOINTS_NAME}/{checkpoint_name(0)}")
        _write_checkpoint(checkpoint, files, model, adopted, identity)
        stage.write_json(ORIGIN_NAME, _origin(source).model_dump(mode="json"))
        difference = prove(stage.directory, source)
        stage.inputs = inputs
        stage.counts = {"parameters": model.parameter_count(adopted.marks.vocab_size)}
        stage.details = {"largest_logit_difference": difference, "notes": adopted.notes}
    say(f"{out}: logits differ by at most {difference:.1e} from those of transformers")
    say(f"to go on from it: run.start_from: {out}, the model section of {out / CONFIG_NAME}, and shards")
    say(f"made with {out / TOKENIZER_DIRECTORY}")
    return read_manifest(out, IMPORT_KIND, IMPORT_FORMAT)


def _write_checkpoint(
    directory: Path, files: SafetensorsFiles, model: ModelConfig, adopted: Adopted, identity: dict[str, str]
) -> None:
    """The weights as the fragments of a run that has done no step: no moments, and nothing to go on from."""
    shapes = _shapes(model, adopted.marks.vocab_size)
    with write_stage(directory, CHECKPOINT_KIND, CHECKPOINT_FORMAT) as stage:
        pending: dict[str, Tensor] = {}
        number = 0
        with progress("import", len(shapes), "tensors") as bar:
            for name in shapes:
                weight = files.read(huggingface_name(name))
                if name in ("embedding.weight", "head.weight"):
                    weight = _fill_rows(weight, adopted)
                pending[fragment_key(name, "weight", 0, weight.numel())] = weight.flatten()
                if sum(tensor.nbytes for tensor in pending.values()) >= _FILE_BYTES:
                    save_file(pending, stage.path(fragment_file(number)))
                    pending, number = {}, number + 1
                bar.advance()
        if pending:
            save_file(pending, stage.path(fragment_file(number)))
        stage.inputs = identity
        stage.counts = {"step": 0, "samples": 0, "tokens": 0} | {
            "parameters": sum(shape.numel() for shape in shapes.values())
        }
        stage.details = {
            "shapes": {name: list(shape) for name, shape in shapes.items()},
            "layout": {"world_size": 1, "pipeline_stages": 1, "zero_stage": 0},
        }


def _fill_rows(weight: Tensor, adopted: Adopted) -> Tensor:
    """Rows [V,C] for all ids; what the model has never seen is the mean of what it has."""
    marks = adopted.marks
    mean = weight[: marks.known].mean(dim=0)
    grown = mean.repeat(marks.vocab_size, 1)
    grown[: len(weight)] = weight
    grown[marks.added] = mean
    return grown


def _shapes(model: ModelConfig, vocab_size: int) -> dict[str, torch.Size]:
    return parameter_shapes(build_layers(model, vocab_size, 0, eager_attention))


def _read_config(source: Path) -> dict[str, Any]:
    path = source / "config.json"
    if not source.is_dir():
        raise DataError(f"{source}: no such directory; download the model first, and name its directory")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as reason:
        raise DataError(f"{path}: cannot be read: {reason}") from None
    if not isinstance(tree, dict):
        raise DataError(f"{path}: not a JSON object")
    return tree


def _fingerprints(source: Path, files: SafetensorsFiles) -> dict[str, str]:
    """Of what the import is made from: settings, weights, tokenizer."""
    weights = {path.name: checksum(path) for path in sorted(set(files.place.values()))}
    names = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "merges.txt",
             "special_tokens_map.json", "added_tokens.json")  # fmt: skip
    tokenizer = {name: checksum(source / name) for name in names if (source / name).is_file()}
    return {
        "config": checksum(source / "config.json"),
        "weights": fingerprint(weights),
        "tokenizer": fingerprint(tokenizer),
    }


def _warn_of_other_end(tree: Mapping[str, Any], adopted: Adopted, source: Path) -> None:
    """A model that ends by another token than its tokenizer says would not end by ours."""
    stated = tree.get("eos_token_id")
    ends = stated if isinstance(stated, list) else [stated]
    end = adopted.marks.special["end"]
    if stated is not None and end not in ends:
        say(f"warning: {source}: config.json ends text by id {stated}, its tokenizer by {end}; {end} is used")


def _origin(source: Path) -> Origin:
    """What the model card of the source says of itself."""
    import yaml

    name, licence = source.resolve().name, None
    card = source / "README.md"
    if card.is_file():
        parts = card.read_text(encoding="utf-8", errors="replace").split("---", 2)
        try:
            front = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
        except yaml.YAMLError:
            front = None
            say(f"{card}: its front matter is not YAML, so its licence is not known")
        if isinstance(front, dict) and isinstance(front.get("license"), str):
            licence = front["license"]
    return Origin(name=name, licence=licence)


def _run_name(source: Path) -> str:
    """The directory's name, in the letters that a run's name may have."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in source.resolve().name)
    return name[:100] or "imported"
