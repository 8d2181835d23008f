"""Open finished shards, and verify them."""

from __future__ import annotations

from pathlib import Path

from hpctrain.errors import DataError
from hpctrain.manifest import Manifest, find_damage, read_manifest
from hpctrain.parallel.crew import ALONE, Crew
from hpctrain.progress import progress, say
from hpctrain.shards.layout import SHARDS_FORMAT, SHARDS_KIND, dataset_names, parse_shard_name
from hpctrain.shards.stream import Shard, TokenStream


def read_shards_manifest(directory: Path) -> Manifest:
    """The manifest of finished shards; raises DataError where there is none."""
    return read_manifest(directory, SHARDS_KIND, SHARDS_FORMAT)


def open_streams(directory: Path, split: str, verify: bool = True) -> dict[str, TokenStream]:
    """Open the token streams of a split, by language, sorted by name.

    With `verify`, the checksums of the split's files are compared with the manifest before they are parsed;
    their sizes always are. Raises DataError if the shards are missing, unfinished or damaged, or lack the
    split.
    """
    manifest = read_shards_manifest(directory)
    names = _names_by_language(manifest, split)
    if not names:
        splits = sorted({parts[0] for name in manifest.files if (parts := parse_shard_name(name))})
        raise DataError(f"{directory}: has no split {split}, only {', '.join(splits)}")
    wanted = [name for group in names.values() for name in group]
    damage = (
        _find_damage(directory, manifest, wanted, ALONE)
        if verify
        else _wrong_sizes(directory, manifest, wanted)
    )
    if damage:
        more = f" (and {len(damage) - 1} more)" if len(damage) > 1 else ""
        raise DataError(f"{damage[0]}{more}; restore it or build the shards again")
    streams = {
        language: TokenStream([Shard(directory / name, dataset_names(manifest)) for name in group])
        for language, group in names.items()
    }
    counted = manifest.counts["tokens"][split]
    if wrong := [language for language, stream in streams.items() if len(stream) != counted.get(language)]:
        raise DataError(
            f"{directory}: the manifest counts other tokens than the shards of {', '.join(wrong)} hold"
        )
    shards = [shard for stream in streams.values() for shard in stream.shards]
    if unmapped := sum(not shard.tokens.is_mappable for shard in shards):
        say(f"{directory}: {unmapped} of {len(shards)} shards of {split} are not contiguous: slow reads")
    return streams


def verify_shards(directory: Path, crew: Crew = ALONE) -> list[str]:
    """Compare every file with the manifest's checksums: one line for each that differs, none if all is well.

    A collective call: the ranks share the files, and all get all lines. Raises DataError if the directory
    holds no finished shards.
    """
    with crew.together():
        manifest = read_shards_manifest(directory)
    return _find_damage(directory, manifest, sorted(manifest.files), crew)


def _names_by_language(manifest: Manifest, split: str) -> dict[str, list[str]]:
    """Shard files of a split, in order, by language."""
    found = sorted(
        (parts[1], parts[2], name)
        for name in manifest.files
        if (parts := parse_shard_name(name)) and parts[0] == split
    )
    names: dict[str, list[str]] = {}
    for language, _, name in found:
        names.setdefault(language, []).append(name)
    return names


def _find_damage(directory: Path, manifest: Manifest, names: list[str], crew: Crew) -> list[str]:
    total = sum(manifest.files[name].bytes for name in names)
    damage: list[str] = []
    with (
        progress("verify", total / 1e6, "MB", visible=crew.rank == 0) as bar,
        crew.deal(names, lambda amount, status: bar.advance(amount)) as deal,
    ):
        for name in deal:
            damage += find_damage(directory, manifest, [name], on_bytes=lambda size: deal.advance(size / 1e6))
    return sorted(line for lines in crew.allgather(damage) for line in lines)


def _wrong_sizes(directory: Path, manifest: Manifest, names: list[str]) -> list[str]:
    paths = {directory / name: manifest.files[name].bytes for name in names}
    return [
        f"{path}: missing or not the {size} bytes that the manifest says"
        for path, size in paths.items()
        if not path.is_file() or path.stat().st_size != size
    ]
