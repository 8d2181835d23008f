"""Candidates: a run, its export by transformers, and an endpoint, which here is a real server of HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from runner import Runner

from hpctrain.errors import ConfigError, DataError
from hpctrain.evaluate.candidate import Sampling
from hpctrain.evaluate.endpoint import TRIES, Endpoint
from hpctrain.evaluate.executed import ask
from hpctrain.evaluate.models import ModelOptions, RunModel, open_model, text_prompt
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.generation.generate import Request, generate
from hpctrain.generation.text import prompt_ids
from hpctrain.tasks.problem import Problem

GREEDY = Sampling(max_tokens=12)


def problem(name: str = "p", **changes: Any) -> Problem:
    given: dict[str, Any] = {
        "id": name, "task": "fim", "language": "c", "programming_model": "serial", "path": "a.c",
        "prompt": "int main(void) {\n", "reference": "",
    }  # fmt: skip
    return Problem(**{**given, **changes})


PROBLEMS = [
    problem("c"),
    problem("f", language="fortran-free", path="s.f90", prompt="subroutine s(x)\n  real :: x"),
    problem("gap", prompt="for (int i = 0; ", suffix="i++) {}\n"),
    problem("line", prompt="#include <", stop="line"),
]


@pytest.fixture(scope="module")
def run(finished: Runner) -> RunModel:
    found = open_model(str(finished.directory / "run"), ModelOptions(device="cpu"))
    assert isinstance(found, RunModel)
    return found


def test_a_run_answers_as_its_model(run: RunModel) -> None:
    answers = run.answer(PROBLEMS, GREEDY)
    trained = run.trained
    for each, [answer] in zip(PROBLEMS[:3], answers[:3], strict=True):
        ids = prompt_ids(trained.tokenizer, text_prompt(each))
        [known] = generate(
            trained.model, [Request(ids, 12)], context=64, end=trained.tokenizer.special.end
        )  # fmt: skip
        assert answer.text.encode() == trained.tokenizer.decode(known.ids).decode(errors="replace").encode()
        assert answer.tokens == len(known.ids)
        assert answer.is_cut == (known.ended_by != "end")
    assert run.spent[0] >= sum(answer.tokens for [answer] in answers)
    assert run.spent[1] > 0


def test_samples_differ_but_greedy_ones_do_not(run: RunModel) -> None:
    [drawn] = run.answer(PROBLEMS[:1], Sampling(samples=6, temperature=1.0, max_tokens=12))
    assert len({answer.text for answer in drawn}) > 3
    [[first, second]] = run.answer(PROBLEMS[:1], Sampling(samples=2, max_tokens=12))
    assert first == second


def test_a_prompt_longer_than_the_context_is_named(run: RunModel) -> None:
    long = problem("long", prompt="int x = 0;\n" * 100)
    with pytest.raises(DataError, match=r"a.c: the prompt has \d+ tokens.* context of 64"):
        run.answer([long], GREEDY)
    skipped: dict[str, str] = {}
    answers = ask(run, [*PROBLEMS, long], SuiteOptions(GREEDY), skipped)
    assert [answers[each.id] for each in PROBLEMS] == run.answer(PROBLEMS, GREEDY)
    assert "context of 64" in skipped.pop("long")
    assert not skipped


def test_an_export_answers_as_its_run(run: RunModel, finished: Runner, tmp_path: Path) -> None:
    finished.run("export", finished.directory / "run", "--out", tmp_path / "export")
    export = open_model(str(tmp_path / "export"), ModelOptions(device="cpu", rows=2))
    assert not isinstance(export, RunModel)
    theirs, ours = export.answer(PROBLEMS, GREEDY), run.answer(PROBLEMS, GREEDY)
    assert [[each.text for each in answers] for answers in theirs] == [
        [each.text for each in answers] for answers in ours
    ]
    [drawn] = export.answer(PROBLEMS[:1], Sampling(samples=4, temperature=1.0, max_tokens=12))
    assert len({answer.text for answer in drawn}) > 2
    with pytest.raises(DataError, match=r"long: a prompt of .* context of 64"):
        export.answer([problem("long", prompt="int x = 0;\n" * 100)], GREEDY)


def test_a_directory_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path}: not a run"):
        open_model(str(tmp_path), ModelOptions())
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="transformers cannot load it"):
        open_model(str(tmp_path), ModelOptions())


Reply = Callable[[str, dict[str, Any], dict[str, str]], tuple[int, Any]]


class Server:
    """An endpoint that answers as `reply` says: (path, body, headers) -> (status, JSON)."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.reply: Reply = lambda path, body, headers: (200, completion(" x;"))
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, body: dict[str, Any]) -> None:
                outer.seen.append((self.path, body, dict(self.headers)))
                status, content = outer.reply(self.path, body, dict(self.headers))
                text = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def do_GET(self) -> None:
                self.answer({})

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


def completion(text: str, reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"text": text, "finish_reason": reason}], "usage": {"completion_tokens": 5}}


