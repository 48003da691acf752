"""The charts, drawn with matplotlib's object-oriented API: as PNG, or as SVG that follows the colours of the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from dphrl.report.curves import PANELS, Curve
from dphrl.report.labels import dataset_name
from dphrl.report.looks import Look, looks
from dphrl.report.placing import Label, Point, place
from dphrl.report.view import Entry, View

Draw = Callable[[Axes], None]

INK, MUTED, GRID = "#20242c", "#5c6470", "#d9dde3"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"}
"""Colour in a figure -> the page's own, which differs in light and dark; those of entries are in their looks."""

LEAST_POINTS = 5.0
"""Shortest axis of rates, in percentage points."""
BANDS_UP_TO = 8
"""Entries in a chart beyond which bands would hide each other and are left out."""

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.parse_math": False,  # a dataset may be called "$x"
    "text.color": INK,
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "lines.linewidth": 1.9,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "dphrl",
    "savefig.facecolor": "none",
}


def draw_pass_at_k(axes: Axes, view: View, dataset: str) -> None:
    """Pass@k of every entry over k, with 95 % bands."""
    ks: set[int] = set()
    for entry, look in looks(view.entries).items():
        mine = view.ks(entry, dataset)
        stats = [view.get(entry, dataset, f"pass@{k}") for k in mine]
        points = [(k, s) for k, s in zip(mine, stats, strict=True) if s is not None]
        bounds = [(k, 100 * s.low, 100 * s.high) for k, s in points if s.low is not None and s.high is not None]
        if bounds and len(view.entries) <= BANDS_UP_TO:
            at, low, high = zip(*bounds, strict=True)
            axes.fill_between(at, low, high, color=look.color, alpha=0.13, linewidth=0)
        axes.plot([k for k, _ in points], [100 * s.mean for _, s in points], **_drawn(look))
        ks |= set(mine)
    axes.set_xscale("log", base=2)
    shown = [k for k in sorted(ks) if k & (k - 1) == 0 or k == max(ks)]
    if len(shown) > 1 and shown[-1] < 1.5 * shown[-2]:
        del shown[-2]  # 12 beside 8: no room for both labels
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda k, _: f"{k:g}"))
    axes.set_title(f"Pass@k, {dataset_name(dataset)}, %")
    axes.set_xlabel("k, completions drawn")
    _percent(axes)


def draw_frontier(axes: Axes, view: View, dataset: str, *, names: bool = True) -> None:
    """mean@n against Pass@k: one point an entry with its 95 % intervals; a sweep's points are joined."""
    k, n = view.k(dataset), view.n(dataset)
    faint = 0.45 if len(view.entries) <= BANDS_UP_TO else 0.3
    labels: list[Label] = []
    joined: dict[tuple[str, str, Any], list[Point]] = {}
    for entry, look in looks(view.entries).items():
        x, y = view.get(entry, dataset, "mean_at_n"), view.get(entry, dataset, f"pass@{k}")
        if x is None or y is None:
            continue
        at = (100 * x.mean, 100 * y.mean)
        cross = [(100 * (v if v is not None else s.mean)) for s in (x, y) for v in (s.low, s.high)]
        axes.plot(cross[:2], [at[1]] * 2, color=look.color, linewidth=1, alpha=faint)
        axes.plot([at[0]] * 2, cross[2:], color=look.color, linewidth=1, alpha=faint)
        axes.plot(*at, **{**_drawn(look), "linestyle": "none", "markersize": 8 if names else 6.5, "zorder": 3})
        joined.setdefault((look.sweep, entry.style.light, look.line), []).append(at)
        labels.append(Label(at, entry.setting if look.sweep else entry.name, entry.style.light, tuple(cross)))
    for (sweep, color, line), points in joined.items():
        if sweep:
            axes.plot(*zip(*points, strict=True), color=color, linestyle=line, linewidth=1.3, alpha=0.6)
    name = dataset_name(dataset)
    axes.set_title(f"Pass@{k} against mean@{n}, {name}, %" if names else name)
    axes.set_xlabel(f"mean@{n}, %")
    _percent(axes)
    axes.set_xlim(_percent_limits(*axes.get_xlim()))
    axes.xaxis.set_major_locator(_ticks(8 if names else 4))
    if names:
        place(axes, labels)


