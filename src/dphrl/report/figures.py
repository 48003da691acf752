"""The charts, drawn with matplotlib's object-oriented API: as PNG, or as SVG that follows the colours of the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from dphrl.report.labels import METHODS, dataset_name
from dphrl.report.view import Entry, View

Draw = Callable[[Axes], None]

INK, MUTED, GRID = "#20242c", "#5c6470", "#d9dde3"
LINES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1, 1, 1, 1, 1)))
"""Line styles of one method's settings; colour and marker are the method's."""

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.parse_math": False,  # a dataset may be called "$x"
    "text.color": INK,
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

VARIABLES: dict[str, str] = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    **{style.light: f"var(--{method.replace('_', '-')})" for method, style in METHODS.items()},
}
"""Colour in a figure -> the page's own, which differs in light and dark."""


def draw_pass_at_k(axes: Axes, view: View, dataset: str) -> None:
    """Pass@k of every entry over k, with 95 % bands."""
    ks: set[int] = set()
    band = 0.14 if len(view.entries) <= 6 else 0.07
    for entry, line in _lines(view):
        mine = view.ks(entry, dataset)
        stats = [view.get(entry, dataset, f"pass@{k}") for k in mine]
        points = [(k, s) for k, s in zip(mine, stats, strict=True) if s is not None]
        bounds = [(k, 100 * s.low, 100 * s.high) for k, s in points if s.low is not None and s.high is not None]
        if bounds:
            at, low, high = zip(*bounds, strict=True)
            axes.fill_between(at, low, high, color=entry.style.light, alpha=band, linewidth=0)
        axes.plot([k for k, _ in points], [100 * s.mean for _, s in points], **_look(entry, line))
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
    swept, labels = view.sweeps(), []
    joined: dict[str, list[tuple[float, float]]] = {}
    for entry in view.entries:
        x, y = view.get(entry, dataset, "mean_at_n"), view.get(entry, dataset, f"pass@{k}")
        if x is None or y is None:
            continue
        color, at = entry.style.light, (100 * x.mean, 100 * y.mean)
        if x.low is not None and x.high is not None:
            axes.plot([100 * x.low, 100 * x.high], [at[1]] * 2, color=color, linewidth=1, alpha=0.45)
        if y.low is not None and y.high is not None:
            axes.plot([at[0]] * 2, [100 * y.low, 100 * y.high], color=color, linewidth=1, alpha=0.45)
        axes.plot(*at, **{**_look(entry, "none"), "markersize": 8 if names else 6.5, "zorder": 3})
        joined.setdefault(entry.method, []).append(at)
        labels.append((at, entry.setting if entry.method in swept and entry.setting else entry.name, color))
    for method, points in joined.items():
        if method in swept:
            axes.plot(*zip(*points, strict=True), color=Entry(method).style.light, linewidth=1.2, alpha=0.7)
    axes.set_title(f"Pass@{k} against mean@{n}, {dataset_name(dataset)}, %")
    axes.set_xlabel(f"mean@{n}, %")
    _percent(axes)
    axes.xaxis.set_major_locator(MaxNLocator(6 if names else 4))
    axes.margins(0.08)
    if names:
        _place(axes, labels)


