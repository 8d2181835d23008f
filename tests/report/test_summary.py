"""The numbers of a run, from directories that the run's own writers wrote."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BATCH_TOKENS, FINAL_BITS, FakeRun, NewRun

from hpctrain.errors import DataError
from hpctrain.manifest import commit
from hpctrain.report.record import find_legs, read_run
from hpctrain.report.summary import print_summary, summarize
from hpctrain.train.metrics import METRICS_NAME, JsonLines


def test_numbers_of_a_finished_run(restarted: FakeRun) -> None:
    summary = summarize(restarted.directory)
    assert (summary.state, summary.step, summary.steps) == ("finished", 400, 400)
    assert (summary.parameters, summary.precision, summary.device) == (39_912_448, "bf16", "cpu")
    assert (summary.ranks, summary.layout) == (4, "ZeRO 2")
    assert summary.first_loss == restarted.metric(1)["loss"]
    assert summary.last_loss == restarted.metric(400)["loss"]
    assert summary.tokens_seen == 400 * BATCH_TOKENS
    assert summary.evaluated_step == 400
    assert summary.versions["deepspeed"] == "0.19.8"


def test_throughput_is_that_of_the_latest_layout(restarted: FakeRun) -> None:
    expected = statistics.median(restarted.metric(step)["tokens_per_second"] for step in range(201, 401))
    assert summarize(restarted.directory).tokens_per_second == expected


def test_a_run_that_did_not_tell_of_waiting_has_no_share(restarted: FakeRun) -> None:
    summary = summarize(restarted.directory)
    assert (summary.mfu, summary.mfu_causal, summary.data_wait_share, summary.profile) == (None,) * 4


def test_efficiency_is_that_of_the_latest_layout(new_run: NewRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = new_run()
    run.start()
    lines = JsonLines(run.directory / METRICS_NAME)
    run.event("save", 0)
    numbers = {"mfu": 0.1, "mfu_causal": 0.08, "data_wait_share": 0.5}
    for step in (1, 2):
        lines.append(run.metric(step) | numbers)
    run.event("save", 2)
    run.ranks = 4
    run.start()
    run.restore(2)
    for step, share, seconds, mfu in ((3, 0.0, 1.0, 0.40), (4, 0.03, 3.0, 0.42), (5, 0.0, 5.0, 0.41)):
        told = {"mfu": mfu, "mfu_causal": mfu - 0.05, "data_wait_share": share, "step_seconds": seconds}
        lines.append(run.metric(step) | told)
    lines.close()
    summary = summarize(run.directory)
    assert (summary.mfu, summary.mfu_causal) == (0.41, 0.36)
    assert summary.data_wait_share == pytest.approx(0.01)
    print_summary(run.directory)
    shown = "MFU 41.0% (36.0% with causal attention); 1.00% of the time waiting for data"
    assert shown in capsys.readouterr().out


def test_languages_join_counts_and_evaluations(restarted: FakeRun) -> None:
    rows = {row.language: row for row in summarize(restarted.directory).languages}
    assert list(rows) == sorted(FINAL_BITS)
    row = rows["fortran-free"]
    assert (row.documents, row.bytes, row.tokens) == (7_105, 7_105 * 8_900, 7_105 * 2_700)
    assert row.validation_documents == 71
    assert row.bits_per_byte_before == restarted.evaluation(0)["bits_per_byte_by_language"]["fortran-free"]
    assert row.bits_per_byte_after == restarted.evaluation(400)["bits_per_byte_by_language"]["fortran-free"]
    assert row.loss_after == restarted.evaluation(400)["loss_by_language"]["fortran-free"]


def test_a_restart_tells_what_it_repeated(restarted: FakeRun) -> None:
    summary = summarize(restarted.directory)
    (restart,) = summary.restarts
    assert (restart.step, restart.discarded_steps, restart.ranks) == (200, 17, 4)
    assert [step for step, _ in find_legs(read_run(restarted.directory))] == [0, 200]
    assert (summary.repeated_steps, summary.repeats_saw_same_data) == (17, True)


def test_other_data_after_a_restart_is_seen(restarted: FakeRun) -> None:
    lines = JsonLines(restarted.directory / METRICS_NAME)
    lines.append(restarted.metric(400) | {"batch_digest": "f" * 16})
    lines.close()
    assert summarize(restarted.directory).repeats_saw_same_data is False


def test_restarts_without_loss_of_work_and_without_a_step(new_run: NewRun) -> None:
    run = new_run()
    run.start()
    run.train(0, 50)
    run.event("stop", 50, reason="asked to by a signal")
    run.start()  # was killed before it restored
    run.start()
    run.restore(50)
    run.train(51, 70)
    run.start()
    run.restore(50)  # was killed before its first step
    run.start()
    run.restore(50)
    run.train(51, 53)
    restarts = summarize(run.directory).restarts
    assert [(restart.step, restart.discarded_steps) for restart in restarts] == [
        (None, 0), (50, 0), (50, 20), (50, 0),
    ]  # fmt: skip
    assert [step for step, _ in find_legs(read_run(run.directory))] == [0]  # one layout throughout


def test_steps_that_a_restart_gave_up_are_not_the_run(new_run: NewRun) -> None:
    run = new_run()
    run.start()
    run.train(0, 117)
    run.start()
    run.restore(100)
    run.train(101, 103)
    summary = summarize(run.directory)
    assert (summary.step, summary.tokens_seen) == (103, 103 * BATCH_TOKENS)
    assert summary.last_loss == run.metric(103)["loss"]


def test_beginning_anew_is_a_restart_from_step_0(new_run: NewRun) -> None:
    run = new_run()
    for last in (30, 10):
        run.start()
        run.train(0, last)
    (restart,) = summarize(run.directory).restarts
    assert (restart.step, restart.discarded_steps) == (0, 30)


def test_states(new_run: NewRun) -> None:
    run = new_run()
    assert summarize(run.directory).state == "interrupted"
    run.start()
    run.train(0, 60)
    assert summarize(run.directory).state == "interrupted"
    run.event("stop", 60, reason="asked to by a signal")
    assert summarize(run.directory).state_text.startswith("stopped at step 60 of 400")
    run.start()
    run.event("fault", 61, loss="nan", grad_norm="inf")
    summary = summarize(run.directory)
    assert summary.state == "failed"
    assert "loss nan" in summary.state_text


def test_an_imported_model_is_no_interrupted_run(new_run: NewRun) -> None:
    run = new_run("imported")
    (run.directory / "import.json").write_text("{}")
    summary = summarize(run.directory)
    assert (summary.state, summary.state_text) == ("finished", "imported, not trained here")


def test_a_run_whose_job_lives_is_running(new_run: NewRun) -> None:
    run = new_run()
    holder = (
        "import pathlib, sys\n"
        "from hpctrain.parallel.world import World\n"
        "from hpctrain.train.rundir import hold\n"
        "with hold(pathlib.Path(sys.argv[1]), World(0, 1, 0, '', 0, '')): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, run.directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "held\n"
        assert summarize(run.directory).state == "running"
        job.communicate("\n")
    assert summarize(run.directory).state == "interrupted"


def test_a_young_run_has_no_numbers_yet(new_run: NewRun) -> None:
    summary = summarize(new_run().directory)
    assert (summary.step, summary.last_loss, summary.languages, summary.checkpoint) == (0, None, (), None)


def test_a_run_before_its_first_step_is_evaluated_once(new_run: NewRun) -> None:
    run = new_run()
    run.start()
    run.train(0, 0)
    summary = summarize(run.directory)
    assert summary.evaluated_step == 0
    assert summary.languages[0].bits_per_byte_before is not None
    assert summary.languages[0].bits_per_byte_after is None


def test_missing_shards_are_told(new_run: NewRun) -> None:
    run = new_run()
    run.start()
    run.train(0, 40)
    summary = summarize(run.directory)
    assert summary.shards_problem is not None
    assert "no-such-shards" in summary.shards_problem
    assert summary.languages[0].documents is None


def test_shards_that_were_replaced_are_not_counted(new_run: NewRun, shards: Path) -> None:
    run = new_run(shards=shards)
    directory = run.directory / "checkpoints" / "step-00000040"
    directory.mkdir(parents=True)
    commit(directory, "checkpoint", 1, {"data.shards": "another"}, {"step": 40}, {})
    assert "no longer the shards" in str(summarize(run.directory).shards_problem)


def test_places(restarted: FakeRun) -> None:
    restarted.event("export", 400, path="exported/hf")
    (restarted.directory / "checkpoints" / "step-00000999").mkdir()  # not committed
    (restarted.directory / "report.html").touch()
    summary = summarize(restarted.directory)
    assert summary.checkpoint == str(restarted.directory / "checkpoints" / "step-00000400")
    assert summary.export == "exported/hf"
    assert summary.report == str(restarted.directory / "report.html")
    assert summary.state == "finished"


def test_as_dict_is_json(restarted: FakeRun) -> None:
    tree = json.loads(json.dumps(summarize(restarted.directory).as_dict()))
    assert tree["restarts"][0]["step"] == 200
    assert tree["languages"][0]["language"] == "c"


@pytest.mark.parametrize("make", [True, False])
def test_not_a_run(tmp_path: Path, make: bool) -> None:
    directory = tmp_path / "elsewhere"
    if make:
        directory.mkdir()
    with pytest.raises(DataError, match="elsewhere"):
        summarize(directory)


def test_damaged_config_is_a_data_error(new_run: NewRun) -> None:
    run = new_run()
    (run.directory / "run.yaml").write_text("run: [", encoding="utf-8")
    with pytest.raises(DataError, match=r"run\.yaml"):
        summarize(run.directory)


def test_the_screen_fits(restarted: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(12):
        restarted.start()
        restarted.restore(400)
    print_summary(restarted.directory)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    for expected in (
        "hpc-40m",
        "39.9M parameters",
        "fortran-free",
        "\N{MINUS SIGN}69.3%",
        "17 steps done again: the same",
    ):
        assert expected in text


def test_the_screen_passes_on_no_control_characters(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    print_summary(new_run(name="[red]\x1b[31mred").directory)
    assert "[red]\N{REPLACEMENT CHARACTER}[31mred" in capsys.readouterr().out


def test_reading_a_run_needs_no_torch() -> None:
    program = "import sys, hpctrain.report.summary, hpctrain.report.screen, hpctrain.report.page; "
    check = "sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib.pyplot')))"
    assert subprocess.run([sys.executable, "-c", program + check], check=False).returncode == 0
