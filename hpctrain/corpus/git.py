"""Git repositories at a commit: files as they were committed, without checkout and without history.

The repository may be a stranger's, so nothing of it but refs and objects is used. Git runs in a fresh
repository of our own that only borrows the objects: their config, hooks, attributes, filters, grafts,
replacements and remotes are never read, and nothing is fetched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

from hpctrain.config import fingerprint
from hpctrain.corpus.entry import Entry, Salvaged, Unit, UnitSource, printable, refuse
from hpctrain.corpus.members import Budget, Limits
from hpctrain.corpus.repository import Repository, find_repositories
from hpctrain.corpus.trees import selected
from hpctrain.errors import DataError

_READER = 1
"""Goes up with every change of what is read from the same commit."""
_CHUNK_BYTES = 1 << 16
_MAX_LINE_BYTES = 1 << 16
_TREE = "040000"
_PROBLEMS = {
    "120000": ("link", ""),
    "160000": ("submodule", "a repository of its own, which is not in this one"),
}
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GitUnit:
    """One repository at one revision."""

    key: str
    """Path of the repository below the source's directory; paths of files begin with it."""
    repository: Repository
    revision: str
    limits: Limits
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def scope(self) -> str:
        """Its own: a repository is settled by itself."""
        return self.key

    @property
    def work_bytes(self) -> int:
        """Total size of the objects, history included."""
        return self.repository.work_bytes

    def fingerprint(self) -> str:
        """A hash over the commit, and how it is read. Raises DataError if there is no such commit."""
        how = [astuple(self.limits), self.include, self.exclude]
        return fingerprint(["git", _READER, self.key, self.repository.resolve(self.revision), how])

    def entries(self) -> Iterator[Entry]:
        """The files of the commit in git's order. Raises DataError for a damaged repository."""
        self.repository.check()
        name = self.repository.resolve(self.revision)
        with tempfile.TemporaryDirectory(prefix="hpctrain-git-") as directory:
            git = _Git(self.repository, Path(directory), name)
            yield from _read_tree(git, git.tree_of(name), self)


def open_git(
    path: Path,
    revision: str,
    limits: Limits,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    skip_damaged: bool = False,
) -> UnitSource:
    """The repository (work tree or bare) at `path`, or all below that directory, at a revision.

    Raises DataError if there is none, or none of that revision; in a directory of repositories, those that
    cannot be read are missing parts. With `skip_damaged`, damage costs only what cannot be read.
    """
    if shutil.which("git") is None:
        raise DataError(f"{path}: reading repositories needs the git program; install it, or use git archive")
    if not path.is_dir():
        raise DataError(f"{path}: no such directory")
    root = path.resolve()
    found, missing = find_repositories(root)
    units: list[Unit] = []
    for name, repository in found.items():
        try:
            repository.check()
            repository.resolve(revision)
        except DataError as reason:
            if "" in found:
                raise
            missing[printable(name)] = str(reason)
        else:
            key = printable(name or root.name.removesuffix(".git"))
            units.append(GitUnit(key, repository, revision, limits, tuple(include), tuple(exclude)))
    if not units:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise DataError(f"{path}: holds no git repository that can be read{f' ({reasons})' * bool(reasons)}")
    return UnitSource([Salvaged(unit) for unit in units] if skip_damaged else units, missing=missing)


def _read_tree(git: _Git, tree: str, unit: GitUnit) -> Iterator[Entry]:
    budget = Budget(git.name, unit.limits)
    with _Objects(git, budget) as objects:
        for mode, name, stated_size, path in git.list_tree(tree):
            budget.member(0)  # trees too: a few of them can hold each other without end
            if mode == _TREE or not selected(f"{unit.key}/{path}", unit.include, unit.exclude):
                continue
            size = int(stated_size) if stated_size.isdigit() else 0
            problem, detail = _PROBLEMS.get(mode, ("", ""))
            if not problem and ".." in path.split("/"):
                problem = "unsafe path"
            elif not problem and not stated_size.isdigit():
                problem, detail = "unreadable", "the repository lacks the object: a partial or damaged clone"
            elif not problem and size > unit.limits.member_bytes:
                problem = "too large"
            read = refuse if problem else partial(objects.read, name)
            yield Entry(f"{unit.key}/{path}", size, read, problem, detail=detail)


