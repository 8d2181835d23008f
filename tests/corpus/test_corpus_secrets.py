"""Secrets and addresses give way to placeholders; everything else, and what was scrubbed already, stays."""

import base64
import random
import string
import time
import zlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.corpus.secrets import SecretsConfig, scrub

# No token of these tests is a real one; they are made here so that no scanner finds one in this file.
_DRAW = random.Random(5)
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def _random(length: int, alphabet: str = _BASE62) -> str:
    return "".join(_DRAW.choices(alphabet, k=length))


def _with_checksum(prefix: str) -> str:
    payload = _random(30)
    value, digits = zlib.crc32(payload.encode()), ""
    while len(digits) < 6:
        value, digit = divmod(value, 62)
        digits = _BASE62[digit] + digits
    return prefix + payload + digits


_HEX = string.digits + "abcdef"
_PART = base64.urlsafe_b64encode(b'{"alg": "HS256"}').decode().rstrip("=")
TOKENS = {
    "AWS key": "AKIA" + _random(16, string.ascii_uppercase + "234567"),
    "GitHub token": _with_checksum("gh" + "p_"),
    "GitLab token": "gl" + "pat-" + _random(20),
    "npm token": _with_checksum("np" + "m_"),
    "PyPI token": "pypi-" + "AgE" + _random(120),
    "Hugging Face token": "hf" + "_" + _random(34, string.ascii_letters),
    "OpenAI key": "sk-" + _random(20) + "T3Blbk" + "FJ" + _random(20),
    "Anthropic key": "sk-" + "ant-api03-" + _random(95),
    "Google API key": "AI" + "za" + _random(35),
    "Slack token": "xox" + "b-" + _random(12, string.digits) + "-" + _random(24),
    "Stripe key": "sk_" + "live_" + _random(24),
    "SendGrid key": "SG" + "." + _random(22) + "." + _random(43),
    "Docker token": "dckr" + "_pat_" + _random(27),
    "DigitalOcean token": "dop" + "_v1_" + _random(64, _HEX),
    "age key": "AGE-SECRET-" + "KEY-1" + _random(58, "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"),
    "web token": f"{_PART}.{_PART}.{_random(43)}",
}
PEM_LINES = [_random(64, _BASE62 + "+/") for _ in range(4)]
PEM = "-----BEGIN RSA PRIVATE " + "KEY-----\n" + "\n".join(PEM_LINES) + "\n-----END RSA PRIVATE KEY-----\n"
IN_C = "".join(f'"{line}\\n"\n' for line in PEM.splitlines())


def _scrubbed(text: str) -> tuple[str, dict[str, int]]:
    content, counts = scrub(text.encode())
    return content.decode(), dict(counts)


@pytest.mark.parametrize(("kind", "token"), TOKENS.items(), ids=TOKENS)
@pytest.mark.parametrize("frame", ['x = "{}";', "! see {}, line 3", "{}"])
def test_tokens_of_known_kinds(kind: str, token: str, frame: str) -> None:
    assert _scrubbed(frame.format(token)) == (frame.format("REDACTED"), {kind: 1})


@pytest.mark.parametrize("kind", ["GitHub token", "npm token"])
def test_a_wrong_checksum_is_no_token(kind: str) -> None:
    token = TOKENS[kind][:-1] + ("a" if TOKENS[kind][-1] != "a" else "b")
    assert _scrubbed(f"f({token})") == (f"f({token})", {})


@pytest.mark.parametrize("key", [PEM, IN_C, PEM.replace("\n", "\\n")])
def test_private_keys_lose_their_lines(key: str) -> None:
    scrubbed, counts = _scrubbed(f"int a;\n{key}int b;\n")
    assert counts == {"private key": 4}
    assert not any(line in scrubbed for line in PEM_LINES)
    expected = f"int a;\n{key}int b;\n"
    for line in PEM_LINES:
        expected = expected.replace(line, "REDACTED")
    assert scrubbed == expected


@pytest.mark.parametrize(
    ("text", "expected", "kind"),
    [
        ("https://bob:h4x9q@host.org/x", "https://bob:REDACTED@host.org/x", "password in URL"),
        ('const char *password = "hunter42";', 'const char *password = "REDACTED";', "password"),
        ("#define DB_PASSWD 'S3c-9rTz'", "#define DB_PASSWD 'REDACTED'", "password"),
        ('  "client_secret": "a8f3e91b7c"', '  "client_secret": "REDACTED"', "password"),
        ("export PASSWORD=9f8e7d6c5b4a39281706", "export PASSWORD=REDACTED", "password"),
        ('api_key = "k3J9dfL20sQwZ81mPx7b"', 'api_key = "REDACTED"', "key or token"),
        ('put("ACCESS_KEY", "k3J9dfL20sQwZ81mPx7b")', 'put("ACCESS_KEY", "REDACTED")', "key or token"),
        ("! Author: A. Name <a.name@uni.edu>", "! Author: A. Name <name@example.org>", "e-mail address"),
        ('printf("\\nfoo@bar.com\\n");', 'printf("\\nname@example.org\\n");', "e-mail address"),
        ("mailto:hess@kth.se.", "mailto:name@example.org.", "e-mail address"),
        ("C  j.doe (at) anl [dot] gov", "C  name@example.org", "e-mail address"),
    ],
)  # fmt: skip
def test_one_of_a_kind(text: str, expected: str, kind: str) -> None:
    assert _scrubbed(text) == (expected, {kind: 1})


