"""How a conversation stands in the text that a model reads: the same in training and in generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from pydantic import Field

from hpctrain.config import Section

Template = Literal["chat", "plain"]
TEMPLATES: tuple[Template, ...] = get_args(Template)

_HEADS = {"system": "### System", "user": "### Request", "assistant": "### Response"}


class Message(Section):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


def render(messages: Sequence[Message]) -> str:
    """The text before the response to these messages, as `chat` has it.

    Each message follows a line with its role, and has a line end after it. The response then ends with the
    tokenizer's end mark.
    """
    turns = (f"{_HEADS[message.role]}\n{message.content.rstrip()}\n" for message in messages)
    return "".join([*turns, f"{_HEADS['assistant']}\n"])


def render_request(request: str, template: Template) -> str:
    """The text before the response to one request: of `plain` the request as it is."""
    return request if template == "plain" else render([Message(role="user", content=request)])
