"""Git repositories at a commit, those of strangers among them."""

import os
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest

from hpctrain.corpus.entry import UnitSource
from hpctrain.corpus.git import open_git
from hpctrain.corpus.members import Limits
from hpctrain.errors import DataError

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
LIMITS = Limits(member_bytes=1 << 20, total_bytes=1 << 24, members=1000)
FILES = {"src/a.c": b"int a;\n", "b.f90": b"end\r\n", "LICENSE": b"MIT License\n"}


def _git(repository: Path, *arguments: str, content: bytes = b"") -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    who = {f"GIT_{role}_{what}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", *arguments], cwd=repository, input=content, capture_output=True, check=True,
        env=environment | who | {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull},
    )  # fmt: skip
    return done.stdout.decode().strip()


def _repository(root: Path, files: dict[str, bytes] = FILES, *options: str) -> Path:
    root.mkdir(parents=True)
    _git(root, "init", "-q", "-b", "main", *options)
    _commit(root, files)
    return root


def _commit(root: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    _git(root, "add", "-A")
    _git(root, "commit", "-q", "-m", "files")
    return _git(root, "rev-parse", "HEAD")


def _open(root: Path, revision: str = "HEAD", limits: Limits = LIMITS) -> UnitSource:
    return open_git(root, revision, limits)


def _contents(source: UnitSource) -> dict[str, bytes]:
    found = {}
    for entry in source.entries():
        if not entry.problem:
            found[entry.path] = entry.read()
            assert len(found[entry.path]) == entry.size
    return found


def _problems(source: UnitSource) -> dict[str, str]:
    return {entry.path: entry.problem for entry in source.entries() if entry.problem}


def test_files_as_committed_without_a_checkout(tmp_path: Path) -> None:
    root = _repository(tmp_path / "code")
    (root / "src/a.c").write_text("int changed;\n")
    (root / "new.c").write_text("int uncommitted;\n")
    assert _contents(_open(root)) == {f"code/{path}": content for path, content in FILES.items()}


def test_a_sample_can_be_chosen_without_reading(tmp_path: Path) -> None:
    source = _open(_repository(tmp_path / "code"))
    chosen = {entry.path for entry in source.entries() if entry.size < 10}
    assert {entry.path: entry.read() for entry in source.entries() if entry.path in chosen} == {
        f"code/{path}": content for path, content in FILES.items() if len(content) < 10
    }


def test_bare_repository_and_packed_refs(tmp_path: Path) -> None:
    _git(tmp_path, "clone", "-q", "--bare", str(_repository(tmp_path / "code")), "bare.git")
    _git(tmp_path / "bare.git", "gc", "-q")
    assert not list((tmp_path / "bare.git/refs/heads").iterdir())
    source = _open(tmp_path / "bare.git", "main")
    assert _contents(source) == {f"bare/{path}": content for path, content in FILES.items()}
    assert source.work_bytes > 0


def test_revisions(tmp_path: Path) -> None:
    root = _repository(tmp_path / "code")
    first = _git(root, "rev-parse", "HEAD")
    _git(root, "tag", "-a", "v1.0", "-m", "annotated")
    _git(root, "checkout", "-q", "-b", "feature/x")
    _commit(root, {"only.c": b"int only;\n"})
    for revision in (first, "v1.0", "main", "refs/heads/main", "heads/main"):
        assert "code/only.c" not in _contents(_open(root, revision))
    for revision in ("HEAD", "feature/x"):
        assert _contents(_open(root, revision))["code/only.c"] == b"int only;\n"
    fingerprints = {_open(root, revision).fingerprint() for revision in (first, "main", "HEAD")}
    assert len(fingerprints) == 2


@pytest.mark.parametrize(
    "revision", ["nowhere", "--help", "../../etc/passwd", "HEAD~1", "main@{0}", "a b", ""]
)
def test_revision_that_is_not_there(tmp_path: Path, revision: str) -> None:
    root = _repository(tmp_path / "code")
    with pytest.raises(DataError, match=r"no revision .* branch: main"):
        _open(root, revision)
    with pytest.raises(DataError, match="has no commit"):
        _contents(_open(root, "0" * 40))


def test_config_hooks_and_filters_of_strangers_are_not_run(tmp_path: Path) -> None:
    root = _repository(tmp_path / "code", FILES | {".gitattributes": b"*.c filter=evil diff=evil\n"})
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\ncat\n")
    trap.chmod(0o755)
    for key in (
        "core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "filter.evil.smudge",
        "filter.evil.clean", "filter.evil.process", "diff.evil.textconv", "alias.ls-tree", "alias.cat-file",
    ):  # fmt: skip
        _git(root, "config", key, f"!{trap}" if key.startswith("alias") else str(trap))
    with (root / ".git/config").open("a") as config:
        config.write("[include]\n\tpath = /nowhere/at/all\n[broken\n")
    for hook in ("post-checkout", "pre-auto-gc", "reference-transaction"):
        shutil.copy(trap, root / ".git/hooks" / hook)
    assert _contents(_open(root))["code/src/a.c"] == b"int a;\n"
    assert not (tmp_path / "sprung").exists()


def test_environment_leads_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = _repository(tmp_path / "other", {"other.c": b"int other;\n"})
    root = _repository(tmp_path / "code")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_ALTERNATE_OBJECT_DIRECTORIES", str(other / ".git/objects"))
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    assert set(_contents(_open(root))) == {f"code/{path}" for path in FILES}
    assert not (tmp_path / "trace").exists()


def test_repository_of_another_user(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    root = _repository(tmp_path / "code")
    for place in [root, *root.rglob("*")]:
        os.chown(place, 65534, 65534)
    assert set(_contents(_open(root))) == {f"code/{path}" for path in FILES}


def test_replacements_are_not_used(tmp_path: Path) -> None:
    root = _repository(tmp_path / "code")
    real = _git(root, "rev-parse", "HEAD:src/a.c")
    fake = _git(root, "hash-object", "-w", "--stdin", content=b"int fake;\n")
    _git(root, "replace", real, fake)
    assert _contents(_open(root))["code/src/a.c"] == b"int a;\n"


def test_borrowed_objects_are_refused(tmp_path: Path) -> None:
    private = _repository(tmp_path / "private")
    _git(tmp_path, "clone", "-q", "--shared", str(private), "shared")
    with pytest.raises(DataError, match="alternates"):
        _open(tmp_path / "shared")
    linked = _repository(tmp_path / "linked")
    shutil.rmtree(linked / ".git/objects")
    (linked / ".git/objects").symlink_to(private / ".git/objects")
    with pytest.raises(DataError, match="no git repository"):
        _open(linked)
    shutil.rmtree(linked)
    linked.mkdir()
    (linked / ".git").write_text(f"gitdir: {private}/.git\n")
    with pytest.raises(DataError, match="leads elsewhere"):
        _open(linked)


def test_directory_of_repositories(tmp_path: Path) -> None:
    _repository(tmp_path / "group/one", {"a.c": b"1\n"})
    _repository(tmp_path / "two", {"a.c": b"2\n"})
    _git(tmp_path, "clone", "-q", "--bare", str(tmp_path / "two"), "three.git")
    _git(tmp_path, "clone", "-q", "--shared", str(tmp_path / "two"), "borrowing")
    (tmp_path / "loop").symlink_to(tmp_path)
    _git(tmp_path, "init", "-q", "empty")
    source = _open(tmp_path)
    assert _contents(source) == {"group/one/a.c": b"1\n", "three/a.c": b"2\n", "two/a.c": b"2\n"}
    assert set(source.missing) == {"borrowing", "empty"}
    assert [unit.key for unit in source.units()] == ["group/one", "three", "two"]
    assert [pickle.loads(pickle.dumps(unit)) for unit in source.units()] == source.units()


def test_links_submodules_and_large_files_are_named(tmp_path: Path) -> None:
    other = _repository(tmp_path / "other")
    root = _repository(tmp_path / "code", {"big.c": bytes(2 << 20)})
    (root / "link.c").symlink_to("/etc/passwd")
    _git(root, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other), "sub")
    _commit(root, {"a.c": b"int a;\n"})
    source = _open(root)
    assert set(_contents(source)) == {"code/a.c", "code/.gitmodules"}
    assert _problems(source) == {"code/big.c": "too large", "code/link.c": "link", "code/sub": "submodule"}


def test_partial_clone_fetches_nothing(tmp_path: Path) -> None:
    origin = _repository(tmp_path / "origin")
    _git(origin, "config", "uploadpack.allowFilter", "true")
    _git(tmp_path, "clone", "-q", "--no-checkout", "--filter=blob:none", f"file://{origin}", "partial")
    assert set(_problems(_open(tmp_path / "partial")).values()) == {"unreadable"}
    assert not _contents(_open(tmp_path / "partial"))


def test_shallow_clone(tmp_path: Path) -> None:
    origin = _repository(tmp_path / "origin")
    _commit(origin, {"second.c": b"int second;\n"})
    _git(tmp_path, "clone", "-q", "--depth", "1", f"file://{origin}", "shallow")
    assert len(_contents(_open(tmp_path / "shallow"))) == len(FILES) + 1


def test_object_names_by_sha256(tmp_path: Path) -> None:
    root = _repository(tmp_path / "code", FILES, "--object-format=sha256")
    assert set(_contents(_open(root))) == {f"code/{path}" for path in FILES}


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    root = _repository(tmp_path / "code", {os.fsdecode(b"caf\xe9.c"): b"int x;\n"})
    assert _contents(_open(root)) == {"code/caf\\xe9.c": b"int x;\n"}


def _unpack_for_damage(root: Path) -> Path:
    _git(root, "gc", "-q")
    (pack,) = (root / ".git/objects/pack").glob("*.pack")
    pack.chmod(0o644)
    return pack


def test_damaged_pack_is_named(tmp_path: Path) -> None:
    files = {f"{n}.c": os.urandom(3000) for n in range(20)}
    root = _repository(tmp_path / "code", files)
    pack = _unpack_for_damage(root)
    content = bytearray(pack.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    pack.write_bytes(content)
    with pytest.raises(DataError, match=r"code/\.git: .*damaged"):
        _contents(_open(root))
    salvaged = {}
    for entry in open_git(root, "HEAD", LIMITS, skip_damaged=True).entries():
        try:
            salvaged[entry.path] = entry.read()
        except OSError as reason:
            assert "cannot be read" in str(reason)  # noqa: PT017 - most of the others do not raise
    assert 15 <= len(salvaged) < 20
    assert all(content == files[path.removeprefix("code/")] for path, content in salvaged.items())


def test_trees_that_hold_each_other_are_a_bomb(tmp_path: Path) -> None:
    root = _repository(tmp_path / "code")
    blob = _git(root, "hash-object", "-w", "--stdin", content=b"int x;\n")
    tree = _git(root, "mktree", content=f"100644 blob {blob}\ta.c\n".encode())
    for _ in range(12):  # 8 ** 12 files
        listing = "".join(f"040000 tree {tree}\td{number}\n" for number in range(8))
        tree = _git(root, "mktree", content=listing.encode())
    commit = _git(root, "commit-tree", tree, "-m", "bomb")
    with pytest.raises(DataError, match="bomb"):
        _contents(_open(root, commit))


def test_path_that_leaves(tmp_path: Path) -> None:
    root = _repository(tmp_path / "code")
    blob = _git(root, "rev-parse", "HEAD:src/a.c")
    name = bytes.fromhex(blob)
    inner = b"100644 evil.c\0" + name
    inner_name = _git(root, "hash-object", "-t", "tree", "--literally", "-w", "--stdin", content=inner)
    outer = b"40000 ..\0" + bytes.fromhex(inner_name)
    tree = _git(root, "hash-object", "-t", "tree", "--literally", "-w", "--stdin", content=outer)
    commit = _git(root, "commit-tree", tree, "-m", "up")
    assert _problems(_open(root, commit)) == {"code/../evil.c": "unsafe path"}


def test_directory_without_repositories(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no git repository"):
        _open(tmp_path)
    with pytest.raises(DataError, match="no such directory"):
        _open(tmp_path / "nowhere")


def test_without_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="needs the git program"):
        _open(tmp_path)