def message(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def endpoint(server: Server, **options: Any) -> Endpoint:
    return Endpoint(server.url, ModelOptions(**{"served_model": "m", **options}), first_wait_seconds=0.01)


def test_completions(server: Server) -> None:
    server.reply = lambda path, body, headers: (200, completion(f" {body['prompt'][:3]}", "length"))
    answers = endpoint(server).answer(PROBLEMS, Sampling(max_tokens=7, seed=3))
    assert [[each.text for each in drawn] for drawn in answers] == [[" int"], [" sub"], [" for"], [" #in"]]
    assert answers[0][0].is_cut
    assert answers[0][0].tokens == 5
    bodies = {body["prompt"]: body for path, body, _ in server.seen if path == "/v1/completions"}
    asked = bodies[PROBLEMS[2].prompt]
    assert (asked["model"], asked["max_tokens"], asked["temperature"], asked["seed"]) == ("m", 7, 0.0, 3)
    assert asked["suffix"] == "i++) {}\n"
    assert bodies[PROBLEMS[3].prompt]["stop"] == ["\n"]


def test_several_samples_are_several_requests_with_seeds_of_their_own(server: Server) -> None:
    server.reply = lambda path, body, headers: (200, completion(str(body["seed"])))
    sampling = Sampling(samples=3, temperature=0.8, seed=10)
    [drawn] = endpoint(server).answer(PROBLEMS[:1], sampling)
    assert [answer.text for answer in drawn] == ["10", "11", "12"]


def test_chat_answers_are_bare_code(server: Server) -> None:
    said = "Here you are:\n```c\nint main(void) {\n  return 0;\n}\nint more;\n```\nI hope it helps."
    server.reply = lambda path, body, headers: (200, message(said))
    asked = problem(stop="function")
    [[answer]] = endpoint(server, chat=True).answer([asked], GREEDY)
    assert answer.text == "  return 0;\n}"
    path, body, _ = server.seen[0]
    assert path == "/v1/chat/completions"
    assert body["messages"][1]["content"].endswith(asked.prompt)


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.reply = lambda *_: (503, {}) if len(server.seen) < 3 else (200, completion(" y;"))
    [[answer]] = endpoint(server).answer(PROBLEMS[:1], GREEDY)
    assert answer.text == " y;"
    assert len(server.seen) == 3


def test_a_server_that_stays_busy_is_given_up(server: Server) -> None:
    server.reply = lambda *_: (429, {"error": "slow down"})
    with pytest.raises(DataError, match=rf"429 .*slow down.*\(tried {TRIES} times\)"):
        endpoint(server).answer(PROBLEMS[:1], GREEDY)
    assert len(server.seen) == TRIES


def test_the_key_comes_from_the_environment_and_is_never_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="H6_KEY is not set"):
        endpoint(server, key_variable="H6_KEY")
    monkeypatch.setenv("H6_KEY", "very-secret")
    endpoint(server, key_variable="H6_KEY").answer(PROBLEMS[:1], GREEDY)
    assert server.seen[0][2]["Authorization"] == "Bearer very-secret"
    server.reply = lambda *_: (400, {"error": "bad key very-secret"})
    with pytest.raises(DataError) as told:
        endpoint(server, key_variable="H6_KEY").answer(PROBLEMS[:1], GREEDY)
    assert "very-secret" not in str(told.value)
    server.reply = lambda *_: (401, {})
    with pytest.raises(ConfigError, match="refuses the key in H6_KEY"):
        endpoint(server, key_variable="H6_KEY").answer(PROBLEMS[:1], GREEDY)


def test_the_served_model_is_found_or_asked_for(server: Server) -> None:
    server.reply = lambda path, *_: (200, {"data": [{"id": "one"}]} if "models" in path else completion("z"))
    endpoint(server, served_model="").answer(PROBLEMS[:1], GREEDY)
    assert server.seen[-1][1]["model"] == "one"
    server.reply = lambda *_: (200, {"data": [{"id": "one"}, {"id": "two"}]})
    with pytest.raises(ConfigError, match=r"--served-model: .* serves one, two"):
        endpoint(server, served_model="")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((200, {"choices": []}), "not the answer of such an endpoint"),
        ((200, b"<html>"), "not JSON"),
        ((404, {"error": "no such model"}), "404 .*no such model"),
    ],
)
def test_what_is_no_answer_is_said(server: Server, reply: tuple[int, Any], words: str) -> None:
    server.reply = lambda *_: reply
    with pytest.raises(DataError, match=words):
        endpoint(server).answer(PROBLEMS[:1], GREEDY)


def test_a_server_that_does_not_answer_in_time_or_is_not_there(server: Server) -> None:
    gone = threading.Event()

    def hang(*_: object) -> tuple[int, Any]:
        gone.wait(10)
        return 200, completion("late")

    server.reply = hang
    with pytest.raises(DataError, match=r"no answer within 0.05 s \(tried"):
        endpoint(server, timeout_seconds=0.05).answer(PROBLEMS[:1], GREEDY)
    gone.set()
    with pytest.raises(DataError, match="refused"):
        Endpoint("http://127.0.0.1:9/v1", ModelOptions(served_model="m"), 0.01).answer(PROBLEMS[:1], GREEDY)