def draw_training(axes: Axes, curves: Mapping[Entry, Curve], panel: str, lines: Mapping[Entry, Any]) -> None:
    """One training metric over optimiser steps: mean over seeds, band from the lowest to the highest seed."""
    for entry, curve in curves.items():
        color = entry.style.light
        if curve.seeds > 1:
            axes.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=0.13, linewidth=0)
        axes.plot(curve.steps, curve.mean, color=color, linestyle=lines.get(entry, "-"), linewidth=1.7)
    axes.set_title(PANELS[panel].title)
    axes.set_xlabel("optimiser step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6))


def svg(name: str, draw: Draw, *, width: float = 4.7, height: float = 3.3) -> str:
    """One chart as an inline SVG element: scales with the page, takes its colours, loads nothing.

    Args:
        name: prefix of the ids, unique in the page.
        draw: fills the axes.
        width, height: in inches of 72 units; the page scales them.
    """
    with _drawing():
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(buffer.getvalue(), name)


def png_pass_at_k(view: View) -> bytes:
    """pass_at_k.png: one panel a dataset."""
    draws: list[Draw] = [lambda axes, d=d: draw_pass_at_k(axes, view, d) for d in view.datasets]  # type: ignore[misc]
    return _png(_grid(draws), view.entries, dict(_lines(view)))


def png_frontier(view: View) -> bytes:
    """frontier.png: the first dataset large, the others small beside it."""
    first, *others = view.datasets
    rows = max(1, (len(others) + 1) // 2)

    def fill(figure: Figure) -> None:
        columns = 1 if len(others) == 1 else 2
        spec = figure.add_gridspec(rows, 2 + columns) if others else figure.add_gridspec(1, 1)
        draw_frontier(figure.add_subplot(spec[:, :2] if others else spec[0]), view, first)
        for i, dataset in enumerate(others):
            place = spec[i // columns, 2 + i % columns]
            axes = figure.add_subplot(place)
            draw_frontier(axes, view, dataset, names=False)
            axes.set_title(dataset_name(dataset), fontsize=10)
            axes.tick_params(labelsize=8.5)

    size = (11.5, max(4.6, 2.6 * rows)) if others else (6.4, 4.8)
    return _png((size, fill), view.entries if others else (), dict(_lines(view)))


def png_training(curves: Mapping[str, Mapping[Entry, Curve]], lines: Mapping[Entry, Any]) -> bytes:
    """training.png: one panel a metric; `lines` as in the other charts."""
    entries = tuple(dict.fromkeys(entry for panel in curves.values() for entry in panel))
    draws: list[Draw] = [
        lambda axes, panel=panel: draw_training(axes, curves[panel], panel, lines)  # type: ignore[misc]
        for panel in curves
    ]
    return _png(_grid(draws), entries, lines, markers=False)


def line_styles(entries: Sequence[Entry]) -> dict[Entry, Any]:
    """A line style for each entry: solid, and the next one for each further setting of the same method."""
    seen: dict[str, int] = {}
    styles = {}
    for entry in entries:
        styles[entry] = LINES[seen.get(entry.method, 0) % len(LINES)]
        seen[entry.method] = seen.get(entry.method, 0) + 1
    return styles


def swatch(entry: Entry, line: Any) -> str:
    """The legend's sign of an entry as an inline SVG: its line and marker."""
    sign = MarkerStyle(entry.style.marker)
    path = sign.get_path().transformed(sign.get_transform())
    color = VARIABLES.get(entry.style.light, entry.style.light)
    corners = [
        "M" + "L".join(f"{14 + 9 * x:.1f} {7 - 9 * y:.1f}" for x, y in polygon) + "Z" for polygon in path.to_polygons()
    ]
    dashes = "" if line == "-" else f' stroke-dasharray="{" ".join(f"{2 * d:g}" for d in line[1])}"'
    return (
        f'<svg class="swatch" viewBox="0 0 28 14" aria-hidden="true" style="color:{color}">'
        f'<path d="M0 7H28" stroke="currentColor" stroke-width="2"{dashes}/>'
        f'<path d="{"".join(corners)}" fill="currentColor"/></svg>'
    )


def _lines(view: View) -> Iterator[tuple[Entry, Any]]:
    yield from line_styles(view.entries).items()


def _look(entry: Entry, line: Any) -> dict[str, Any]:
    style = entry.style
    return {"color": style.light, "marker": style.marker, "linestyle": line, "markeredgewidth": 0, "label": entry.name}


def _percent(axes: Axes) -> None:
    """Margins that never show a share beyond 100 %."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -1.5), min(high, 101.5))
    axes.yaxis.set_major_locator(MaxNLocator(6))


def _place(axes: Axes, labels: Sequence[tuple[tuple[float, float], str, str]]) -> None:
    """Write each point's label where it covers no other label or point, as near to the point as possible."""
    figure = axes.figure
    figure.canvas.draw()  # fixes the layout: positions below are in pixels
    scale = figure.dpi / 72
    points: list[tuple[float, float]] = [tuple(axes.transData.transform(at)) for at, _, _ in labels]
    taken = [(x - 5 * scale, y - 5 * scale, x + 5 * scale, y + 5 * scale) for x, y in points]
    frame = axes.get_window_extent()
    for (at, text, color), (x, y) in sorted(zip(labels, points, strict=True), key=lambda item: -item[1][1]):
        made = axes.annotate(text, at, xytext=(0, 0), textcoords="offset points", color=color, fontsize=9.5, zorder=4)
        size = made.get_window_extent()
        options = [_box(x, y, size.width, size.height, side, gap * scale) for gap in (8, 13, 19, 26) for side in SIDES]
        costs = [_cost(box, taken, frame) for box in options]
        box = options[costs.index(min(costs))]
        taken.append(box)
        made.set_position(((box[0] - x) / scale, (box[1] - y) / scale))


SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
Box = tuple[float, float, float, float]


def _box(x: float, y: float, width: float, height: float, side: tuple[int, int], gap: float) -> Box:
    """The box of a label on one side of a point, pixels."""
    across, up = side
    left = x + across * gap - width * (1 - across) / 2
    bottom = y + up * gap * 0.8 - height * (1 - up) / 2
    return left, bottom, left + width, bottom + height


def _cost(box: Box, taken: Sequence[Box], frame: Any) -> float:
    """Area that a label would share with what is there, or have outside the frame."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    inside = _shared(box, (frame.x0, frame.y0, frame.x1, frame.y1))
    return round(sum(_shared(box, other) for other in taken) + 3 * (area - inside), 3)


def _shared(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _grid(draws: Sequence[Draw]) -> tuple[tuple[float, float], Callable[[Figure], None]]:
    """Size and filling of a figure with a panel for each drawing, at most three a row."""
    columns = 2 if len(draws) in (2, 4) else min(3, len(draws))
    rows = -(-len(draws) // columns)

    def fill(figure: Figure) -> None:
        for i, draw in enumerate(draws):
            draw(figure.add_subplot(rows, columns, i + 1))

    return (max(5.6, 4.3 * columns), 3.2 * rows + 0.5), fill


def _png(
    plan: tuple[tuple[float, float], Callable[[Figure], None]],
    entries: Sequence[Entry],
    lines: Mapping[Entry, Any],
    *,
    markers: bool = True,
) -> bytes:
    """A whole figure on white, with one legend below."""
    size, fill = plan
    with _drawing():
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        canvas = FigureCanvasAgg(figure)
        if entries:
            looks = [_look(entry, lines.get(entry, "-")) | ({} if markers else {"marker": "none"}) for entry in entries]
            handles = [Line2D([], [], **look) for look in looks]
            columns = min(len(handles), max(2, int(size[0] / 1.7)))
            figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.4)
        fill(figure)
        buffer = io.BytesIO()
        canvas.print_figure(buffer, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def _drawing() -> Iterator[None]:
    """Our settings for one figure; a sign that the font lacks becomes a box without a warning."""
    with mpl.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        yield


def _inline(text: str, name: str) -> str:
    """matplotlib's SVG file -> an element for HTML: no prolog or namespaces, ids of its own, colours of the page."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    head, rest = body.split(">", 1)
    head = re.sub(r' (xmlns(:\w+)?|width|height|version)="[^"]*"', "", head)
    rest = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', rest)
    rest = re.sub(r'"#([^"]+)"', rf'"#{name}-\1"', rest)
    rest = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", rest)
    for color, variable in VARIABLES.items():
        rest = rest.replace(f": {color}", f": {variable}")
    return f"{head}>{rest}".strip()
