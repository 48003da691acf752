"""Compares two answers with math-verify, inside the worker, which may be killed for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from math_verify import parse, verify

from dphrl.types import Status


def judge(item: tuple[str, str], settings: Mapping[str, Any]) -> tuple[Status, str]:
    """Whether two answers are mathematically the same.

    Args:
        item: gold answer and answer, cleaned.
        settings: none.
    Returns:
        `correct`, or `wrong` (also when either cannot be parsed).
    """
    # its own time-outs are off: one-shot alarms that cancel each other; the kernel's deadline does not miss
    gold, answer = (parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in item)
    equal = bool(gold and answer) and verify(gold, answer, timeout_seconds=None)
    return ("correct", "") if equal else ("wrong", "another value than the gold answer")
