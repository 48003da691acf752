"""What the workers are told about how to run queries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from dphrl.errors import VerifierError, nearest

Mode = Literal["spider", "bird"]
Ordered = Literal["auto", "always", "never"]
Ties = Literal["any", "fixed"]
Empty = Literal["equal", "same_tables", "wrong"]
MODES: tuple[str, ...] = get_args(Mode)

SCRIPT_RULES: Mapping[str, Any] = {"keep_distinct": False, "exact": True, "empty": "equal", "ties": "fixed"}
"""With these arguments `spider` and `bird` compare as the benchmarks' scripts do: for numbers beside published ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySettings:
    """The same for all items of a batch; `verify_sql` says what they mean.

    Raises:
        VerifierError: a value is out of range.
    """

    keep_distinct: bool
    ordered: str
    """One of `Ordered`."""
    ties: str
    """One of `Ties`."""
    exact: bool
    empty: str
    """One of `Empty`."""
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
        for name in ("keep_distinct", "exact"):
            if not isinstance(getattr(self, name), bool):
                raise VerifierError(f"sql: {name}={getattr(self, name)!r} must be true or false")
        for name, choices in {"ordered": Ordered, "ties": Ties, "empty": Empty}.items():
            check_choice(name, getattr(self, name), get_args(choices))

    def ordered_in(self, mode: str, gold_orders: bool) -> bool:
        """Whether the order of rows counts in a mode, beside a gold query that orders its rows or does not."""
        return self.ordered == "always" or (self.ordered == "auto" and mode == "spider" and gold_orders)

    def ties_in(self, mode: str) -> str:
        """Which rows of an ordered gold result may change places in a mode: `none`, those with `equal` keys, or also
        those with `near` ones."""
        if self.ties == "fixed" or not self.ordered_in(mode, True):
            return "none"
        return "equal" if self.exact else "near"


def check_choice(name: str, value: object, allowed: Sequence[str], where: str = "") -> None:
    """Refuse a value that is not one of those allowed.

    Raises:
        VerifierError: names the nearest allowed value, and ends with `where`.
    """
    if value not in allowed:
        raise VerifierError(
            f"sql: {name}={value!r} is not one of {', '.join(allowed)}{nearest(str(value), allowed)}{where}"
        )
