"""What a secret looks like: kinds of tokens by prefix and checksum, randomness, marks of a placeholder."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

_BASE62 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CHECKSUM_BYTES = 6


@dataclass(frozen=True, slots=True)
class TokenKind:
    """One kind of token that can be told by how it begins."""

    name: str
    """The kind under which the ledger counts it."""
    prefixes: tuple[bytes, ...]
    """Literals one of which every such token begins with."""
    pattern: re.Pattern[bytes]
    """Matches at the prefix; group 1 is what must go."""
    is_genuine: Callable[[bytes], bool]
    """Tells it from an example or a chance likeness."""


def has_github_checksum(token: bytes) -> bool:
    """True if the last six digits are the CRC-32 of those after the prefix, in base 62 (GitHub and npm)."""
    payload = token.partition(b"_")[2]
    value, expected = zlib.crc32(payload[:-_CHECKSUM_BYTES]), bytearray()
    for _ in range(_CHECKSUM_BYTES):
        value, digit = divmod(value, 62)
        expected.append(_BASE62[digit])
    return payload[-_CHECKSUM_BYTES:] == bytes(reversed(expected))


def is_web_token(token: bytes) -> bool:
    """True if the first part of a JSON Web Token is the base64 of an object that names an algorithm."""
    head = token.partition(b".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + b"=" * (-len(head) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return False
    return isinstance(header, dict) and "alg" in header


def entropy_bits(value: bytes) -> float:
    """Shannon entropy of the bytes, in bits a byte."""
    counts = Counter(value).values()
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts)


_MIN_RANDOM_BYTES = 16
_MIN_ENTROPY_BITS = 3.0
_MIN_CHANGES = 4
_RANDOM = re.compile(rb"[A-Za-z0-9+/=_.~-]+\Z")
_CHANGE = re.compile(rb"(?<=\d)[A-Za-z]|(?<=[A-Za-z])\d")


def is_random(value: bytes) -> bool:
    """True for 16 or more bytes of a token's alphabet in which digits and letters take turns as by chance.

    Entropy alone does not tell `read_next_token_of_line` (3.6 bits) from a key; the turns do.
    """
    return (
        len(value) >= _MIN_RANDOM_BYTES
        and _RANDOM.match(value) is not None
        and entropy_bits(value) >= _MIN_ENTROPY_BITS
        and len(_CHANGE.findall(value)) >= _MIN_CHANGES
    )


_PLACEHOLDER = re.compile(
    rb"""(?ix) redacted | example | placeholder | sample | dummy | fake | change[-_]?me | insert | your
    | my[-_]?pass | passw(?:or)?d | secret | token | \btest | test(?:ing)?\b | foo | bar\b | todo | none
    | null | x{4} | \.{3} | 1234 | abcd | 0{4} | [<>{}$%*]"""
)
_PLAIN_WORD = re.compile(rb"(?i)(?:user|pass|pwd|port|key|pw|root|admin|guest|anonymous|me)\Z")


def has_marks_of_a_placeholder(value: bytes) -> bool:
    """True for what documentation and tests write where a secret would stand."""
    return bool(_PLACEHOLDER.search(value) or _PLAIN_WORD.match(value) or len(set(value)) <= 3)


def _is_no_example(token: bytes) -> bool:
    return not re.search(rb"(?i)example|x{6}|0{8}|1234567", token)


def _kind(
    name: str, prefixes: bytes, pattern: bytes, is_genuine: Callable[[bytes], bool] = _is_no_example
) -> TokenKind:
    grouped = pattern if re.compile(pattern).groups else rb"(" + pattern + rb")"
    bounded = rb"(?<![A-Za-z0-9_-])" + grouped + rb"(?![A-Za-z0-9_-])"
    return TokenKind(name, tuple(prefixes.split()), re.compile(bounded), is_genuine)


# Each prefix and length is what the service documents or its scanners' rules publish.
KINDS = (
    _kind("AWS key", b"AKIA ASIA", rb"A(?:KIA|SIA)[A-Z2-7]{16}"),
    _kind("GitHub token", b"ghp_ gho_ ghu_ ghs_ ghr_", rb"gh[pousr]_[A-Za-z0-9]{36}", has_github_checksum),
    _kind("GitHub token", b"github_pat_", rb"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    _kind("GitLab token", b"glpat-", rb"glpat-[A-Za-z0-9_-]{20}"),
    _kind("npm token", b"npm_", rb"npm_[A-Za-z0-9]{36}", has_github_checksum),
    _kind("PyPI token", b"pypi-AgE", rb"pypi-AgE[A-Za-z0-9_-]{50,400}"),
    _kind("Hugging Face token", b"hf_", rb"hf_[A-Za-z]{34}"),
    _kind("OpenAI key", b"sk-", rb"sk-(?:[a-z]{2,10}-)?[A-Za-z0-9_-]{16,100}T3BlbkFJ[A-Za-z0-9_-]{16,100}"),
    _kind("Anthropic key", b"sk-ant-", rb"sk-ant-[a-z0-9]{3,8}-[A-Za-z0-9_-]{80,120}"),
    _kind("Google API key", b"AIza", rb"AIza[A-Za-z0-9_-]{35}"),
    _kind("Slack token", b"xoxa- xoxb- xoxe- xoxp- xoxr- xoxs-", rb"xox[abeprs]-[A-Za-z0-9-]{20,250}"),
    _kind("Slack webhook", b"hooks.slack.com/services/",
          rb"hooks.slack.com/services/(T[A-Z0-9]{8,12}/B[A-Z0-9]{8,12}/[A-Za-z0-9]{20,28})"),
    _kind("Stripe key", b"sk_live_ rk_live_", rb"[rs]k_live_[A-Za-z0-9]{24,99}"),
    _kind("SendGrid key", b"SG.", rb"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    _kind("Docker token", b"dckr_pat_", rb"dckr_pat_[A-Za-z0-9_-]{27}"),
    _kind("DigitalOcean token", b"dop_v1_ doo_v1_ dor_v1_", rb"do[opr]_v1_[a-f0-9]{64}"),
    _kind("Azure key", b"AccountKey=", rb"AccountKey=([A-Za-z0-9+/]{86}==)"),
    _kind("age key", b"AGE-SECRET-KEY-1", rb"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
    _kind("web token", b"eyJ", rb"eyJ[A-Za-z0-9_-]{8,1000}\.eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{16,1000}",
          is_web_token),
)  # fmt: skip
"""Every kind of token known by its prefix."""