@pytest.mark.parametrize(
    "text",
    [
        'password = "your-password1"; passwd = "%s1234"; secret = "test123"; pwd = "changeme1";',
        'password = "";  if (password == NULL) password = getpass("Password: ");',
        'password_file = "/etc/passwd2"; pwd = "/home/x2/y"; key = "temperature_2m";',
        'token = "read_next_token_of_line2"; token = next_token(state, 0x1F);',
        'const char *sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";',
        "commit 4b825dc642cb6eb9a060e54bf8d69288fbee4904, id 123e4567-e89b-12d3-a456-426614174000",
        'static const char table[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";',
        "https://user:password@host.org https://$USER:$PASS@host http://[::1]:8080/a@b",
        "call foo@plt; memcpy@GLIBC_2.2.5; @param x; a@b; ---@---x; symbol@got; user@host:/tmp; A@B.T",
        "bugs@gnu.org hypre-users@llnl.gov git@github.com:a/b.git someone@example.com x@lists.llnl.gov",
        "ssh://git@host.org/x ftp://anonymous@ftp.host.org rho(at) + b.lt.c; index[at].co",
        'if (strstr(s, "-----BEGIN PRIVATE ' + 'KEY-----")) { read_the_body_of_the_key(s); } '
        'else if (strstr(s, "-----END PRIVATE KEY-----")) {}',
        "AKIAIOSFODNN7" + "EXAMPLE",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert _scrubbed(text) == (text, {})


def test_each_part_can_be_switched_off() -> None:
    content = b'password = "hunter42"; // hess@kth.se'
    assert scrub(content, SecretsConfig(scrub=False))[1] == {"e-mail address": 1}
    assert scrub(content, SecretsConfig(scrub_emails=False))[1] == {"password": 1}
    assert scrub(content, SecretsConfig(scrub=False, scrub_emails=False)) == (content, Counter())


PIECES = [
    *(token.encode() for token in TOKENS.values()), PEM.encode(), IN_C.encode(),
    b"password", b" = ", b"'", b'"', b"\\", b"n", b"@", b"kth.se", b"hess@kth.se", b"://", b":", b"/",
    b"a1b2c3d4e5f6g7h8", b"-----BEGIN PRIVATE " + b"KEY-----", b"-----END", b" (at) ", b" [dot] ", b"org",
    b"token:", b"key=", b".", b"-",
    b"REDACTED", b"name@example.org", b"\n", b" ",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=6), max_size=30).map(b"".join))
def test_scrubbing_twice_is_scrubbing_once(content: bytes) -> None:
    once, _ = scrub(content)
    assert scrub(once) == (once, Counter())


@given(st.lists(st.binary(max_size=30).filter(lambda b: not set(b) & set(b"@:=")), max_size=5))
def test_bytes_around_what_is_found_are_untouched(parts: list[bytes]) -> None:
    secrets = [PEM_LINES[0].join(("-----BEGIN PRIVATE " + "KEY-----\n", "\n-----END")).encode()]
    secrets += [TOKENS["npm token"].encode(), b"<hess@kth.se>"]
    replaced = [b"-----BEGIN PRIVATE " + b"KEY-----\nREDACTED\n-----END", b"REDACTED", b"<name@example.org>"]
    frame = b" | "
    content, expected = b"", b""
    for number, part in enumerate(parts):
        content += frame + part + frame + secrets[number % 3]
        expected += frame + part + frame + replaced[number % 3]
    assert scrub(content + frame)[0] == expected + frame


@pytest.mark.parametrize("piece", PIECES, ids=[repr(piece[:12]) for piece in PIECES])
@pytest.mark.parametrize("filler", [b"", b" ", b"a"])
def test_hostile_repetition_takes_linear_time(piece: bytes, filler: bytes) -> None:
    def seconds(size: int) -> float:
        content = ((piece + filler) * size)[:size]
        start = time.process_time()
        scrub(content)
        return time.process_time() - start

    large = min(seconds(1 << 17) for _ in range(3))
    assert large < 40 * max(seconds(1 << 13), 0.005)  # 16 times the bytes
