"""What the workers are told about how to run queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from dphrl.errors import VerifierError, nearest

Mode = Literal["spider", "bird"]
Ordered = Literal["auto", "always", "never"]
MODES: tuple[str, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySettings:
    """The same for all items of a batch; `verify_sql` says what they mean.

    Raises:
        VerifierError: a value is out of range.
    """

    keep_distinct: bool
    ordered: str
    """One of `Ordered`."""
    deadline_s: float
    """CPU seconds of a completion's query, > 0."""
    gold_deadline_s: float
    """CPU seconds of a gold query, > 0."""
    max_rows: int
    max_bytes: int
    """Of one result, >= 1."""

    def __post_init__(self) -> None:
        for name in ("deadline_s", "gold_deadline_s", "max_rows", "max_bytes"):
            value = getattr(self, name)
            kind, words = (float, "a number") if name.endswith("_s") else (int, "a whole number")
            if isinstance(value, bool) or not isinstance(value, int | kind) or not 0 < value < math.inf:
                raise VerifierError(f"sql: {name}={value!r} must be {words} above 0")
        check_choice("ordered", self.ordered, get_args(Ordered))


def check_choice(name: str, value: object, allowed: Sequence[str], where: str = "") -> None:
    """Refuse a value that is not one of those allowed.

    Raises:
        VerifierError: names the nearest allowed value, and ends with `where`.
    """
    if value not in allowed:
        raise VerifierError(
            f"sql: {name}={value!r} is not one of {', '.join(allowed)}{nearest(str(value), allowed)}{where}"
        )
