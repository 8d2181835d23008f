"""Secrets and persons: keys, tokens, passwords and e-mail addresses give way to placeholders.

`detect-secrets` was measured and not taken: it names lines, not bytes, hashes what it found, knows no
addresses, and reads a quarter of a megabyte a second. Here everything hangs on a rare literal (a prefix, an
`@`, a word before an assignment) that is looked for first, so that code without one costs a few searches.

Scrubbing is idempotent by construction: a match that holds a placeholder is refused, and edits are made until
none is left. Names in copyright notices stay, for licences ask for them; addresses in them do not.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from pydantic import Field

from hpctrain.config import Section
from hpctrain.corpus.secret_kinds import KINDS, has_marks_of_a_placeholder, is_random

SECRET_PLACEHOLDER = b"REDACTED"
EMAIL_PLACEHOLDER = b"name@example.org"


class SecretsConfig(Section):
    """What is replaced in kept files."""

    scrub: bool = Field(True)
    """Whether keys, tokens and passwords are replaced by `REDACTED`."""
    scrub_emails: bool = Field(True)
    """Whether addresses of persons are replaced by `name@example.org`; lists and roles (`bugs@`) stay."""


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """Bytes to be replaced."""

    start: int
    stop: int
    kind: str
    placeholder: bytes


Finder = Callable[[bytes], Iterator[Edit]]


def scrub(content: bytes, config: SecretsConfig | None = None) -> tuple[bytes, Counter[str]]:
    """The content with secrets and persons' addresses replaced, and how many of each kind.

    Bytes outside of what was found are untouched; scrubbing what is returned changes and counts nothing.
    """
    config = config or SecretsConfig()
    finders: list[Finder] = [*(_SECRETS if config.scrub else ()), *(_PERSONS if config.scrub_emails else ())]
    counts: Counter[str] = Counter()
    while edits := _apart(chain.from_iterable(finder(content) for finder in finders)):
        counts.update(edit.kind for edit in edits)
        content = _apply(content, edits)
    return content, counts


def _apart(edits: Iterator[Edit]) -> list[Edit]:
    """The edits in order, those left out that begin inside one before them."""
    kept: list[Edit] = []
    for edit in sorted(edits, key=lambda edit: (edit.start, -edit.stop, edit.kind)):
        if not kept or edit.start >= kept[-1].stop:
            kept.append(edit)
    return kept


def _apply(content: bytes, edits: list[Edit]) -> bytes:
    pieces, position = [], 0
    for edit in edits:
        pieces += [content[position : edit.start], edit.placeholder]
        position = edit.stop
    return b"".join([*pieces, content[position:]])


def _secret(start: int, stop: int, kind: str) -> Edit:
    return Edit(start, stop, kind, SECRET_PLACEHOLDER)


def _places(content: bytes, word: bytes) -> Iterator[int]:
    """Where a literal begins; many times faster than a pattern where it is rare."""
    start = content.find(word)
    while start >= 0:
        yield start
        start = content.find(word, start + len(word))


_PEM = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = b"-----END"
_PEM_RUN = re.compile(rb"\\.|([A-Za-z0-9+/=]{16,})", re.DOTALL)
_NOT_IN_KEYS = re.compile(rb"[;{}<>_]")  # but in code that looks for the marks of a key


def _private_keys(content: bytes) -> Iterator[Edit]:
    """The lines of base64 in PEM and PGP private keys, also where they are string literals."""
    for begin in _PEM.finditer(content):
        end = content.find(b"-----", begin.end())
        if content.startswith(_PEM_END, end) and not _NOT_IN_KEYS.search(content, begin.end(), end):
            for run in _PEM_RUN.finditer(content, begin.end(), end):
                if run[1] and SECRET_PLACEHOLDER not in run[1]:
                    yield _secret(*run.span(1), "private key")


def _known_tokens(content: bytes) -> Iterator[Edit]:
    """Tokens that say by a public prefix what they are."""
    for kind in KINDS:
        for prefix in kind.prefixes:
            for start in _places(content, prefix):
                match = kind.pattern.match(content, start)
                if match and SECRET_PLACEHOLDER not in match[1] and kind.is_genuine(match[1]):
                    yield _secret(*match.span(1), kind.name)


_URL_PASSWORD = re.compile(rb"://[^\s/@:\"'<>`]{0,64}:([^\s/@:\"'<>`]{1,128})@")


def _url_passwords(content: bytes) -> Iterator[Edit]:
    """Passwords between user and host of a URL."""
    for match in _URL_PASSWORD.finditer(content):
        if not has_marks_of_a_placeholder(match[1]):
            yield _secret(*match.span(1), "password in URL")


_WORDS = (b"passw", b"passphrase", b"pwd", b"secret", b"token", b"key", b"credential")
_ASSIGNMENT = re.compile(
    rb"(?i:(passw(?:or)?d|passphrase|pwd|secret)|token|key|credentials?)"
    rb"(?i:[_.-]?(?:key|str|string|value|text|data|id))?"
    # the value stands in quotes, or alone up to the end of the line
    rb"""["'\]]{0,2}(?:[ \t]{0,8}(?:=>|:=|==?|[:,])[ \t]{0,8}|[ \t]{1,8})"""
    rb"""(?:@?(["'])([^\s"'\\]{6,256})\2|([A-Za-z0-9+/=_.~-]{16,256})[ \t\r]*$)""",
    re.MULTILINE,
)


