"""The chat template of a model that was trained on conversations, as downstream tools read it."""

from __future__ import annotations

import json

from hpctrain.tasks.template import Message, render
from hpctrain.tokenizer.codec import SPECIAL_NAMES, Tokenizer, language_piece, special_piece
from hpctrain.tokenizer.foreign import ForeignTokenizer

_ROLES = ("system", "user", "assistant")
_TEMPLATE = """\
{{%- set heads = {heads} -%}}
{{{{ {document} ~ "<language:" ~ (language | default({language})) ~ ">" }}}}
{{{{ {file_name} ~ (path | default({path})) ~ {content} }}}}
{{%- for message in messages -%}}
{{{{ heads[message["role"]] ~ message["content"].rstrip() ~ "\\n" }}}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}{{{{ {response} }}}}{{%- endif -%}}
"""


def chat_template(tokenizer: Tokenizer) -> str:
    """The Jinja template of `chat`, the head of a document included.

    It takes `language` and `path` besides the messages; by default the first language and no path, as in
    training.
    """
    pieces = control_pieces(tokenizer)
    response = render([])
    heads = {
        role: render([Message(role=role, content="@")]).removesuffix(response).partition("@")[0]
        for role in _ROLES
    }
    return (
        _TEMPLATE.format(
            heads=json.dumps(heads),
            response=json.dumps(response),
            language=json.dumps(next(iter(tokenizer.languages))),
            path=json.dumps(""),
            **{name: json.dumps(pieces[name]) for name in ("document", "file_name", "content")},
        )
        .replace("-%}\n", "-%}")
        .replace("}}\n", "}}")
    )


def control_pieces(tokenizer: Tokenizer) -> dict[str, str]:
    """The text of each control token in the exported tokenizer, by our name."""
    if not isinstance(tokenizer, ForeignTokenizer):
        return {name: special_piece(name) for name in SPECIAL_NAMES}
    texts = {token["id"]: token["content"] for token in json.loads(tokenizer.json)["added_tokens"]}
    return {name: texts[getattr(tokenizer.special, name)] for name in SPECIAL_NAMES}


def document_head(tokenizer: Tokenizer, language: str, path: str) -> str:
    """What stands before the text of a document, as downstream tools are given it."""
    pieces = control_pieces(tokenizer)
    return f"{pieces['document']}{language_piece(language)}{pieces['file_name']}{path}{pieces['content']}"
