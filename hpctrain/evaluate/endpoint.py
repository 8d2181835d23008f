"""A model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hpctrain.errors import ConfigError, DataError
from hpctrain.evaluate.candidate import Answer, Sampling
from hpctrain.evaluate.models import ModelOptions
from hpctrain.generation.stops import find_end
from hpctrain.tasks.problem import Problem

TRIES = 5
AT_ONCE = 8
"""Requests in flight."""

_TRY_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT_SECONDS = 60.0
_FENCE = re.compile(r"```[\w+-]*\n(.*?)(?:```|\Z)", re.DOTALL)
_CONTINUE = (
    "You continue source files. Answer with the text that follows the given text, and with nothing else."
)
_FILL = (
    "You fill gaps in source files. Answer with the text that belongs in place of <GAP>, and nothing else."
)


class Endpoint:
    """Answers problems by requests to `<url>/completions`, or to `<url>/chat/completions`."""

    def __init__(self, url: str, options: ModelOptions, first_wait_seconds: float = 1.0) -> None:
        """Raises ConfigError if the key is not in the environment or the served model is in doubt."""
        self.name, self._url, self._options = url, url.rstrip("/"), options
        self._first_wait = first_wait_seconds
        self._key = _read_key(options.key_variable)
        self._model = options.served_model or self._only_model()
        self._tokens, self._seconds = 0, 0.0

    @property
    def spent(self) -> tuple[int, float]:
        """Tokens drawn so far, and the seconds that it took."""
        return self._tokens, self._seconds

    def answer(self, problems: Sequence[Problem], sampling: Sampling) -> list[list[Answer]]:
        """See Candidate. Raises DataError if the endpoint refuses a request or cannot be reached."""
        samples = sampling.samples if sampling.temperature > 0 else 1
        jobs = [(problem, sampling.seed + sample) for problem in problems for sample in range(samples)]
        before = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE, "endpoint") as pool:
            answers = list(pool.map(lambda job: self._answer(job[0], job[1], sampling), jobs))
        self._seconds += time.perf_counter() - before
        self._tokens += sum(answer.tokens for answer in answers)
        return [
            answers[place : place + samples] * (sampling.samples // samples)
            for place in range(0, len(answers), samples)
        ]

    def _answer(self, problem: Problem, seed: int, sampling: Sampling) -> Answer:
        body: dict[str, Any] = {
            "model": self._model, "max_tokens": sampling.max_tokens, "temperature": sampling.temperature,
            "top_p": sampling.top_p, "seed": seed,
        }  # fmt: skip
        if problem.stop == "line" and not self._options.chat:
            body["stop"] = ["\n"]
        body |= _messages(problem) if self._options.chat else _text(problem)
        reply = self._request("chat/completions" if self._options.chat else "completions", body)
        try:
            choice = reply["choices"][0]
            text = (choice["message"]["content"] if self._options.chat else choice["text"]) or ""
            tokens = int((reply.get("usage") or {}).get("completion_tokens") or 0)
        except (KeyError, IndexError, TypeError, ValueError):
            raise DataError(f"{self.name}: not the answer of such an endpoint: {str(reply)[:300]}") from None
        text = _bare(text, problem) if self._options.chat else text
        text += "\n" if "stop" in body and choice.get("finish_reason") == "stop" else ""
        end = find_end(problem.stop, problem.language, problem.prompt.encode(), text.encode())
        cut = text.encode()[:end].decode()
        return Answer(cut, choice.get("finish_reason") == "length" and end is None, tokens)

    def _only_model(self) -> str:
        """The one model that is served."""
        reply = self._request("models", None)
        found = [str(each.get("id")) for each in reply.get("data") or ()]
        if len(found) != 1:
            names = ", ".join(found) or "none"
            raise ConfigError(f"--served-model: {self.name} serves {names}; name one")
        return found[0]

    def _request(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """The reply to one request, tried again where that may help."""
        wait = self._first_wait
        for attempt in range(1, TRIES + 1):
            try:
                return self._send(path, body)
            except urllib.error.HTTPError as error:
                problem, asked = self._refusal(error), _retry_after(error)
                if error.code not in _TRY_AGAIN:
                    raise problem from None
            except (urllib.error.URLError, OSError) as error:
                reason = getattr(error, "reason", error)
                slow = isinstance(reason, socket.timeout)
                what = f"no answer within {self._options.timeout_seconds:g} s" if slow else str(reason)
                problem, asked = DataError(f"{self.name}: {what}"), None
            except ValueError as error:
                raise DataError(f"{self.name}: not JSON: {error}") from None
            if attempt == TRIES:
                break
            pause = asked if asked is not None else wait * random.uniform(0.75, 1.25)
            time.sleep(min(pause, _LONGEST_WAIT_SECONDS))
            wait *= 2
        raise DataError(f"{problem} (tried {TRIES} times)")

    def _send(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self._url}/{path}", data, headers)
        with urllib.request.urlopen(request, timeout=self._options.timeout_seconds) as reply:
            found = json.load(reply)
        if not isinstance(found, dict):
            raise ValueError("expected an object")
        return found

    def _refusal(self, error: urllib.error.HTTPError) -> ConfigError | DataError:
        """What a status of HTTP means to the user; the key is never shown."""
        said = error.read(2000).decode("utf-8", "replace").strip()
        if self._key:
            said = said.replace(self._key, "***")
        if error.code in (401, 403):
            where = f"the key in {self._options.key_variable}" if self._key else "a request without a key"
            return ConfigError(f"{self.name}: refuses {where} ({error.code}); name another by --key-from")
        return DataError(f"{self.name}: {error.code} {error.reason}: {said}")


def _read_key(variable: str) -> str:
    """The key in an environment variable; none where no variable is named."""
    if not variable:
        return ""
    if not os.environ.get(variable):
        raise ConfigError(f"--key-from: the environment variable {variable} is not set, or empty")
    return os.environ[variable].strip()


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    """The seconds that the endpoint asks to wait."""
    text = error.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None


def _text(problem: Problem) -> dict[str, Any]:
    gap = {} if problem.suffix is None else {"suffix": problem.suffix}
    return {"prompt": problem.prompt, **gap}


def _messages(problem: Problem) -> dict[str, Any]:
    gap = "" if problem.suffix is None else f"<GAP>{problem.suffix}"
    system = _CONTINUE if problem.suffix is None else _FILL
    asked = f"File {problem.path}:\n\n{problem.prompt}{gap}"
    return {"messages": [{"role": "system", "content": system}, {"role": "user", "content": asked}]}


def _bare(text: str, problem: Problem) -> str:
    """The code in a chat's answer: that of its first fence if it has one, without the prompt repeated."""
    fenced = _FENCE.search(text)
    code = fenced[1] if fenced else text
    return code[len(problem.prompt) :] if code.startswith(problem.prompt) else code
