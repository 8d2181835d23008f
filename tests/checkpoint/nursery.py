"""Forks jobs of real ranks from one process that has imported everything: a job costs a second, not ten.

Reads a JSON line a job from stdin: ranks, what (the name of a function below), options. Answers with a line:
the exit code of each rank (negative: the signal; none if the whole job was killed) and what rank 0 returned.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["DS_ACCELERATOR"] = "cpu"
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no pool of threads before a fork
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import deepspeed.runtime.zero.muon.original_muon  # noqa: F401 - what an engine imports late, seconds of it
import torch
import torch._dynamo
from checkpoint.faults import install

from hpctrain.checkpoint.diff import verified
from hpctrain.checkpoint.format import RunState
from hpctrain.checkpoint.fragments import fragment_tensors
from hpctrain.checkpoint.restore import FragmentFiles
from hpctrain.checkpoint.save import Saver
from hpctrain.config import load_config
from hpctrain.engine.fragments import owned_fragments
from hpctrain.errors import HpctrainError
from hpctrain.parallel.process import process_group
from hpctrain.parallel.topology import Topology
from hpctrain.parallel.world import World
from hpctrain.shards.reader import read_shards_manifest
from hpctrain.train.config import RunConfig
from hpctrain.train.data import open_data
from hpctrain.train.run import build, train


def run_training(world: World, options: dict[str, Any]) -> None:
    """`hpctrain train`, as one rank."""
    train(load_config(Path(options["config"]), options.get("overrides", []), RunConfig), world)


def train_while_writing(world: World, options: dict[str, Any]) -> dict[str, Any]:
    """Begin a save whose writing is held up, train on, let it be written; compare with what was copied."""
    config = load_config(Path(options["config"]), options.get("overrides", []), RunConfig)
    shards = read_shards_manifest(config.data.shards)
    topology = Topology(world.size, world.rank, config.parallel.pipeline_stages)
    told: list[Any] = []
    with process_group(world) as device:
        data = open_data(config, shards, topology, verify=False)
        engine = build(config, shards, topology, device)
        steps = data.loader.steps(0, 5)
        for _ in range(2):
            engine.train_step(next(steps).micro_batches, 1e-3)
        with Saver(engine, config.run.dir, config.checkpoint, {}, told.append) as saver:
            for step in (2, 4):  # the second save reuses the buffer of the first
                before = owned_state(engine)
                saver.begin(RunState(step=step, samples=0, tokens=0))
                held_up = not saver.pending.outcome.done()
                if step == 2:
                    for _ in range(2):
                        engine.train_step(next(steps).micro_batches, 1e-3)
                changed = any(not torch.equal(before[key], now) for key, now in owned_state(engine).items())
                saver.wait()
                equal = equals(before, config.run.dir / f"step-{step:08d}")
                verdict = {"held_up": held_up, "changed": changed, "equal": equal}
                assert verdict == {"held_up": True, "changed": step == 2, "equal": True}, (step, verdict)
    return {"told": [each.step for each in told], "blocked": [each.blocked_seconds for each in told]}


def owned_state(engine: Any) -> dict[tuple[str, str, int], torch.Tensor]:
    """Copies of every tensor that this rank saves."""
    return {
        (fragment.parameter, kind, fragment.start): tensor.clone()
        for fragment in owned_fragments(engine)
        for kind, tensor in fragment_tensors(engine, fragment).items()
    }


def equals(state: dict[tuple[str, str, int], torch.Tensor], directory: Path) -> bool:
    """Whether a checkpoint holds exactly these tensors."""
    with FragmentFiles(verified(directory)) as files:
        for (parameter, kind, start), tensor in state.items():
            saved = torch.empty_like(tensor)
            files.read_into(saved, parameter, kind, start)
            if not torch.equal(saved, tensor):
                return False
    return True


def main() -> None:
    """Fork the jobs that come over stdin, one after the other."""
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        with tempfile.TemporaryDirectory() as place:
            leader = os.fork()
            if leader == 0:
                os.setsid()
                lead(job, Path(place))
            _, status = os.waitpid(leader, 0)
            reap(leader)
            answer = {"codes": None, "killed": os.WIFSIGNALED(status)}
            for file in Path(place).glob("*.json"):
                answer[file.stem] = json.loads(file.read_text())
            answer["errors"] = "".join(file.read_text() for file in sorted(Path(place).glob("*.err")))
            print(json.dumps(answer), flush=True)


def lead(job: dict[str, Any], place: Path) -> None:
    """Fork the ranks of a job and note how each ended; if one fails, the others have ten seconds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = {}
    for rank in range(job["ranks"]):
        child = os.fork()
        if child == 0:
            be_rank(World(rank, job["ranks"], rank, "127.0.0.1", port, ""), job, place)
        ranks[child] = rank
    codes, deadline = [0] * job["ranks"], time.monotonic() + 60
    while ranks:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            codes[ranks.pop(child)] = os.waitstatus_to_exitcode(status)
            if os.waitstatus_to_exitcode(status) not in (0, 75):
                deadline = min(deadline, time.monotonic() + 10)
        elif time.monotonic() > deadline:
            for other in ranks:
                os.kill(other, signal.SIGKILL)
        time.sleep(0.01)
    (place / "codes.json").write_text(json.dumps(codes))
    os._exit(0)


def be_rank(world: World, job: dict[str, Any], place: Path) -> None:
    """One rank of a job; never returns."""
    code, streams = 0, (place / f"{world.rank}.err").open("w")
    os.dup2(streams.fileno(), 1)
    os.dup2(streams.fileno(), 2)
    torch.set_num_threads(1)
    try:
        if fault := job["options"].get("fault"):
            install(fault, world.rank)
        result = globals()[job["what"]](world, job["options"])
        if world.rank == 0:
            (place / "result.json").write_text(json.dumps(result))
    except HpctrainError as error:
        code = error.exit_code
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    except BaseException:  # noqa: BLE001 - a rank must not fall back into its parent's code
        code = 1
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def reap(group: int) -> None:
    """Make sure that no rank of a job is left."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    main()