class _Objects:
    """Reads objects by name. Git ends at a damaged one: it is started again for the next."""

    def __init__(self, git: _Git, budget: Budget) -> None:
        self._git, self._budget = git, budget
        self._running = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Objects:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def read(self, name: str) -> bytes:
        """The content of an object. Raises DataError if it is damaged."""
        if self._process is None:
            self._process = self._running.enter_context(self._git.start("cat-file", "--batch"))
        if (content := self._ask(self._process, name)) is None:
            self._running.close()
            self._process = None
            raise self._git.damage(f"object {name} cannot be read")
        self._budget.spend(len(content))
        return content

    def _ask(self, process: subprocess.Popen[bytes], name: str) -> bytes | None:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{name}\n".encode())
            process.stdin.flush()
        except BrokenPipeError:
            return None
        header = process.stdout.readline().split()
        if len(header) != 3 or int(header[2]) > self._budget.limits.member_bytes:
            return None
        content = process.stdout.read(int(header[2]) + 1)  # a line end follows
        return content[:-1] if len(content) > int(header[2]) else None


class _Git:
    """Runs git in an empty repository of our own, on the objects of another."""

    def __init__(self, repository: Repository, directory: Path, object_name: str) -> None:
        """`directory` is empty; `object_name` tells which hash the objects are named by."""
        self.name = str(repository.directory)
        sha256 = "[extensions]\n\tobjectformat = sha256\n" if len(object_name) == 64 else ""
        version = 1 if sha256 else 0
        (directory / "config").write_text(
            f"[core]\n\trepositoryformatversion = {version}\n\tbare = true\n{sha256}"
        )
        (directory / "HEAD").write_text("ref: refs/heads/none\n")
        (directory / "refs").mkdir()
        (directory / "objects").mkdir()
        clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        self._environment = clean | _ENVIRONMENT | {
            "GIT_DIR": str(directory), "GIT_OBJECT_DIRECTORY": str(repository.objects),
        }  # fmt: skip
        self._directory = directory

    @contextmanager
    def start(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A git process with pipes; it is ended with the block."""
        with (
            (self._directory / "errors").open("ab") as errors,
            subprocess.Popen(
                ["git", "--no-replace-objects", "--no-pager", *arguments], cwd=self._directory,
                env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            ) as process,
        ):  # fmt: skip
            try:
                yield process
            finally:
                process.kill()

    def tree_of(self, object_name: str) -> str:
        """The tree of a commit or tag. Raises DataError if the object is not there."""
        with self.start("rev-parse", "--verify", "--end-of-options", f"{object_name}^{{tree}}") as process:
            output, _ = process.communicate()
        if process.returncode:
            raise DataError(f"{self.name}: has no commit {object_name}")
        return output.decode().strip()

    def list_tree(self, tree: str) -> Iterator[tuple[str, str, str, str]]:
        """Mode, object name, size and path of everything below a tree, trees included."""
        with self.start("ls-tree", "-r", "-t", "-z", "-l", "--full-tree", tree) as process:
            assert process.stdout is not None
            rest = b""
            while chunk := process.stdout.read1(_CHUNK_BYTES):  # type: ignore[attr-defined]
                *lines, rest = (rest + chunk).split(b"\0")
                if len(rest) > _MAX_LINE_BYTES:
                    raise DataError(f"{self.name}: a path of more than {_MAX_LINE_BYTES} bytes")
                for line in lines:
                    described, _, path = line.partition(b"\t")
                    mode, _, name, size = described.decode("ascii").split()
                    yield mode, name, size, printable(os.fsdecode(path))
            if process.wait():
                raise self.damage("its trees cannot be read")

    def damage(self, what: str) -> DataError:
        """The error for a damaged repository, with git's last words."""
        lines = (self._directory / "errors").read_text(errors="replace").strip().splitlines()
        words = f"{what} ({lines[-1]})" if lines else what
        return DataError(f"{self.name}: damaged: {words}; clone it again or remove it")
