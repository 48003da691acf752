"""Settings as Hydra reads them on a command line: KEY=VALUE, with what is no plain word in quotes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_/][\w/.:@\-]*")
"""Texts that Hydra takes as they are, if they are no number, truth value or null."""
_OTHER_THAN_TEXT = re.compile(r"(null|true|false|inf|nan)", re.IGNORECASE)


def override(key: str, value: Any) -> str:
    """One setting as a word of a command: 'trainer.logger=[console,file]'.

    Args:
        key: with a + before it where verl's own settings have none of this name.
        value: None, a truth value, a number, a text, or a list or mapping of such.
    """
    return f"{key}={_text_of(value)}"


def command_lines(program: Iterable[str], words: Iterable[str]) -> str:
    """A command for bash, a word of `words` a line."""
    return " \\\n  ".join([shlex.join(program), *map(shlex.quote, words)])


def _text_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_quoted(str(key))}:{_text_of(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_text_of, value)) + "]"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    """In double quotes unless it is plain; before a quote, and at the end, Hydra halves the backslashes."""
    if _PLAIN.fullmatch(text) and not _OTHER_THAN_TEXT.fullmatch(text):
        return text
    escaped = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), text)
    return f'"{escaped}"'
