"""Instruction data as shards: what is in them, what is learnt from them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpctrain.errors import ConfigError, DataError
from hpctrain.loader.batches import BatchLoader
from hpctrain.loader.mixture import DataConfig, build_pools, data_identity, make_plans, settle_data
from hpctrain.parallel.topology import Topology
from hpctrain.shards.reader import open_streams, read_shards_manifest, verify_shards
from hpctrain.tasks.examples import ExampleOptions
from hpctrain.tasks.instructions import InstructionOptions, build_instructions, read_example
from hpctrain.tokenizer.codec import Tokenizer
from hpctrain.train.config import RunConfig
from hpctrain.train.data import counted_share, open_heldout, open_reader

PLAIN = ExampleOptions(template="plain", language="c")
LENGTH = 64


def lines(count: int) -> list[dict[str, Any]]:
    """Requests and responses of different lengths; every fourth fills a gap."""
    return [
        {
            "prompt": f"// sum number {n}\n", "response": f"int sum{n}(int *x);\n" * (1 + n % 3),
            "path": f"sum{n}.c", "split": "validation" if n % 5 == 0 else "train",
            **({"suffix": f"/* after {n} */\n"} if n % 4 == 0 else {}),
        }
        for n in range(count)
    ]  # fmt: skip


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def tokenizer(tokenizer_directory: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_directory)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, tokenizer_directory: Path) -> Path:
    """Shards of 60 examples."""
    directory = tmp_path_factory.mktemp("instructions")
    file = write(directory / "some.jsonl", lines(60))
    build_instructions([file], tokenizer_directory, directory / "shards", InstructionOptions(PLAIN))
    return directory / "shards"


def settled(shards: Path, **keys: Any) -> DataConfig:
    config = DataConfig(shards=shards, sequence_length=LENGTH, packing="best_fit", **keys)
    return settle_data(config, read_shards_manifest(shards))


def test_the_shards_hold_the_examples_and_their_responses(shards: Path, tokenizer: Tokenizer) -> None:
    manifest = read_shards_manifest(shards)
    assert not verify_shards(shards)
    special, found = tokenizer.special, 0
    for split in ("train", "validation"):
        stream = open_streams(shards, split)["c"]
        expected = [line for line in lines(60) if line["split"] == split]
        places = stream.documents(0, len(stream))
        responses = stream.spans(0, len(stream))
        assert len(places) == len(expected) == len(responses) == manifest.counts["documents"][split]["c"]
        for line, place, span in zip(expected, places, responses, strict=True):
            ids = stream.read(place.start, place.stop)
            head = tokenizer.encode_document("c", line["path"], b"")[:-1]
            assert ids[: len(head)].tolist() == head.tolist()
            asked = ids[len(head) : int(span["start"]) - place.start]
            answered = stream.read(int(span["start"]), int(span["stop"]))
            assert int(span["stop"]) == place.stop
            assert answered[-1] == special.end
            assert tokenizer.decode(answered) == line["response"].encode()
            assert tokenizer.decode(asked) == (line["prompt"] + line.get("suffix", "")).encode()
            marks = [special.fim_prefix, special.fim_suffix, special.fim_middle] if "suffix" in line else []
            assert [each for each in asked if tokenizer.token_bytes[each] == 0] == marks
            found += 1
        assert manifest.counts["responses"][split]["c"] == int((responses["stop"] - responses["start"]).sum())
    assert found == 60
    assert manifest.details["template"] == "plain"


def test_an_example_is_shown_as_it_is_read(shards: Path, shards_directory: Path) -> None:
    shown = read_example(shards, "train", 4)  # of the lines, number 4 fills a gap
    assert shown.asked == (
        "<document><language:c><file_name>sum4.c<content><fim_prefix>// sum number 4\n"
        "<fim_suffix>/* after 4 */\n<fim_middle>"
    )
    assert shown.response == "int sum4(int *x);\n" * 2 + "<end>"
    assert 0 < shown.learnt < shown.tokens
    with pytest.raises(DataError, match="train has 48 examples, none with the number 49"):
        read_example(shards, "train", 49)
    with pytest.raises(DataError, match="shards of files, not of instructions"):
        read_example(shards_directory, "train", 1)


def test_equal_inputs_give_equal_shards_and_are_left_alone(
    shards: Path, tokenizer_directory: Path, tmp_path: Path
) -> None:
    file = write(tmp_path / "some.jsonl", lines(60))
    again = build_instructions([file], tokenizer_directory, tmp_path / "shards", InstructionOptions(PLAIN))
    assert again.fingerprint == read_shards_manifest(shards).fingerprint
    before = (tmp_path / "shards/manifest.json").stat().st_mtime_ns
    build_instructions([file], tokenizer_directory, tmp_path / "shards", InstructionOptions(PLAIN))
    assert (tmp_path / "shards/manifest.json").stat().st_mtime_ns == before
    write(file, lines(61))
    with pytest.raises(DataError, match="was made from another instructions"):
        build_instructions([file], tokenizer_directory, tmp_path / "shards", InstructionOptions(PLAIN))


def test_too_long_examples_are_named_or_dropped_and_counted(
    tokenizer_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [
        line | {"response": "x = 1;\n" * (400 if n in (1, 7) else 1)} for n, line in enumerate(lines(9))
    ]
    file = write(tmp_path / "some.jsonl", records)
    with pytest.raises(DataError) as caught:
        build_instructions([file], tokenizer_directory, tmp_path / "a", InstructionOptions(PLAIN, context=64))
    told = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in told[1:]] == [f"{file}:2", f"{file}:8"]
    assert "more than a context of 64 takes" in told[1]
    assert not (tmp_path / "a").exists()
    manifest = build_instructions(
        [file], tokenizer_directory, tmp_path / "b", InstructionOptions(PLAIN, context=64, too_long="drop")
    )
    assert manifest.counts["dropped"] == 2
    assert "2 examples are longer than 64 tokens; left out" in capsys.readouterr().err
    assert manifest.details["longest"] <= 65


def test_nothing_to_train_on_is_refused(tokenizer_directory: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "validation.jsonl", [{"prompt": "p", "response": "r"}])
    with pytest.raises(DataError, match="no example is left to train on"):
        build_instructions([file], tokenizer_directory, tmp_path / "out", InstructionOptions(PLAIN))
    with pytest.raises(DataError, match=r"nowhere\.jsonl: no such file"):
        build_instructions([tmp_path / "nowhere.jsonl"], tokenizer_directory, tmp_path / "out")


def loader_of(shards: Path, tokenizer: Tokenizer, directory: Path) -> BatchLoader:
    config, manifest = settled(shards, packing_plans=directory), read_shards_manifest(shards)
    make_plans(build_pools(open_streams(shards, "train"), config), config, manifest)
    _, reader = open_reader(config, manifest, tokenizer, seed=1)
    return BatchLoader(reader, Topology(1, 0, 1), 4, 2)


def test_an_epoch_learns_every_response_once_and_nothing_else(
    shards: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    loader = loader_of(shards, tokenizer, tmp_path)
    sequences = len(loader.reader.components[0])
    learnt = []
    for number in range(sequences):
        [row] = loader.reader.read(np.array([number]))
        [mask] = loader.reader.counted(np.array([number]))
        learnt.append(row[mask])
    responses = [line["response"].encode() for line in lines(60) if line["split"] == "train"]
    joined = np.concatenate(learnt)
    texts = [
        tokenizer.decode(part)
        for part in np.split(joined, np.flatnonzero(joined == tokenizer.special.end) + 1)
    ]
    assert sorted(texts) == sorted([*responses, b""])
    step = loader.load(0)
    assert step.counted == sum(int((batch.targets >= 0).sum()) for batch in step.micro_batches)
    for batch in step.micro_batches:
        targets = batch.targets[batch.targets >= 0].numpy()
        assert b"// sum" not in tokenizer.decode(targets)
        assert (targets == tokenizer.special.end).any()


def test_held_out_figures_count_the_responses_only(shards: Path, tokenizer: Tokenizer) -> None:
    config = RunConfig.model_validate(
        {
            "run": {"name": "x", "dir": "x"}, "model": {"preset": "1m"},
            "data": settled(shards).model_dump(),
            "train": {"steps": 2, "global_batch_size": 4, "micro_batch_size": 2},
        }
    )  # fmt: skip
    expected = sum(len(line["response"]) for line in lines(60) if line["split"] == "validation")
    for replicas in (1, 2):
        parts = [
            open_heldout(config, tokenizer, Topology(replicas, rank, 1), 100)["c"] for rank in range(replicas)
        ]
        assert {part.content_bytes for part in parts} == {expected}
        counted = sum(int((b.targets >= 0).sum()) for part in parts for b in part.micro_batches)
        assert (
            counted == parts[0].tokens == read_shards_manifest(shards).counts["responses"]["validation"]["c"]
        )
    [some] = open_heldout(config, tokenizer, Topology(1, 0, 1), 3)["c"].micro_batches[:1]
    assert some.tokens.shape == (2, LENGTH)


def test_the_divisor_of_the_loss_is_the_share_of_the_responses(shards: Path) -> None:
    manifest = read_shards_manifest(shards)
    share = counted_share(settled(shards), manifest)
    assert share == manifest.counts["responses"]["train"]["c"] / manifest.counts["tokens"]["train"]["c"]
    assert counted_share(settled(shards, loss="all"), manifest) == 1


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"packing": "cut"}, "data.packing: examples must stay whole; use best_fit"),
        ({"fim": {"rate": 0.5}}, "data.fim.rate: shards of instructions are not rearranged"),
        ({"template": "chat"}, "data.template: .* was built with plain"),
        ({"sequence_length": 8}, "data.sequence_length: 8, but the longest example .* tokens; use "),
    ],
)
def test_configs_that_do_not_fit_are_refused(shards: Path, keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        settle_data(
            DataConfig.model_validate(
                {"shards": shards, "sequence_length": LENGTH, "packing": "best_fit", **keys}
            ),
            read_shards_manifest(shards),
        )


def test_of_shards_of_files_everything_is_learnt(shards_directory: Path) -> None:
    manifest = read_shards_manifest(shards_directory)
    config = DataConfig(shards=shards_directory)
    assert settle_data(config, manifest).loss == "all"
    assert data_identity(settle_data(config, manifest)) == data_identity(config)
    with pytest.raises(ConfigError, match=r"data\.loss: .* does not say what is a response"):
        settle_data(DataConfig(shards=shards_directory, loss="response"), manifest)
