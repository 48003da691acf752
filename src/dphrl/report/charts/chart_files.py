"""Vega-Lite charts drawn by vl-convert: SVG inside the page, SVG and PNG files, and the script that makes them live."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dphrl.files import replaced
from dphrl.report.charts.spec import HOVER, INK, MUTED, Spec

VERSION = "6.4"
"""Version of Vega-Lite, one of those that vl-convert holds."""

PRINTED: dict[str, str] = {
    INK: "#20242c",
    MUTED: "#5c6470",
    "var(--grid)": "#d9dde3",
    "var(--page)": "#ffffff",
}
"""Colours of the page -> those of files, which are on white; entries bring their own."""

PNG_SCALE = 2.0

GROWN = 1.2
"""How much wider than drawn a chart may become on a wide page: letters stay of one size."""

CONFIG: Spec = {
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "gridColor": "var(--grid)",
        "domainColor": MUTED,
        "tickColor": MUTED,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelPadding": 4,
    },
    "title": {
        "color": INK,
        "anchor": "start",
        "fontSize": 12.5,
        "fontWeight": 600,
        "offset": 9,
        "frame": "group",
        "limit": 320,
    },
    "legend": {"labelColor": INK, "titleColor": MUTED},
    "text": {"color": INK},
}


def live(spec: Spec) -> Spec:
    """The chart for a browser: it follows the page's colours, and `off` names the entries that are hidden."""
    hidden = {"filter": "indexof(off, datum.entry) < 0"}
    layers = [_hiding(layer, hidden) if "data" in layer else layer for layer in spec.get("layer", ())]
    params = {"params": [{"name": "off", "value": []}]}
    own = {"layer": layers, "transform": [hidden]} if layers else {}
    return {"config": CONFIG, "background": None, "padding": 3, **spec, **own, **params}


def svg(spec: Spec, name: str) -> str:
    """The chart as an SVG element for the page: it scales, loads nothing, and stands where scripts are off.

    Args:
        spec: a chart of this folder.
        name: prefix of its ids, unique in the page.
    """
    import vl_convert

    return _inline(vl_convert.vegalite_to_svg(live(_still(spec)), vl_version=VERSION), name)


def write_figure(spec: Spec, folder: Path, name: str, colors: Mapping[str, str]) -> None:
    """FOLDER/NAME.svg and NAME.png, on white.

    Args:
        colors: colour on the page -> colour on white, of every entry.
    """
    import vl_convert

    whole = {"config": CONFIG, "background": "white", "padding": 12, **spec}
    printed = _recolored(_still(whole), {**PRINTED, **colors})
    drawn = vl_convert.vegalite_to_svg(printed, vl_version=VERSION)
    with replaced(folder / f"{name}.svg") as staging:
        staging.write_text(drawn, encoding="utf-8")
    with replaced(folder / f"{name}.png") as staging:
        staging.write_bytes(vl_convert.svg_to_png(drawn, scale=PNG_SCALE))


@functools.cache
def script() -> str:
    """Vega, Vega-Lite and their interpreter as one script that sets `vegaEmbed`; about 900 kB, 1 s to make."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VERSION)
    # Inside an HTML script element only these could end it or open a comment; in JavaScript they mean the same.
    return re.sub(r"</(script)", r"<\\/\1", bundle, flags=re.IGNORECASE).replace("<!--", r"<\!--")


def swatch(css: str, marker: str, dashes: tuple[float, ...]) -> str:
    """The legend's sign of an entry as an inline SVG: its line and marker."""
    dashed = f' stroke-dasharray="{" ".join(map(str, dashes))}"' if dashes else ""
    return (
        f'<svg class="swatch" viewBox="0 0 28 14" aria-hidden="true" style="color:{css}">'
        f'<path d="M0 7H28" stroke="currentColor" stroke-width="2"{dashed}/>'
        f'<path d="{marker}" transform="translate(14 7) scale(5)" fill="currentColor"/></svg>'
    )


def _still(spec: Spec) -> Spec:
    """The chart, or the charts of a figure, without what only answers to the pointer."""
    parts = {"concat": [_still(part) for part in spec["concat"]]} if "concat" in spec else {}
    layers = {"layer": [layer for layer in spec["layer"] if layer.get("name") != HOVER]} if "layer" in spec else {}
    return {**spec, **parts, **layers}


def _hiding(layer: Spec, hidden: Spec) -> Spec:
    return {**layer, "transform": [*layer.get("transform", ()), hidden]}


def _recolored(value: Any, colors: Mapping[str, str]) -> Any:
    """The same structure with every text that is a colour of the page replaced."""
    if isinstance(value, Mapping):
        return {k: _recolored(v, colors) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_recolored(v, colors) for v in value]
    return colors.get(value, value) if isinstance(value, str) else value


def _inline(text: str, name: str) -> str:
    """An SVG file -> an element for HTML: no namespaces or fixed size, ids of its own."""
    head, rest = text[text.index("<svg") :].split(">", 1)
    width = re.search(r'\bwidth="(\d+)', head)
    widest = f' style="max-width:{GROWN * int(width[1]):.0f}px"' if width else ""
    head = re.sub(r' (xmlns(:\w+)?|width|height|version)="[^"]*"', "", head)
    rest = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', rest)
    rest = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", rest)
    return f"{head}{widest}>{rest}".strip()
