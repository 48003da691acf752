"""A reward function in TRL's form that cannot judge completions of an odd length, as one whose server is down."""

from __future__ import annotations

from typing import Any


def reward(completions: list[str], gold: list[str], **_: Any) -> list[float | None]:
    return [None if len(c) % 2 else float(c.strip() == g) for c, g in zip(completions, gold, strict=True)]
