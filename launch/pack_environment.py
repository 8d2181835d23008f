#!/usr/bin/env python3
"""Pack a virtual environment, and the Python under it, into one archive that runs wherever it is unpacked.

    VENV/bin/python launch/pack_environment.py VENV [CACHE]

Prints the directory of the finished archive: environment.tar or environment.tar.zst, its sha256, and the
bytes it takes unpacked. An archive of the same files is used again. CACHE: VENV.packed if not given. Inside:

    env/      the environment; packages installed with `pip install -e` lie in its site-packages
    python/   the Python that it was made from, unless that is the system's in /usr, as on every node

launch/node.sh unpacks it. Only the standard library is used: any environment is packed by its own Python.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

FORMAT = 1
KEPT_ARCHIVES = 2
ABANDONED_SECONDS = 24 * 3600
"""A packing this old was killed."""
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
SHEBANG = re.compile(rb"""#!(?:/bin/sh\n'''exec' )?"?([^\n" ]+/bin)/python""")
# What sh reads as "run the Python beside this file", and Python as a string.
RELOCATED = b"""#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")/python" "$0" "$@"
' '''
"""


@dataclass(frozen=True)
class Entry:
    """A file, directory or link of the archive; `content` where it is not the source's own."""

    name: str
    source: Path
    status: os.stat_result
    target: str | None = None
    content: bytes | None = None


def walk(root: Path, name: str, left_out: frozenset[Path] = frozenset()) -> Iterator[Entry]:
    """Everything under `root`, itself included, as `name` in the archive; links are not followed."""
    status = root.lstat()
    if stat.S_ISLNK(status.st_mode):
        yield Entry(name, root, status, target=str(root.readlink()))
    elif stat.S_ISREG(status.st_mode):
        yield Entry(name, root, status)
    elif stat.S_ISDIR(status.st_mode):
        yield Entry(name, root, status)
        with os.scandir(root) as found:
            names = sorted(entry.name for entry in found)
        for child in names:
            if root / child not in left_out:
                yield from walk(root / child, f"{name}/{child}", left_out)


def editable_packages() -> tuple[list[Path], set[str]]:
    """Where the packages of `pip install -e` lie, and the files that point at them."""
    packages, pointers = [], set()
    for distribution in importlib.metadata.distributions():
        url = json.loads(distribution.read_text("direct_url.json") or "{}")
        if not url.get("dir_info", {}).get("editable"):
            continue
        names = (distribution.read_text("top_level.txt") or "").split()
        specs = [spec for spec in map(importlib.util.find_spec, names) if spec is not None]
        origins = [Path(spec.origin) for spec in specs if spec.origin is not None]
        if not origins or len(origins) < len(names):
            say(f"{distribution.name} cannot be packed as it is installed: it is read from {url['url']}")
            continue
        packages += [origin.parent if origin.name == "__init__.py" else origin for origin in origins]
        pointers |= {
            str(path)
            for path in distribution.files or ()
            if path.name.startswith("__editable__") or path.suffix == ".pth"
        }
    return packages, pointers


def environment_entries(venv: Path, python_is_packed: bool) -> Iterator[Entry]:
    """The environment, so that nothing in it names the place it was made at."""
    site = Path(sysconfig.get_path("purelib"))
    packages, pointers = editable_packages()
    for entry in walk(venv, "env", frozenset(site / pointer for pointer in pointers)):
        inside = PurePosixPath(entry.name).relative_to("env")
        if inside == PurePosixPath("pyvenv.cfg") and python_is_packed:
            yield Entry(entry.name, entry.source, entry.status, content=relocated_config(entry.source))
        elif inside.parent == PurePosixPath("bin") and inside.name in ("python", "python3", PYTHON):
            continue
        elif inside.parent == PurePosixPath("bin") and stat.S_ISREG(entry.status.st_mode):
            yield Entry(entry.name, entry.source, entry.status, content=relocated_script(venv, entry.source))
        else:
            yield entry
    python = f"../../python/bin/{PYTHON}" if python_is_packed else base_executable()
    link = (venv / "bin" / "python").lstat()
    for name, target in ((PYTHON, str(python)), ("python3", PYTHON), ("python", PYTHON)):
        yield Entry(f"env/bin/{name}", venv / "bin" / "python", link, target=target)
    inside_site = site.relative_to(venv).as_posix()
    for package in packages:
        yield from walk(package, f"env/{inside_site}/{package.name}")


