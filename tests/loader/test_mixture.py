"""Mixtures over languages and sources, and how often a run goes through each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from loader.synthetic import ArrayStream

from hpctrain.config import fingerprint
from hpctrain.errors import ConfigError, DataError
from hpctrain.loader.mixture import (
    DataConfig,
    build_mixture,
    build_pools,
    count_epochs,
    data_identity,
    describe_epochs,
)
from hpctrain.loader.order import SampleOrder
from hpctrain.shards.reader import open_streams, read_shards_manifest


class SourcedStream(ArrayStream):
    """Tokens that say where they are from: each is a number of its own."""

    def __init__(self, first: int, **sizes: int) -> None:
        super().__init__(range(first, first + sum(sizes.values())))
        ends = np.cumsum(list(sizes.values())).tolist()
        self.runs = list(zip(sizes, [0, *ends[:-1]], ends, strict=True))

    knows_sources = True

    def sources(self) -> list[tuple[str, int, int]]:
        return self.runs


class UnknownStream(ArrayStream):
    knows_sources = False

    def sources(self) -> list[tuple[str, int, int]]:
        raise DataError("of format 1, which knows no sources")


@pytest.fixture
def streams() -> dict[str, SourcedStream]:
    return {
        "c": SourcedStream(0, lapack=100, hypre=300),
        "fortran-free": SourcedStream(1000, lapack=200, espresso=50),
    }


def config(**changes: object) -> DataConfig:
    return DataConfig.model_validate({"shards": "some/shards", "sequence_length": 8, **changes})


def pools_of(streams: dict[str, SourcedStream], **changes: object) -> dict[str, tuple[float, list[int]]]:
    pools = build_pools(streams, config(**changes))
    return {
        pool.name: (
            pool.weight,
            [t for part in pool.parts for t in part.stream.read(part.start, part.stop).tolist()],
        )
        for pool in pools
    }


def test_a_source_is_taken_from_every_language(streams: dict[str, SourcedStream]) -> None:
    pools = pools_of(streams, mixture={"any/lapack": 2, "any/hypre": 1})
    assert pools["any/lapack"] == (2, [*range(100), *range(1000, 1200)])
    assert pools["any/hypre"] == (1, list(range(100, 400)))


def test_a_language_of_a_source_counts_only_where_it_is_named(streams: dict[str, SourcedStream]) -> None:
    pools = pools_of(streams, mixture={"c": 1, "c/lapack": 3, "fortran-free/espresso": 1})
    assert pools["c"] == (1, list(range(100, 400)))
    assert pools["c/lapack"] == (3, list(range(100)))
    assert pools["fortran-free/espresso"] == (1, list(range(1200, 1250)))


def test_every_problem_of_a_mixture_is_told_at_once(streams: dict[str, SourcedStream]) -> None:
    wrong = {"c": 1, "any/lapack": 1, "rust": 1, "c/petsc": 1}
    with pytest.raises(ConfigError) as error:
        pools_of(streams, mixture=wrong)
    assert error.value.problems == [
        "data.mixture: c and any/lapack both name c/lapack; give c/lapack a weight of its own",
        "data.mixture: some/shards has nothing left for rust; languages: c, fortran-free; sources: espresso, "
        "hypre, lapack",
        "data.mixture: some/shards has nothing left for c/petsc; languages: c, fortran-free; sources: "
        "espresso, hypre, lapack",
    ]


def test_a_temperature_brings_shares_nearer_to_each_other(streams: dict[str, SourcedStream]) -> None:
    assert {name: weight for name, (weight, _) in pools_of(streams, temperature=1).items()} == {
        "c": 400,
        "fortran-free": 250,
    }
    over_sources = pools_of(streams, temperature=2, temperature_over="sources")
    assert {name: round(weight**2) for name, (weight, _) in over_sources.items()} == {
        "any/lapack": 300,
        "any/hypre": 300,
        "any/espresso": 50,
    }
    both = pools_of(streams, temperature=1e9, temperature_over="both")
    assert list(both) == ["c/lapack", "c/hypre", "fortran-free/lapack", "fortran-free/espresso"]
    assert [weight for weight, _ in both.values()] == pytest.approx([1] * 4)


def test_weights_and_a_temperature_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="give weights in mixture or a temperature, not both"):
        config(mixture={"c": 1}, temperature=2)


def test_shards_that_know_no_sources_serve_languages_only() -> None:
    old = {"c": UnknownStream(range(100)), "cpp": UnknownStream(range(100))}
    pools = build_pools(old, config(mixture={"c": 1}))
    mixture = build_mixture(pools, config(), None, -1)
    assert count_epochs(mixture, SampleOrder(*mixture.order, 1), 24)[1] == []
    for wrong in ({"mixture": {"any/lapack": 1}}, {"temperature": 1, "temperature_over": "both"}):
        with pytest.raises(DataError, match="knows no sources"):
            build_pools(old, config(**wrong))


def test_epochs_are_those_that_the_order_gives(streams: dict[str, SourcedStream]) -> None:
    """Counted token by token over a run of the samples themselves."""
    settings = config(mixture={"c": 1, "any/espresso": 1, "fortran-free/lapack": 2})
    mixture = build_mixture(build_pools(streams, settings), settings, None, -1)
    order = SampleOrder(*mixture.order, 5)
    samples = 3 * 4096
    pools, sources = count_epochs(mixture, order, samples)
    components, sequences = order.locate(np.arange(samples))
    seen: dict[int, int] = {}
    for component, number in zip(components.tolist(), sequences.tolist(), strict=True):
        for token in mixture.components[component].sequence(number)[1:].tolist():
            seen[token] = seen.get(token, 0) + 1
    tokens = {
        "lapack": [*range(100), *range(1000, 1200)],
        "hypre": range(100, 400),
        "espresso": range(1200, 1250),
    }
    assert [each.name for each in sources] == sorted(tokens)
    for each in sources:
        count = sum(seen.get(token, 0) for token in tokens[each.name])
        assert each.tokens == len(tokens[each.name])
        assert count / each.tokens == pytest.approx(each.epochs, rel=0.2)  # the rest after the last sequence
    assert [each.tokens for each in pools] == [400, 50, 200]
    text = describe_epochs(pools, sources)
    assert text.startswith("c ")
    assert "; by source: espresso " in text


def test_identities_of_runs_that_began_earlier_stay() -> None:
    """Their checkpoints hold these: a new key must not lock them out."""
    assert data_identity(config()) == {
        "data.mixture": fingerprint({}),
        "data.fim": fingerprint({"rate": 0.0, "suffix_first": 0.5}),
    }
    assert data_identity(config(mixture={"c": 1.5}, fim={"rate": 0.5})) == {
        "data.mixture": fingerprint({"c": 1.5}),
        "data.fim": fingerprint({"rate": 0.5, "suffix_first": 0.5}),
    }
    base = config()
    others = [
        config(temperature=2), config(temperature=2, temperature_over="both"), config(packing="best_fit"),
        config(fim={"spans": 0.5}), config(fim={"cuts": "character"}), config(mixture={"c": 1}),
    ]  # fmt: skip
    identities = [tuple(sorted(data_identity(each).items())) for each in [base, *others]]
    assert len(set(identities)) == len(identities)


def test_spans_must_be_in_the_shards(shards_directory: Path) -> None:
    settings = DataConfig(shards=shards_directory, sequence_length=64, fim={"rate": 0.5, "spans": 0.5})
    manifest = read_shards_manifest(shards_directory)
    pools = build_pools(open_streams(shards_directory, "train"), settings)
    assert build_mixture(pools, settings, manifest, -1).components
    without = manifest.model_copy(update={"details": {**manifest.details, "spans": False}})
    with pytest.raises(
        ConfigError, match=r"data\.fim\.spans: .* has no spans; build the shards with --spans"
    ):
        build_mixture(pools, settings, without, -1)
