"""A real Slurm on this machine: munge, slurmctld and two slurmd, up in seconds, all state in one directory.

    python tests/slurm/cluster.py start DIR [--mode namespaces|loopback] [--gpus N]
    python tests/slurm/cluster.py run DIR COMMAND ...
    python tests/slurm/cluster.py status|stop DIR

Mode `namespaces` (root): the controller and each node have their own network, host name, process ids, mounts
and /dev/shm, joined by a bridge; the machine's own network is not touched, and to power a node off is to kill
its first process. Mode `loopback` (no root): two slurmd on one host name, told apart by their ports.

Every process of a cluster has SLURM_CONF=DIR/slurm.conf in its environment: that is how `stop` finds them,
also after a crash. A cluster that a program started ends when that program ends.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_COMMANDS = {
    "loopback": ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol"),
    "namespaces": ("unshare", "nsenter", "ip"),
}
_UNSHARE = (
    "unshare",
    "--net",
    "--uts",
    "--ipc",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
)
_CONTROLLER, _NETWORK = "controller", "10.77.0"
_PATIENCE_SECONDS = 60

_SLURM_CONF = """\
ClusterName=test
SlurmctldHost={controller}
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={directory}/state
SlurmctldPidFile={directory}/slurmctld.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdSpoolDir={directory}/%n/spool
SlurmdPidFile={directory}/%n/slurmd.pid
SlurmdLogFile={directory}/%n/slurmd.log
TmpFS={directory}/%n/tmp
AuthType=auth/munge
# A requeued job may run again when its credential has expired.
AuthInfo=socket={directory}/munge/socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
SlurmdTimeout=5
KillWait=10
MinJobAge=3600
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
GresTypes=gpu
{nodes}
PartitionName=batch Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=urgent Nodes=ALL PriorityTier=9 PreemptMode=OFF
"""
_PROBE = """
mount -t tmpfs tmpfs /dev/shm
ip link add name a type bridge
ip link add name b type veth peer name c
"""
_CONTROLLER_SCRIPT = """
hostname controller
mount -t tmpfs tmpfs /dev/shm
mount --bind "$1/hosts" /etc/hosts
ip link set lo up
ip link add bridge type bridge
ip address add "$2/24" dev bridge
ip link set bridge up
touch "$1/ready"
exec $3
"""
# The shell stays a node's first process: it collects processes that lost their parent, which slurmd does not.
_NODE_SCRIPT = """
hostname "$1"
mount -t tmpfs tmpfs /dev/shm
mount --bind "$2/hosts" /etc/hosts
ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
ip address add "$3/24" dev eth0
ip link set eth0 up
slurmd -D -N "$1"
"""


class ClusterError(Exception):
    """The machine cannot run a cluster, or the cluster did not do as it was told; the message says why."""


def reason_against(mode: str) -> str | None:
    """Why this machine cannot run a cluster in `mode`; None if it can."""
    needed = _COMMANDS["loopback"] + (_COMMANDS["namespaces"] if mode == "namespaces" else ())
    if missing := [name for name in needed if shutil.which(name, path=_PATH) is None]:
        return f"no {', '.join(missing)} here (Debian: apt-get install slurm-wlm munge iproute2)"
    if mode == "loopback":
        return None
    if os.getuid() != 0:
        return "namespaces need root"
    found = subprocess.run([*_UNSHARE, "sh", "-ec", _PROBE], capture_output=True, text=True)
    return f"no namespaces here: {found.stderr.strip()}" if found.returncode else None


def best_mode() -> str:
    """Namespaces where they can be had, else loopback. Raises ClusterError where neither can."""
    reasons = {mode: reason_against(mode) for mode in ("namespaces", "loopback")}
    for mode, reason in reasons.items():
        if reason is None:
            return mode
    raise ClusterError("; ".join(dict.fromkeys(filter(None, reasons.values()))))


class Cluster:
    """A controller and nodes n1, n2, with state and logs in `directory`."""

    def __init__(
        self, directory: Path, mode: str = "namespaces", nodes: int = 2, cpus: int = 4, gpus: int = 0
    ):
        self.directory, self.mode, self.cpus, self.gpus = directory.resolve(), mode, cpus, gpus
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.conf = self.directory / "slurm.conf"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH_", "SRUN_"))}
        self.environment = {**kept, "SLURM_CONF": str(self.conf), "PATH": _PATH}
        self._daemons: list[subprocess.Popen[bytes]] = []

    @classmethod
    def find(cls, directory: Path) -> Cluster:
        """The cluster that was started in `directory`. Raises ClusterError if there was none."""
        try:
            return cls(directory, (directory / "mode").read_text())
        except FileNotFoundError:
            raise ClusterError(f"{directory}: no cluster was started here") from None

    def start(self, detached: bool = False) -> None:
        """Start everything and wait until all nodes are idle; `detached`: outlive the calling program.

        Raises ClusterError with the ends of the logs.
        """
        if reason := reason_against(self.mode):
            raise ClusterError(reason)
        self.stop()
        try:
            self._write_files()
            self._hold(detached)
            self._start_munge()
            self._daemon("slurmctld", self.command("slurmctld", "-D"))
            for node in self.nodes:
                self.power_on(node)
            self.wait_idle()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process of the cluster, its jobs included. The directory stays, for its logs."""
        _kill_all(lambda: (pid for pid in self._processes() if pid != os.getpid()))
        for daemon in self._daemons:
            daemon.wait()
            if daemon.stdin:
                daemon.stdin.close()
        self._daemons.clear()

    def command(self, *command: object) -> list[str]:
        """How to spell a command so that it runs on the controller, in the present directory."""
        words = [str(word) for word in command]
        if self.mode == "loopback":
            return words
        inside = ["nsenter", "--target", self._first_process(_CONTROLLER), "--all"]
        return [*inside, "env", "-C", str(Path.cwd()), *words]

    def run(self, *command: object, **environment: str) -> str:
        """Run a command on the controller; its stdout. Raises ClusterError if it fails."""
        found = subprocess.run(
            self.command(*command), env={**self.environment, **environment}, capture_output=True, text=True
        )
        if found.returncode:
            raise ClusterError(f"{' '.join(map(str, command))}: {found.stderr.strip()}")
        return found.stdout

    def power_on(self, node: str) -> None:
        """Start a node; returns before Slurm knows of it."""
        if self.mode == "loopback":
            self._daemon(node, ["slurmd", "-D", "-N", node], SLURMD_NODENAME=node)
            return
        script = [
            *_UNSHARE,
            "sh",
            "-ec",
            _NODE_SCRIPT,
            "node",
            node,
            str(self.directory),
            self._address(node),
        ]
        self._daemon(node, self.command(*script), SLURMD_NODENAME=node)
        self._wait(lambda: self._find_first_process(node) is not None, f"{node} does not start")
        self._link(
            "add", f"to-{node}", "type", "veth", "peer", "name", "eth0", "netns", self._first_process(node)
        )
        self._link("set", f"to-{node}", "master", "bridge", "up")

    def power_off(self, node: str) -> None:
        """End a node at once, as a power cut does: it says goodbye to nobody."""
        if self.mode == "namespaces":
            self._link("delete", f"to-{node}")
        _kill_all(lambda: self._processes(f"SLURMD_NODENAME={node}"))

    def wait_idle(self) -> None:
        """Wait until Slurm has every node ready for a job."""

        def idle() -> bool:
            with suppress(ClusterError):  # the controller may not answer yet
                return self.run("sinfo", "-h", "-N", "-p", "batch", "-o", "%T").split() == ["idle"] * len(
                    self.nodes
                )
            return False

        self._wait(idle, "the nodes do not become idle")

    def host(self, node: str) -> str:
        """The host name that programs see on a node."""
        return node if self.mode == "namespaces" else socket.gethostname()

    def ranks(self, node: str, job: int) -> list[int]:
        """The tasks of a job's steps on a node, as this machine numbers processes; not the batch script."""
        marks = (f"SLURMD_NODENAME={node}", f"SLURM_JOB_ID={job}", "SLURM_STEP_ID=", "SLURM_PROCID=")
        return [pid for pid in self._processes(*marks) if "slurmstepd" not in _read(pid, "cmdline")]

    def _processes(self, *variables: str) -> Iterator[int]:
        """Processes of this cluster that also have these variables, or variables that start so."""
        wanted = [f"\0SLURM_CONF={self.conf}\0", *(f"\0{variable}" for variable in variables)]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                environment = f"\0{_read(int(entry.name), 'environ')}"
                if all(variable in environment for variable in wanted):
                    yield int(entry.name)

    def _first_process(self, name: str) -> str:
        """The first process of the controller or a node, as this machine numbers processes."""
        if (pid := self._find_first_process(name)) is None:
            raise ClusterError(f"{name} does not run")
        return str(pid)

    def _find_first_process(self, name: str) -> int | None:
        for pid in self._processes(f"SLURMD_NODENAME={name}"):
            numbers = [
                line.split()[1:] for line in _read(pid, "status").splitlines() if line.startswith("NSpid:")
            ]
            if numbers and len(numbers[0]) > 1 and numbers[0][-1] == "1":
                return pid
        return None

    def _link(self, *words: str) -> None:
        """Run `ip link` in the controller's network, but with this machine's process numbers."""
        command = ["nsenter", "--target", self._first_process(_CONTROLLER), "--net", "ip", "link", *words]
        subprocess.run(command, check=True, env=self.environment)

    def _address(self, name: str) -> str:
        return f"{_NETWORK}.{1 if name == _CONTROLLER else 11 + self.nodes.index(name)}"

    def _hold(self, detached: bool) -> None:
        """Start the process whose end ends the cluster: it reads a pipe that its owner's end closes."""
        waits = "sleep infinity" if detached else "cat"
        if self.mode == "namespaces":
            script = ["sh", "-ec", _CONTROLLER_SCRIPT, "controller", str(self.directory)]
            command = [*_UNSHARE, *script, self._address(_CONTROLLER), waits]
            self._daemon("hold", command, SLURMD_NODENAME=_CONTROLLER)
            self._wait((self.directory / "ready").exists, "the controller does not start")
        elif not detached:
            self._daemon("hold", [sys.executable, __file__, "stop", str(self.directory), "--after-stdin"])

    def _start_munge(self) -> None:
        directory = self.directory / "munge"
        files = [
            f"--{name}={directory}/{name}"
            for name in ("socket", "key-file", "log-file", "pid-file", "seed-file")
        ]
        self._daemon("munge/munged", self.command("munged", "--foreground", "--force", *files))
        self._wait((directory / "socket").exists, "munged does not start")

    def _daemon(self, name: str, command: Sequence[str], **environment: str) -> None:
        """Start a process that stays; its output goes to DIR/NAME.out, its stdin stays empty."""
        with (self.directory / f"{name}.out").open("ab") as out:
            self._daemons.append(subprocess.Popen(
                command, env={**self.environment, **environment}, start_new_session=True,
                stdin=subprocess.PIPE, stdout=out, stderr=out,
            ))  # fmt: skip

    def _wait(self, condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                logs = [path for kind in ("log", "out") for path in sorted(self.directory.rglob(f"*.{kind}"))]
                ends = [f"{log}:\n{log.read_text(errors='replace')[-1500:]}" for log in logs]
                raise ClusterError("\n".join([otherwise, *ends]))
            time.sleep(0.05)

    def _write_files(self) -> None:
        """The configuration of Slurm and munge, and the directories they need."""
        for name in (
            "munge",
            "state",
            *(f"{node}/{kind}" for node in self.nodes for kind in ("spool", "tmp")),
        ):
            shutil.rmtree(self.directory / name, ignore_errors=True)  # of the start before
            (self.directory / name).mkdir(parents=True)
        (self.directory / "ready").unlink(missing_ok=True)
        (self.directory / "mode").write_text(self.mode)
        key = self.directory / "munge" / "key-file"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        # The second form is how a socket of both IP versions knows its IPv4 peer: torch asks for its name.
        names = (_CONTROLLER, *self.nodes)
        hosts = [f"{form}{self._address(name)} {name}" for form in ("", "::ffff:") for name in names]
        (self.directory / "hosts").write_text("\n".join(["127.0.0.1 localhost", *hosts, ""]))
        gpus = [self.directory / f"gpu{number}" for number in range(self.gpus)]
        for gpu in gpus:  # Slurm hands out devices only; nothing computes on these
            gpu.unlink(missing_ok=True)
            os.mknod(gpu, 0o600 | 0o020000, os.makedev(1, 3))
        (self.directory / "gres.conf").write_text("".join(f"Name=gpu File={gpu}\n" for gpu in gpus))
        # No control groups are used, but a plugin for them is loaded, and that of version 2 wants systemd.
        (self.directory / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        self.conf.write_text(self._slurm_conf())

    def _slurm_conf(self) -> str:
        alone, here = self.mode == "namespaces", socket.gethostname()
        shape = f"CPUs={self.cpus} RealMemory=4000 State=UNKNOWN" + (
            f" Gres=gpu:{self.gpus}" if self.gpus else ""
        )
        ports = _free_ports(1 + len(self.nodes))
        nodes = [
            f"NodeName={node} NodeHostname={node if alone else here} "
            f"NodeAddr={self._address(node) if alone else '127.0.0.1'} Port={port} {shape}"
            for node, port in zip(self.nodes, ports[1:], strict=True)
        ]
        controller = f"{_CONTROLLER}({self._address(_CONTROLLER)})" if alone else f"{here}(127.0.0.1)"
        user = subprocess.check_output(["id", "-un"], text=True).strip()
        return _SLURM_CONF.format(
            controller=controller, port=ports[0], user=user, directory=self.directory, nodes="\n".join(nodes)
        )


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _read(pid: int, name: str) -> str:
    """A file of /proc/PID; empty if the process is gone or is not ours to read."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    return ""


def _kill_all(find: Callable[[], Iterator[int]]) -> None:
    """Kill processes until there are none."""
    deadline, killed = time.monotonic() + _PATIENCE_SECONDS, set[int]()
    while found := {*find(), *filter(_is_running, killed)}:  # one that is ending has no environment any more
        if time.monotonic() > deadline:
            raise ClusterError(f"processes that do not end: {found}")
        for pid in found - killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= found
        time.sleep(0.02)


def _is_running(pid: int) -> bool:
    status = _read(pid, "status")
    return bool(status) and "State:\tZ" not in status


def main() -> None:
    """The command line: see the head of this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    added = {name: actions.add_parser(name) for name in ("start", "run", "status", "stop")}
    for action in added.values():
        action.add_argument("directory", type=Path)
    added["start"].add_argument(
        "--mode", choices=["namespaces", "loopback"], help="if not given, the best there is"
    )
    added["start"].add_argument("--gpus", type=int, default=0, help="GPUs of each node; they compute nothing")
    added["run"].add_argument("command", nargs=argparse.REMAINDER)
    added["stop"].add_argument("--after-stdin", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        if given.action == "start":
            Cluster(given.directory, given.mode or best_mode(), gpus=given.gpus).start(detached=True)
            return
        cluster = Cluster.find(given.directory)
        if given.action == "stop":
            if given.after_stdin:
                sys.stdin.read()
            cluster.stop()
            return
        command = cluster.command(*(given.command if given.action == "run" else ["sinfo"]))
        os.execvpe(command[0], command, cluster.environment)
    except ClusterError as error:
        sys.exit(f"cluster: {error}")


if __name__ == "__main__":
    main()
