"""The whole config of a training run, and what must hold between its sections."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hpctrain.checkpoint.config import CheckpointConfig
from hpctrain.checkpoint.format import OPTIMIZER_INPUT
from hpctrain.config import Section, fingerprint, read_yaml
from hpctrain.engine.base import OptimizerConfig, Precision
from hpctrain.errors import ConfigError
from hpctrain.loader.mixture import DataConfig, data_identity, settle_data
from hpctrain.manifest import Manifest
from hpctrain.model.adapter import AdapterConfig
from hpctrain.model.config import ModelConfig
from hpctrain.parallel.topology import ParallelConfig, accumulation_steps, layout_problems
from hpctrain.parallel.watch import WatchConfig
from hpctrain.tasks.config import TaskConfig
from hpctrain.train.metrics import LogConfig
from hpctrain.train.profile import ProfileConfig
from hpctrain.train.schedule import ScheduleConfig

BASE_INPUT = "run.start_from"
"""The checkpoint whose weights a run's adapters change, among the inputs of its own checkpoints."""


class RunSection(Section):
    """What the run is called and where it lives."""

    name: str
    """A short name: letters, digits, dots, dashes and underscores."""
    dir: Path
    """The run directory; a run that finds its own checkpoints there goes on from them."""
    seed: int = Field(default=1, ge=0)
    """Decides initial weights and the order of samples."""
    start_from: Path | None = None
    """Run directory with whose weights this run begins, instead of random ones; same model and tokenizer."""

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name):
            raise ValueError(f"{name!r} must be 1 to 100 letters, digits, dots, dashes or underscores")
        return name


class TrainConfig(Section):
    """The steps."""

    steps: int = Field(ge=1)
    """Optimizer steps of the whole run."""
    global_batch_size: int = Field(ge=1)
    """Sequences per optimizer step, over all ranks."""
    micro_batch_size: int = Field(ge=1)
    """Sequences one replica runs at once."""
    precision: Precision = "fp32"
    """fp32; bf16 with fp32 master weights; or fp8: as bf16, with the linear products of the blocks in fp8."""
    recompute: bool | Literal["cheap"] = False
    """What blocks compute again in the backward instead of keeping it. true: all but their input, for a third
    more work; cheap: norms, rotation and SwiGLU, half of what they keep for little work."""
    activation_memory: float | None = Field(default=None, gt=0)
    """GiB that a rank's activations may take: as few blocks recompute as that needs, chosen by arithmetic.
    Instead of `recompute`."""
    compile: bool | None = None
    """Compile the blocks with torch.compile, which takes a minute at the start; null: on GPUs."""
    evaluate_every_steps: int = Field(default=0, ge=0)
    """Steps between evaluations on held-out text, besides those before the first and after the last step.
    0: none at all."""
    evaluate_sequences: int = Field(default=64, ge=1)
    """Held-out sequences of each language, at most."""
    profile: ProfileConfig = ProfileConfig()

    @model_validator(mode="after")
    def _check_recompute(self) -> TrainConfig:
        if self.recompute and self.activation_memory is not None:
            raise ValueError(
                "activation_memory: the budget chooses what is recomputed; take recompute out, or the budget"
            )
        return self


class RunConfig(Section):
    """Everything `hpctrain train` needs."""

    run: RunSection
    data: DataConfig
    model: ModelConfig
    """The shape. Left out, or null, it is that of `run.start_from`."""
    adapter: AdapterConfig | None = None
    """Train an adapter on the weights of `run.start_from`, which stay as they are; none: train all."""
    task: TaskConfig | None = None
    """What `hpctrain finetune` makes the data of, where `data.shards` are not there yet."""
    parallel: ParallelConfig = ParallelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    watch: WatchConfig = WatchConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="before")
    @classmethod
    def _take_model(cls, tree: object) -> object:
        """Where no shape is given, the one of the run whose weights this run begins with."""
        if not isinstance(tree, dict) or tree.get("model") is not None:
            return tree
        rest = {name: value for name, value in tree.items() if name != "model"}
        run = tree.get("run")
        start_from = run.get("start_from") if isinstance(run, dict) else None
        base = Path(str(start_from)) / "run.yaml"
        known = start_from is not None and base.is_file()
        return {**rest, "model": read_yaml(base).get("model")} if known else rest

    @model_validator(mode="after")
    def _check_adapter(self) -> RunConfig:
        if self.adapter is not None and self.run.start_from is None:
            raise ValueError("adapter: an adapter changes the weights of a run; name it in run.start_from")
        if self.adapter is not None and self.optimizer.kind == "muon":
            raise ValueError(
                "optimizer.kind: muon orthogonalizes the update of a whole matrix, but an adapter trains two "
                "factors of one; use adamw"
            )
        if self.adapter is not None and self.train.activation_memory is not None:
            raise ValueError(
                "train.activation_memory: what adapters keep is not predicted; take it out and set "
                "train.recompute instead"
            )
        return self

    def parameter_count(self, vocab_size: int) -> int:
        """Parameters that are trained and saved."""
        if self.adapter is not None:
            return self.adapter.parameter_count(self.model)
        return self.model.parameter_count(vocab_size)