def relocated_config(path: Path) -> bytes:
    """pyvenv.cfg without the home of the Python: launch/node.sh adds it where it unpacks."""
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.partition("=")[0].strip() not in ("home", "executable", "command")]
    return "\n".join([*kept, ""]).encode()


def relocated_script(venv: Path, path: Path) -> bytes | None:
    """A script of the environment's Python that starts the Python beside it; None for other files."""
    content = path.read_bytes()
    start = SHEBANG.match(content)
    if start is None or Path(os.fsdecode(start[1])).resolve() != (venv / "bin").resolve():
        return None
    return RELOCATED + content.partition(b"\n")[2]  # of a long path's start a string is left


def base_executable() -> Path:
    """The real file of the Python that the environment was made from."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def python_entries(venv: Path) -> Iterator[Entry]:
    """The Python under the environment, without its packages unless the environment uses them."""
    base = Path(sys.base_prefix)
    where = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    library = {Path(sysconfig.get_path(name, vars=where)) for name in ("stdlib", "platstdlib")}
    sees_packages = any(
        line.replace(" ", "").lower() == "include-system-site-packages=true"
        for line in (venv / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    )
    left_out = {directory / "test" for directory in library} | {
        found for directory in library for found in directory.glob("config-*")
    }
    if not sees_packages:
        left_out |= {directory / "site-packages" for directory in library}
    yield from walk(base_executable(), f"python/bin/{PYTHON}")
    for directory in sorted(library):
        yield from walk(directory, f"python/{directory.relative_to(base).as_posix()}", frozenset(left_out))
        for path in sorted(directory.parent.glob("*.so*")):
            yield from walk(path, f"python/{path.relative_to(base).as_posix()}")
    # In a directory of its own for LD_LIBRARY_PATH: Pythons name the place they were installed at.
    for path in sorted(Path(sysconfig.get_config_var("LIBDIR") or base / "lib").glob("libpython*.so*")):
        yield from walk(path, f"python/libpython/{path.name}")
    headers = Path(sysconfig.get_path("include"))
    if headers.is_dir():
        yield from walk(headers, f"python/include/{headers.name}")


def entries_of(venv: Path) -> list[Entry]:
    """All that goes into the archive, in its order."""
    if not (venv / "pyvenv.cfg").is_file():
        sys.exit(f"{venv} is no virtual environment: make one with launch/install.sh")
    if Path(sys.prefix).resolve() != venv.resolve():
        sys.exit(f"run this by the environment's own Python: {venv}/bin/python")
    venv = Path(sys.prefix)  # as the environment spells itself
    python_is_packed = Path(sys.base_prefix) != Path("/usr")
    entries = list(environment_entries(venv, python_is_packed))
    if python_is_packed:
        entries += python_entries(venv)
    packed = [venv, Path("/usr"), Path(sys.base_prefix)]
    for path in map(Path, filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))):
        if not any(path.resolve().is_relative_to(root) for root in packed):
            say(f"PYTHONPATH names {path}: it is not packed, and is read from there")
    return entries


def fingerprint(entries: list[Entry], compression: str) -> str:
    """Changes when a file does: from names, sizes and times. Compiled modules are left out: they follow."""
    digest = hashlib.sha256(f"{FORMAT} {compression} {sys.version}\n".encode())
    for entry in entries:
        if "__pycache__" not in entry.name and not stat.S_ISDIR(entry.status.st_mode):
            status = (entry.status.st_size, entry.status.st_mtime_ns, entry.status.st_mode)
            digest.update(repr((entry.name, entry.target, *status)).encode())
    return digest.hexdigest()[:16]


def write_tar(entries: list[Entry], out: IO[bytes]) -> int:
    """Write the archive; returns the bytes it takes unpacked, whole blocks counted."""
    unpacked = 0
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.mode, info.mtime = stat.S_IMODE(entry.status.st_mode), int(entry.status.st_mtime)
            if entry.target is not None:
                info.type, info.linkname = tarfile.SYMTYPE, entry.target
                archive.addfile(info)
            elif entry.content is not None:
                info.size = len(entry.content)
                archive.addfile(info, io.BytesIO(entry.content))
            elif stat.S_ISDIR(entry.status.st_mode):
                info.type, info.mode = tarfile.DIRTYPE, info.mode | stat.S_IRWXU
                archive.addfile(info)
            else:
                with entry.source.open("rb") as file:
                    info.size = os.fstat(file.fileno()).st_size  # it may have changed since
                    archive.addfile(info, file)
            unpacked += -(-info.size // 4096) * 4096 + 512
    return unpacked


def pack(entries: list[Entry], archive: Path) -> int:
    """Write the archive, through zstd where its name says so; returns the bytes it takes unpacked."""
    with archive.open("wb") as file:
        if archive.suffix != ".zst":
            unpacked = write_tar(entries, file)
        else:
            command = ["zstd", "-q", "-1", "-T0", "-c"]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file) as process:
                assert process.stdin is not None
                unpacked = write_tar(entries, process.stdin)
            if process.returncode:
                sys.exit(f"zstd failed with code {process.returncode}")
        file.flush()
        os.fsync(file.fileno())
    return unpacked


def publish(entries: list[Entry], cache: Path, name: str, finished: Path) -> None:
    """Pack aside and rename into place. If another job was quicker, its archive stands."""
    aside = Path(tempfile.mkdtemp(prefix=".packing-", dir=cache))
    try:
        unpacked = pack(entries, aside / name)
        digest = hashlib.sha256()
        with (aside / name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        (aside / "sha256").write_text(f"{digest.hexdigest()}\n")
        (aside / "unpacked_bytes").write_text(f"{unpacked}\n")
        with contextlib.suppress(OSError):
            aside.rename(finished)
        if not finished.is_dir():
            sys.exit(f"{aside} cannot be renamed to {finished}")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def clean(cache: Path) -> None:
    """Keep the archives used last; remove the others, and packings that were killed."""
    by_use = sorted(
        (path for path in cache.iterdir() if path.is_dir()), key=lambda path: -path.stat().st_mtime
    )
    archives = [path for path in by_use if not path.name.startswith(".")]
    killed = [
        path
        for path in by_use
        if path.name.startswith(".packing-") and path.stat().st_mtime < time.time() - ABANDONED_SECONDS
    ]
    for path in [*archives[KEPT_ARCHIVES:], *killed]:
        shutil.rmtree(path, ignore_errors=True)


def say(message: str) -> None:
    """Tell the user, beside the answer."""
    print(message, file=sys.stderr)


def main() -> None:
    """Find or make the archive of the environment named on the command line, and print where it is."""
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: VENV/bin/python launch/pack_environment.py VENV [CACHE]")
    venv = Path(sys.argv[1]).resolve()
    cache = Path(sys.argv[2] if len(sys.argv) > 2 else f"{venv}.packed").resolve()
    compression = os.environ.get("BROADCAST_COMPRESSION", "zstd" if shutil.which("zstd") else "none")
    if compression not in ("zstd", "none"):
        sys.exit(f"BROADCAST_COMPRESSION is {compression}: it can be zstd or none")
    start = time.monotonic()
    entries = entries_of(venv)
    finished = cache / fingerprint(entries, compression)
    if not finished.is_dir():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            name = "environment.tar.zst" if compression == "zstd" else "environment.tar"
            publish(entries, cache, name, finished)
        except OSError as error:
            sys.exit(f"cannot pack {venv} into {cache}: {error} (BROADCAST_CACHE names another directory)")
        size = sum(path.stat().st_size for path in finished.iterdir())
        say(
            f"packed {len(entries):,} files of {venv} into {finished}: {size / 1e6:,.0f} MB, "
            f"compression {compression}, {time.monotonic() - start:.0f} s"
        )
        clean(cache)
    with contextlib.suppress(PermissionError):  # somebody else's archive: read only
        os.utime(finished)
    print(finished)


if __name__ == "__main__":
    main()