def draw_training(axes: Axes, mine: Mapping[Entry, Curve], panel: str, drawn: Mapping[Entry, Look]) -> None:
    """One training metric over optimiser steps: mean over seeds, band from the lowest to the highest seed."""
    for entry, curve in mine.items():
        look = drawn[entry]
        if curve.seeds > 1 and len(mine) <= BANDS_UP_TO:
            axes.fill_between(curve.steps, curve.low, curve.high, color=look.color, alpha=0.13, linewidth=0)
        axes.plot(curve.steps, curve.mean, color=look.color, linestyle=look.line, linewidth=1.7)
    axes.set_title(PANELS[panel].title)
    axes.set_xlabel("optimiser step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(_ticks(6))


def svg(name: str, draw: Draw, drawn: Iterable[Look], *, width: float = 4.7, height: float = 3.3) -> str:
    """One chart as an inline SVG element: scales with the page, takes its colours, loads nothing.

    Args:
        name: prefix of the ids, unique in the page.
        draw: fills the axes.
        drawn: looks whose colours it may use.
        width, height: in inches of 72 units; the page scales them.
    """
    with _drawing():
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(buffer.getvalue(), name, VARIABLES | {look.color: look.css for look in drawn})


def png_pass_at_k(view: View) -> bytes:
    """pass_at_k.png: one panel a dataset."""
    draws: list[Draw] = [lambda axes, d=d: draw_pass_at_k(axes, view, d) for d in view.datasets]  # type: ignore[misc]
    return _panels(draws, looks(view.entries))


def png_frontier(view: View) -> bytes:
    """frontier.png: the first dataset large, the others small beside it."""
    first, *others = view.datasets
    columns = 1 if len(others) <= 1 else 2
    rows = -(-len(others) // columns)
    with _drawing():
        figure = _figure((11.5, max(4.6, 2.7 * rows)) if others else (6.4, 4.8))
        spec = figure.add_gridspec(max(rows, 1), 2 + (columns if others else 0))
        for i, dataset in enumerate(others):
            axes = figure.add_subplot(spec[i // columns, 2 + i % columns])
            draw_frontier(axes, view, dataset, names=False)
            axes.title.set_fontsize(10)
            axes.tick_params(labelsize=8.5)
        if len(others) < rows * columns:
            _legend(figure.add_subplot(spec[-1, -1]), looks(view.entries))
        elif others:
            _legend_below(figure, looks(view.entries), lines=False)
        draw_frontier(figure.add_subplot(spec[:, :2]), view, first)  # last: its labels need the final layout
        return _png(figure)


def png_training(panels: Mapping[str, Mapping[Entry, Curve]], drawn: Mapping[Entry, Look]) -> bytes:
    """training.png: one panel a metric; `drawn` as in the other charts."""
    draws: list[Draw] = [
        lambda axes, panel=panel: draw_training(axes, panels[panel], panel, drawn)  # type: ignore[misc]
        for panel in panels
    ]
    shown = {entry: look for entry, look in drawn.items() if any(entry in mine for mine in panels.values())}
    return _panels(draws, shown, markers=False)


def swatch(look: Look) -> str:
    """The legend's sign of an entry as an inline SVG: its line and marker."""
    sign = MarkerStyle(look.marker)
    path = sign.get_path().transformed(sign.get_transform())
    polygons: Any = path.to_polygons()
    corners = ["M" + "L".join(f"{14 + 9 * x:.1f} {7 - 9 * y:.1f}" for x, y in polygon) + "Z" for polygon in polygons]
    dashes = "" if look.line == "-" else f' stroke-dasharray="{" ".join(f"{2 * d:g}" for d in look.line[1])}"'
    return (
        f'<svg class="swatch" viewBox="0 0 28 14" aria-hidden="true" style="color:{look.css}">'
        f'<path d="M0 7H28" stroke="currentColor" stroke-width="2"{dashes}/>'
        f'<path d="{"".join(corners)}" fill="currentColor"/></svg>'
    )


def _drawn(look: Look) -> dict[str, Any]:
    return {"color": look.color, "marker": look.marker, "linestyle": look.line, "markeredgewidth": 0, "clip_on": False}


def _ticks(most: int) -> MaxNLocator:
    return MaxNLocator(most, steps=[1, 2, 5, 10])


def _percent(axes: Axes) -> None:
    """Margins that never reach a tick beyond 0 or 100 %, and no magnified hundredths of a point."""
    axes.set_ylim(_percent_limits(*axes.get_ylim()))
    axes.yaxis.set_major_locator(_ticks(8))


def _percent_limits(low: float, high: float) -> tuple[float, float]:
    if high - low < LEAST_POINTS:
        middle = min(max((low + high) / 2, LEAST_POINTS / 2), 100 - LEAST_POINTS / 2)
        low, high = middle - LEAST_POINTS / 2, middle + LEAST_POINTS / 2
    edge = 0.02 * (high - low)
    return max(low, -edge), min(high, 100 + edge) if high < 100 else 100 + edge


def _panels(draws: Sequence[Draw], drawn: Mapping[Entry, Look], *, markers: bool = True) -> bytes:
    """A figure with a panel for each drawing, at most three a row, and one legend below."""
    columns = 2 if len(draws) in (2, 4) else min(3, len(draws))
    rows = -(-len(draws) // columns)
    with _drawing():
        figure = _figure((max(5.6, 4.3 * columns), 3.2 * rows + 0.5))
        for i, draw in enumerate(draws):
            draw(figure.add_subplot(rows, columns, i + 1))
        _legend_below(figure, drawn, markers=markers)
        return _png(figure)


def _figure(size: tuple[float, float]) -> Figure:
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr,call-arg]
    FigureCanvasAgg(figure)
    return figure


def _handles(drawn: Mapping[Entry, Look], *, lines: bool, markers: bool = True) -> list[Line2D]:
    off = {} if lines else {"linestyle": "none", "markersize": 7}
    bare = {} if markers else {"marker": "none"}
    return [Line2D([], [], **{**_drawn(look), **off, **bare, "label": e.name}) for e, look in drawn.items()]


def _legend(axes: Axes, drawn: Mapping[Entry, Look]) -> None:
    """The legend in a panel of its own."""
    axes.axis("off")
    axes.legend(handles=_handles(drawn, lines=False), loc="center", ncols=1 + (len(drawn) > 9), fontsize=9)


def _legend_below(figure: Figure, drawn: Mapping[Entry, Look], *, lines: bool = True, markers: bool = True) -> None:
    """One legend for the whole figure, in rows of equal length."""
    longest = max((len(entry.name) for entry in drawn), default=1)
    most = max(1, int(figure.get_figwidth() / (0.75 + 0.085 * longest)))
    rows = -(-len(drawn) // most)
    handles = _handles(drawn, lines=lines, markers=markers)
    figure.legend(handles=handles, loc="outside lower center", ncols=-(-len(drawn) // rows), handlelength=2.4)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def _drawing() -> Iterator[None]:
    """Our settings for one figure; a sign that the font lacks becomes a box without a warning."""
    with mpl.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        yield


def _inline(text: str, name: str, colors: Mapping[str, str]) -> str:
    """matplotlib's SVG file -> an element for HTML: no prolog or namespaces, ids of its own, colours of the page."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    head, rest = body.split(">", 1)
    head = re.sub(r' (xmlns(:\w+)?|width|height|version)="[^"]*"', "", head)
    rest = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', rest)
    rest = re.sub(r'"#([^"]+)"', rf'"#{name}-\1"', rest)
    rest = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", rest)
    for color, variable in colors.items():
        rest = rest.replace(f": {color}", f": {variable}")
    return f"{head}>{rest}".strip()
