"""How every entry is drawn: colour and marker of its method; tint and line style of its setting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dphrl.report.comparison import Entry
from dphrl.report.labels import METHODS, SHAPES, method_style

DASHES: tuple[tuple[float, ...], ...] = ((), (9, 4), (2.6, 3), (12, 4, 2.6, 4))
"""Line styles of a method's sweeps: beta with k2 and beta with k3 are two. Strokes and gaps in pixels; () is solid."""

PALEST = 0.5
"""Share of the method's colour in the first setting of a sweep; the last has all of it."""


@dataclass(frozen=True, slots=True)
class Look:
    """One entry's line and marker."""

    color: str
    """On white, lower-case hex."""
    css: str
    """The same on the page, in light and dark."""
    marker: str
    """A path of `labels.SHAPES`."""
    line: tuple[float, ...]
    """One of DASHES."""
    sweep: str
    """Entries with the same sweep differ in one number and are joined in the frontier; '' outside sweeps."""


def looks(entries: Sequence[Entry]) -> dict[Entry, Look]:
    """A look for each entry, methods that we do not know among them.

    Settings of one sweep go from pale to full in their order, other settings change the dash.

    Args:
        entries: in the order of the legend, settings ascending.
    """
    drawn = {}
    likeness = _likeness(list(dict.fromkeys(entry.method for entry in entries)))
    for entry in entries:
        of_method = [e for e in entries if e.method == entry.method]
        sweeps = list(dict.fromkeys(_sweep(e) for e in of_method))
        members = [e for e in of_method if _sweep(e) == _sweep(entry)]
        share = 1.0 if len(members) == 1 else PALEST + (1 - PALEST) * members.index(entry) / (len(members) - 1)
        line = DASHES[sweeps.index(_sweep(entry)) % len(DASHES)]
        like = likeness[entry.method]
        look = method_style(like)
        sweep = f"{entry.method} {_sweep(entry)}" if len(members) > 1 else ""
        drawn[entry] = Look(_tint(look.light, share), _css(like, share), SHAPES[look.marker], line, sweep)
    return drawn


def variable(method: str) -> str:
    """Name of a method's colour in the page."""
    return f"--{method.replace('_', '-')}" if method in METHODS else "--other"


def _likeness(methods: Sequence[str]) -> dict[str, str]:
    """Whose colour and marker each method has: its own. A method of another tool borrows those of a method of ours that
    is not shown, as long as there is one."""
    not_shown = [name for name in METHODS if name not in (*methods, "base")]
    strangers = [method for method in methods if method not in METHODS]
    lent = dict(zip(strangers, not_shown, strict=False))
    return {method: lent.get(method, method) for method in methods}


def _sweep(entry: Entry) -> str:
    """The setting without its first number: 'beta=0.1 k2' -> 'beta= k2'."""
    return re.sub(r"\d+(\.\d+)?(e-?\d+)?", "", entry.setting, count=1)


def _tint(color: str, share: float) -> str:
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(share * part + (1 - share) * 255):02x}" for part in parts)


def _css(method: str, share: float) -> str:
    name = f"var({variable(method)})"
    return name if share == 1.0 else f"color-mix(in srgb, {name} {100 * share:.0f}%, var(--page))"
