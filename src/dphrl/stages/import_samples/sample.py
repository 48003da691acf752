"""One completion of another tool: what a reader makes of a record, and what every reader needs for it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dphrl.errors import ConfigError, DataError, nearest
from dphrl.types import FinishReason

Row = Mapping[str, Any]

WORDS = {
    **dict.fromkeys(("true", "pass", "passed", "correct", "c"), 1.0),
    **dict.fromkeys(("false", "fail", "failed", "incorrect", "i", "timeout", "n"), 0.0),
    "p": 0.5,
}
"""Verdicts in words: those of a CSV, of evalplus and of inspect_ai (C, I, P = partly, N = no answer)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion of another tool, and what its record says of it."""

    prompt_id: str
    text: str
    right: bool | None
    """None = it was not judged."""
    reward: float | None = None
    model: str = ""
    method: str = ""
    seed: int = 0
    task: str = ""
    greedy: bool = False
    finish: FinishReason | None = None
    """None = not known."""
    prompt: str = ""
    gold: str = ""
    step: int | None = None
    """Training step of the policy that drew it."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Which number says whether a completion is right, and from which value on."""

    reward: str | None = None
    """Name of the number; None = the shape's own."""
    threshold: float | None = None
    """None = only 0 and 1 are allowed."""
    verifier: str | None = None
    """What judges completions that come without a verdict; None = they must have one."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ConfigError(f"--threshold {self.threshold} is no finite number; give e.g. --threshold 0.5")

    def judge(self, value: Any) -> tuple[bool | None, float | None]:
        """Right or wrong, and the reward; both None where the value is null or NaN.

        Raises:
            DataError: no number, or neither 0 nor 1 and no threshold.
        """
        if isinstance(value, str):
            value = number_of(value)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None, None
        if isinstance(value, bool):
            return value, float(value)
        if not isinstance(value, int | float) or math.isinf(value):
            raise DataError(f"{value!r} is no verdict; write true, false, a number, or null for one that is not known")
        if self.threshold is not None:
            return value >= self.threshold, float(value)
        if value not in (0, 1):
            raise DataError(
                f"{value!r} is neither 0 nor 1; say from which value on a completion is right, e.g. --threshold 0.5"
            )
        return value == 1, float(value)


def number_of(text: str) -> Any:
    """The number that a verdict's text says; the text itself where it says none."""
    try:
        return WORDS[text.strip().lower()] if text.strip().lower() in WORDS else float(text)
    except ValueError:
        return text


def text_of(content: Any, role: str | None = "assistant") -> str:
    """The text of a completion or prompt: itself, or its messages' of one role (None = all), one below the other."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, Sequence) or not all(isinstance(m, Mapping) for m in content):
        raise DataError(f"{str(content)[:80]!r} is neither a text nor a list of messages")
    if content and all("role" in message for message in content):
        return "\n".join(text_of(m.get("content"), None) for m in content if role in (None, m["role"]))
    return "".join(part.get("text") or "" for part in content)  # the parts of one message


def picked(named: Mapping[str, Any], scale: Scale, what: str = "numbers") -> Any:
    """The one number that says what is right: that of --reward, else the only one.

    Raises:
        DataError: there is none of that name, or several and none is named.
    """
    if scale.reward is not None:
        return number(named, scale.reward)
    if len(named) != 1:
        raise DataError(
            f"has the {what} {', '.join(named) or '(none)'}; say which one is right or wrong: --reward NAME"
        )
    return next(iter(named.values()))


def number(row: Row, name: str) -> Any:
    """A value that must be there."""
    if name not in row:
        raise DataError(f"has no {name!r}{nearest(name, row)}; it has {', '.join(row)}; name one with --reward")
    return row[name]


def finish_of(value: Any) -> FinishReason | None:
    """How a completion ended, as a line of one's own says it."""
    if value is None or value in ("stop", "length"):
        return value  # type: ignore[no-any-return]
    raise DataError(f"finish_reason={value!r} is not stop, length or null")


def whole(row: Row, key: str) -> int | None:
    """A whole number from 0 on, in a CSV the text of one; None where it is null or missing."""
    value = row.get(key)
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"{key}={value!r} is no whole number from 0 on")
    return value


def id_of(value: Any) -> str:
    """A prompt's id as a text."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(f"the id of the prompt is {value!r}; write a text or a whole number")
    return str(value).encode("utf-8", "replace").decode("utf-8")


def name_of(row: Row, key: str) -> str:
    """A name that may be missing."""
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or not value:
        raise DataError(f"{key}={value!r} is no name; write a text")
    return value


def plain_text(value: Any) -> str:
    """What is shown as it is: a text, or the JSON of something else."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)


def hashed(prompt: str) -> str:
    """An id of a prompt that has none: the same text is the same prompt in every file."""
    return hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
