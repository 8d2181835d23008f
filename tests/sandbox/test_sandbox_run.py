"""Commands in the sandbox: what they cannot reach, and what ends them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hpctrain.errors import LaunchError
from hpctrain.sandbox import bubblewrap
from hpctrain.sandbox.run import Limits, Outcome, Sandbox
from hpctrain.sandbox.toolchain import build

SHORT = Limits(seconds=10, cpu_seconds=5, memory_bytes=256 << 20, processes=32, file_bytes=8 << 20)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox()


def shell(sandbox: Sandbox, directory: Path, script: str, limits: Limits = SHORT) -> Outcome:
    return sandbox.run(["sh", "-c", script], directory, limits)


def run_c(sandbox: Sandbox, directory: Path, code: str, limits: Limits = SHORT) -> Outcome:
    (directory / "a.c").write_text(code)
    built = build(sandbox, directory, ["a.c"], "a", "c")
    assert built.status == "ok", built.message
    return sandbox.run(["./a"], directory, limits)


def test_output_exit_code_and_files_come_back(sandbox: Sandbox, tmp_path: Path) -> None:
    outcome = shell(sandbox, tmp_path, "echo one; echo two >&2; echo three > file; exit 7")
    assert (outcome.status, outcome.returncode, outcome.reason) == ("failed", 7, "exit code 7")
    assert (outcome.stdout, outcome.stderr) == ("one\n", "two\n")
    assert (tmp_path / "file").read_text() == "three\n"


def test_signal_is_named(sandbox: Sandbox, tmp_path: Path) -> None:
    outcome = run_c(sandbox, tmp_path, "int main(void) { *(volatile int *)0 = 1; return 0; }")
    assert (outcome.status, outcome.returncode, outcome.reason) == ("failed", -11, "ended by signal 11")


def test_home_and_environment_are_out_of_reach(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "secret")
    outcome = shell(sandbox, tmp_path, f"ls -a {Path.home()} /run/munge /etc/munge /var; env; ls /home /root")
    assert "secret" not in outcome.stdout
    assert outcome.stderr.count("No such file or directory") == 6


def test_writes_outside_the_directory_fail(sandbox: Sandbox, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    inside = tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    outcome = shell(
        sandbox, inside, f"echo x > {outside}/file; echo x > ../file; echo x > /usr/file; echo x > /file"
    )
    assert outcome.status == "failed"
    assert list(outside.iterdir()) == []
    assert not (tmp_path / "file").exists()


def test_links_out_of_the_directory_lead_nowhere(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(secret)
    before = secret.stat()
    outcome = shell(sandbox, inside, "cat link")
    assert "secret" not in outcome.stdout
    assert secret.stat().st_uid == before.st_uid


def test_readable_directories_can_be_read_and_not_written(sandbox: Sandbox, tmp_path: Path) -> None:
    extra, inside = tmp_path / "extra", tmp_path / "inside"
    extra.mkdir()
    inside.mkdir()
    (extra / "file").write_text("here")
    outcome = sandbox.run(
        ["sh", "-c", f"cat {extra}/file; echo x > {extra}/file"], inside, SHORT, readable=[extra]
    )
    assert outcome.stdout == "here"
    assert (extra / "file").read_text() == "here"


def test_no_network(sandbox: Sandbox, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        outcome = run_c(
            sandbox,
            tmp_path,
            f"""
            #include <arpa/inet.h>
            #include <stdio.h>
            #include <sys/socket.h>
            int main(void) {{
                struct sockaddr_in to = {{.sin_family = AF_INET, .sin_port = htons({port})}};
                to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
                printf("%d", connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&to, sizeof to));
            }}""",
        )
    assert outcome.stdout == "-1"


def test_refused_system_calls(sandbox: Sandbox, tmp_path: Path) -> None:
    outcome = run_c(
        sandbox,
        tmp_path,
        """
        #define _GNU_SOURCE
        #include <errno.h>
        #include <sched.h>
        #include <stdio.h>
        #include <sys/mount.h>
        #include <sys/ptrace.h>
        #include <sys/socket.h>
        int main(void) {
            long calls[] = {unshare(CLONE_NEWUSER), mount("a", "/tmp", "tmpfs", 0, ""),
                            ptrace(PTRACE_TRACEME), socket(40, SOCK_STREAM, 0),
                            socket(AF_PACKET, SOCK_RAW, 0)};
            for (int i = 0; i < 5; ++i) printf("%ld ", calls[i]);
        }""",
    )
    assert outcome.stdout == "-1 -1 -1 -1 -1 "


def test_other_processes_are_not_seen(sandbox: Sandbox, tmp_path: Path) -> None:
    outcome = shell(
        sandbox, tmp_path, f"test -e /proc/{os.getpid()}/stat && echo seen; ls /proc | grep -c '^[0-9]'"
    )
    assert int(outcome.stdout) < 10


def test_what_belongs_to_whom_is_as_before(sandbox: Sandbox, tmp_path: Path) -> None:
    shell(sandbox, tmp_path, "echo x > file")
    assert {path.stat().st_uid for path in (tmp_path, tmp_path / "file")} == {os.geteuid()}


def test_a_command_cannot_pretend_that_the_sandbox_failed(sandbox: Sandbox, tmp_path: Path) -> None:
    assert shell(sandbox, tmp_path, "echo 'bwrap: cannot' >&2; exit 1").status == "failed"
    with pytest.raises(LaunchError, match="the sandbox cannot be set up"):
        sandbox.run(["true"], tmp_path, SHORT, readable=[tmp_path / "nowhere"])


def test_endless_loop_ends(sandbox: Sandbox, tmp_path: Path) -> None:
    outcome = shell(sandbox, tmp_path, "while :; do :; done", Limits(seconds=0.5))
    assert (outcome.status, outcome.reason) == ("too slow", "ran longer than 0.5 s")


def test_processor_time_is_limited(sandbox: Sandbox, tmp_path: Path) -> None:
    outcome = shell(sandbox, tmp_path, "while :; do :; done", Limits(seconds=60, cpu_seconds=1))
    assert (outcome.status, outcome.reason) == ("too slow", "used more than 1 s of processor time")


def test_fork_bomb_is_bounded_and_leaves_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    before = {process.pid for process in psutil.process_iter()}
    code = "#include <unistd.h>\nint main(void) { for (;;) if (fork() < 0) usleep(1000); }"
    outcome = run_c(sandbox, tmp_path, code, Limits(seconds=2, processes=32))
    assert outcome.status in ("too slow", "over limit")
    left = [
        p
        for p in psutil.process_iter(["exe"])
        if p.pid not in before and p.info["exe"] == str(tmp_path / "a")
    ]
    assert left == []


def test_more_processes_than_allowed_are_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    code = """
        #include <stdio.h>
        #include <unistd.h>
        int main(void) {
            int made = 0;
            for (int i = 0; i < 100; ++i) {
                int child = fork();
                if (child == 0) { pause(); return 0; }
                made += child > 0;
            }
            printf("%d\\n", made); fflush(stdout);
            sleep(20);
        }"""
    outcome = run_c(sandbox, tmp_path, code, Limits(seconds=2, processes=32))
    assert outcome.status in ("too slow", "over limit")
    assert not outcome.stdout or int(outcome.stdout) <= 32


def test_output_is_cut(sandbox: Sandbox, tmp_path: Path) -> None:
    outcome = shell(sandbox, tmp_path, "yes", Limits(seconds=20, output_bytes=100_000))
    assert (outcome.status, outcome.reason) == ("over limit", "printed more than 97 KiB")
    assert len(outcome.stdout) == 100_000


def test_memory_is_limited(sandbox: Sandbox, tmp_path: Path) -> None:
    code = """
        #include <stdlib.h>
        #include <string.h>
        #include <unistd.h>
        int main(void) {
            for (void *p; (p = malloc(9 << 20)); ) memset(p, 1, 9 << 20);
            pause();
        }"""
    outcome = run_c(sandbox, tmp_path, code)
    assert (outcome.status, outcome.reason) == ("over limit", "took more than 256 MiB of memory")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exec head -c 100000000 /dev/zero > big", "wrote a file of more than 8 MiB"),
        ("for i in 1 2 3 4 5; do head -c 4000000 /dev/zero > big$i; done", "wrote more than 8 MiB of files"),
    ],
)
def test_files_are_limited(sandbox: Sandbox, tmp_path: Path, script: str, reason: str) -> None:
    outcome = shell(sandbox, tmp_path, script)
    assert outcome.status == "over limit"
    assert outcome.reason in (reason, "wrote more than 8 MiB of files")


def test_scratch_is_limited_and_gone_afterwards(sandbox: Sandbox, tmp_path: Path) -> None:
    limits = Limits(seconds=20, file_bytes=1 << 40)
    outcome = shell(
        sandbox, tmp_path, "head -c 400000000 /dev/zero > /dev/shm/big; wc -c < /dev/shm/big", limits
    )
    assert int(outcome.stdout) < 300_000_000
    assert not Path("/dev/shm/big").exists()


def test_no_sandbox_is_an_error_that_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    bubblewrap.missing.cache_clear()
    try:
        with pytest.raises(LaunchError, match=r"bwrap is not on PATH.*--unsafe"):
            Sandbox()
    finally:
        bubblewrap.missing.cache_clear()


def test_unsafe_says_so_and_runs_within_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unsafe = Sandbox(unsafe=True)
    assert "without a sandbox" in capsys.readouterr().err
    assert unsafe.name == "none"
    assert shell(unsafe, tmp_path, "pwd").stdout.strip() == str(tmp_path)
    assert shell(unsafe, tmp_path, "sleep 60 & sleep 60", Limits(seconds=0.3)).status == "too slow"
    outcome = shell(unsafe, tmp_path, "exec head -c 100000000 /dev/zero > big")
    assert outcome.status == "over limit"


def test_an_ordinary_user_has_the_sandbox_too() -> None:
    if os.geteuid() != 0:
        pytest.skip("this is an ordinary user already")
    code = (
        "import os, pathlib, tempfile\n"
        "from hpctrain.sandbox.run import Sandbox, Limits\n"
        "os.setgroups([]); os.setgid(54321); os.setuid(54321)\n"
        "place = pathlib.Path(tempfile.mkdtemp())\n"
        "print(Sandbox().run(['sh', '-c', 'id -u; echo x > file; cat file'], place, Limits()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=False)
    assert "status='ok'" in done.stdout, done.stderr
    assert "54321" in done.stdout