def check_layout(config: RunConfig, world_size: int) -> None:
    """Cross-check the sections against each other and the number of ranks.

    Raises ConfigError with every problem at once.
    """
    problems = layout_problems(config.parallel, world_size, config.model.layers)
    stages = config.parallel.pipeline_stages
    if config.adapter is not None and not problems and stages > config.model.layers:
        problems.append(
            f"parallel.pipeline_stages: {stages} stages, but only the {config.model.layers} blocks have "
            "adapters, and every stage needs one"
        )
    train, replicas = config.train, world_size // config.parallel.pipeline_stages
    divides = accumulation_steps(train.global_batch_size, train.micro_batch_size, max(1, replicas))
    if divides is None:
        problems.append(
            f"train.global_batch_size: {train.global_batch_size} is not a multiple of micro_batch_size "
            f"{train.micro_batch_size} x {replicas} data-parallel replicas ({world_size} ranks)"
        )
    if train.precision == "fp8" and train.micro_batch_size * config.data.sequence_length % 16:
        problems.append(
            f"train.precision: fp8 takes micro-batches of a multiple of 16 tokens, and not "
            f"train.micro_batch_size {train.micro_batch_size} x data.sequence_length "
            f"{config.data.sequence_length}"
        )
    warmup = config.schedule.warmup_steps
    if warmup >= train.steps:
        problems.append(f"schedule.warmup_steps: {warmup} leaves nothing of train.steps: {train.steps}")
    problems += train.profile.problems(train.steps, world_size)
    if problems:
        raise ConfigError(problems)


def changes(before: dict[str, Any], after: RunConfig) -> dict[str, list[Any]]:
    """What a restart changes, by dotted key: [before, after]. `before` is the tree of the run's run.yaml.

    A key that is newer than the run counts where it is not at its default.
    """
    old, new = _flatten(before), _flatten(after.model_dump(mode="json"))
    known = {*old, *_flatten(after.model_dump(mode="json", exclude_defaults=True))}
    return {key: [old.get(key), new.get(key)] for key in sorted(known) if old.get(key) != new.get(key)}


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def settle(config: RunConfig, shards: Manifest) -> RunConfig:
    """The config with what the shards decide filled in: `data.loss` and `data.template`.

    Raises ConfigError with everything in which config and shards contradict each other.
    """
    return config.model_copy(update={"data": settle_data(config.data, shards)})


def identity(config: RunConfig, shards: Manifest, base: Manifest | None = None) -> dict[str, str]:
    """Fingerprints of what a run must not change between restarts.

    `base`: of the checkpoint that an adapter changes.
    """
    adapter = {}
    if config.adapter is not None and base is not None:
        shape = config.adapter.model_dump(mode="json", exclude={"dropout"})
        adapter = {"adapter": fingerprint(shape), BASE_INPUT: base.fingerprint}
    kind = config.optimizer.kind
    return {
        **adapter,
        **({} if kind == "adamw" else {OPTIMIZER_INPUT: kind}),  # runs before there was a choice had none
        "data.shards": shards.fingerprint,
        "tokenizer": shards.inputs["tokenizer"],
        "data.sequence_length": str(config.data.sequence_length),
        **data_identity(config.data),
        "model": fingerprint(config.model.identity()),
        "run.seed": str(config.run.seed),
    }
