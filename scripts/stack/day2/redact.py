"""Secrets out of a text that leaves the house: the values that are known, and whatever looks like one. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

MASK = "<redacted>"
# Shorter ones would take innocent words away with them, and are none of ours.
SHORTEST_KNOWN = 6

_PEM = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(-----END \1-----|\Z)", re.DOTALL)
# scheme://user:password@host, and a lone token before the @
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^/\s\"'<>@]+@", re.IGNORECASE)
_AUTHORIZATION = re.compile(
    r"(?P<name>(?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?)(?:[A-Za-z]+ +)?[^\s\"',]+", re.IGNORECASE
)
_BEARER = re.compile(r"(?P<name>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
# key: value, KEY=value, "key": "value", --key value, "--key", "value". Not max_tokens, token_file, keys of a mapping.
_NAMED = re.compile(
    r"(?P<name>(?<![A-Za-z0-9])[\w.-]*(?:passwd|password|passphrase|secret|token|credential|cookie|"
    r"(?:api|access|private|secret|account|encryption|license)[_-]?key)(?:s3)?[\"']?(?:\s*[:=]\s*|[\"'],\s*|\s+(?=[^\s:=]{12}))"
    r"[\"']?)(?P<value>[^\s\"',;&\]}]{4,})",
    re.IGNORECASE,
)
_SHAPES = re.compile(
    r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}"  # keys of OpenAI's shape, ours too
    r"|\bhf_[A-Za-z0-9]{16,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"  # a JSON web token
)
_EMAIL = re.compile(r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b")
_NOT_SECRET = re.compile(r"(?:true|false|null|none|<[^>]*>|\*+|\$\{?\w+\}?)", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,9}(?:\.\d+)?")


def redactor(known: Iterable[str] = ()) -> Callable[[str], str]:
    """A function that takes every known value, and what looks like a secret, out of a text."""
    values = sorted({value for value in known if len(value) >= SHORTEST_KNOWN}, key=len, reverse=True)
    literal = re.compile("|".join(re.escape(value) for value in values)) if values else None

    def redact(text: str) -> str:
        if literal:
            text = literal.sub(MASK, text)
        text = _PEM.sub(rf"-----BEGIN \1-----{MASK}", text)
        text = _URL.sub(rf"\g<scheme>{MASK}@", text)
        text = _AUTHORIZATION.sub(rf"\g<name>{MASK}", text)
        text = _BEARER.sub(rf"\g<name>{MASK}", text)
        text = _SHAPES.sub(MASK, text)
        text = _NAMED.sub(_named, text)
        return _EMAIL.sub("<e-mail>", text)

    return redact


def _named(match: re.Match[str]) -> str:
    value, name = match["value"], match["name"]
    # a tokenizer's tokens have numbers
    number = _NUMBER.fullmatch(value) and "token" in name.lower()
    return match[0] if number or _NOT_SECRET.fullmatch(value) else f"{name}{MASK}"