def _assigned(content: bytes) -> Iterator[Edit]:
    """Values given to something called a password, key or token, if they look like one."""
    folded = content.lower()
    for start in chain.from_iterable(_places(folded, word) for word in _WORDS):
        if (match := _ASSIGNMENT.match(content, start)) and _is_secret(match):
            group = 3 if match[3] else 4
            yield _secret(*match.span(group), "password" if match[1] else "key or token")


def _is_secret(match: re.Match[bytes]) -> bool:
    value = match[3] or match[4]
    if has_marks_of_a_placeholder(value):
        return False
    return is_random(value) or bool(match[1] and match[3] and _is_password(value))


def _is_password(value: bytes) -> bool:
    """True for what mixes letters with digits and is not a path, a format or a word with a number."""
    has_letter, has_digit = re.search(rb"[A-Za-z]", value), re.search(rb"\d", value)
    return bool(has_letter and has_digit and not re.search(rb"[/<>%$(){}\[\]]", value))


_GENERIC_DOMAINS = frozenset(
    b"com org net edu gov mil int info biz name pro aero dev app cloud tech online science".split()
)
_DOMAIN = re.compile(
    rb"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}([A-Za-z]{2,12}))(?![\w@-]|\.[A-Za-z0-9])"
)
_LOCAL = (string.ascii_letters + string.digits + "._%+-").encode()
_IN_URL = re.compile(rb"://[^\s/@\"'<>]*\Z")
_RESERVED = re.compile(rb"(?i)(?:\A|\.)(?:example\.(?:com|org|net|edu)|(?:example|invalid|test|localhost))\Z")
_ROLE = re.compile(
    rb"""(?ix) \A (?:.*[-_.])?
    (?:bugs? | users? | dev | devel | developers? | lists? | support | help | info | contact | admin | root
      | git | webmaster | postmaster | security | licen[sc](?:e|es|ing) | legal | open[-_]?source
      | maintainers? | team | announce | discuss | questions? | feedback | no-?reply | office | sales
      | request | subscribe | reports?)
    (?:[-_.](?:bugs?|request|owner|help|list))? \Z"""
)
_SPELT = re.compile(
    rb"(?<![\w.+-])([A-Za-z0-9][A-Za-z0-9._+-]{1,63})[ ]?[\[({<][ ]?(?i:at)[ ]?[\])}>][ ]?"
    rb"([A-Za-z0-9-]{2,63}(?:(?:\.|[ ]?[\[({<][ ]?(?i:dot)[ ]?[\])}>][ ]?)[A-Za-z0-9-]{2,63}){1,5})(?![\w-])"
)
_SPELT_DOT = re.compile(rb"[ ]?[\[({<][ ]?(?i:dot)[ ]?[\])}>][ ]?")
_LOCAL_BYTES = 64


def _emails(content: bytes) -> Iterator[Edit]:
    """Addresses of persons: `name@host`, found from the @ outwards."""
    if b"@" not in content:
        return
    for match in _DOMAIN.finditer(content):
        at = match.start()
        before = content[max(0, at - 2 * _LOCAL_BYTES) : at]
        name = before[len(before.rstrip(_LOCAL)) :]
        escaped = before[: len(before) - len(name)].endswith(b"\\") and name[:1] in b"nrtfv"
        name = name[escaped:].lstrip(b"._%+-")
        in_url = _IN_URL.search(before[: len(before) - len(name)])
        if 0 < len(name) <= _LOCAL_BYTES and not in_url and _is_person(name, match[1], match[2]):
            yield Edit(at - len(name), match.end(), "e-mail address", EMAIL_PLACEHOLDER)


def _spelt_emails(content: bytes) -> Iterator[Edit]:
    """Addresses of persons that hide from machines: `name (at) host [dot] org`."""
    folded = content.lower()
    if not any(mark in folded for mark in (b"at)", b"at]", b"at}", b"at>", b"at )", b"at ]")):
        return
    for match in _SPELT.finditer(content):
        host = _SPELT_DOT.sub(b".", match[2])
        if _is_person(match[1], host, host.rpartition(b".")[2]):
            yield Edit(*match.span(), "e-mail address", EMAIL_PLACEHOLDER)


def _is_person(name: bytes, host: bytes, top: bytes) -> bool:
    """False for what is no address, for reserved hosts, and for mailing lists and roles."""
    is_address = (len(top) == 2 and top.isalpha()) or top.lower() in _GENERIC_DOMAINS
    is_list = host.lower().startswith((b"lists.", b"list.", b"listserv.", b"googlegroups."))
    return is_address and not is_list and not _RESERVED.search(host) and not _ROLE.match(name)


_SECRETS: tuple[Finder, ...] = (_private_keys, _known_tokens, _url_passwords, _assigned)
_PERSONS: tuple[Finder, ...] = (_emails, _spelt_emails)
