"""The page, the figures and the terminal table, from a summary written by hand."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dphrl.errors import DataError
from dphrl.report import print_summary, write_report
from dphrl.report.curves import curves
from dphrl.report.labels import METHODS, display, plain
from dphrl.report.looks import looks
from dphrl.report.verdict import choice, headline, verdicts
from dphrl.report.view import Entry, View, interval, number

LEVELS = {
    "base": {"greedy": 0.794, "mean_at_n": 0.622, "pass@1": 0.622, "pass@8": 0.986, "pass@64": 1.0},
    "grpo": {"greedy": 0.833, "mean_at_n": 0.789, "pass@1": 0.789, "pass@8": 0.874, "pass@64": 0.932, "keep": 0.932},
    "dph_f": {"greedy": 0.841, "mean_at_n": 0.767, "pass@1": 0.767, "pass@8": 0.963, "pass@64": 0.997, "keep": 0.997},
}
"""The prototype's numbers (DESIGN.md)."""
DISTINCT = {"base": 7.5, "grpo": 2.3, "dph_f": 6.1}


def aggregate(entry: str, setting: str, dataset: str, seeds: int) -> list[dict[str, Any]]:
    """Every metric of one entry; half-widths 0.01, sd 0.004, differences to GRPO +- 0.02."""
    values = LEVELS[entry] | {"distinct_correct": DISTINCT[entry], "pass@n": LEVELS[entry]["pass@64"]}
    rows = []
    for metric in (*LEVELS["grpo"], "explore", "pass@n", "distinct_correct"):
        mean = values.get(metric)
        known = LEVELS["grpo"] | {"distinct_correct": 2.3, "pass@n": 0.932}
        gap = None if entry == "grpo" or mean is None else mean - known[metric]
        rows.append(
            {
                "method": entry,
                "setting": setting,
                "dataset": dataset,
                "metric": metric,
                "mean": mean,
                "sd": 0.004 if seeds > 1 else None,
                "seeds": seeds,
                "low": None if mean is None else mean - 0.01,
                "high": None if mean is None else min(mean + 0.01, 1.0 if metric != "distinct_correct" else 99),
                "difference": gap and {"baseline": "grpo", "value": gap, "low": gap - 0.02, "high": gap + 0.02},
            }
        )
    return rows


def summary_of(
    entries: Mapping[str, str], *, datasets: tuple[str, ...] = ("in_domain", "arithmetic"), seeds: int = 3, **more: Any
) -> dict[str, Any]:
    """A comparison; `entries` maps 'method setting' to the method whose numbers it has."""
    keys = [(key.partition(" ")[0], key.partition(" ")[2], like) for key, like in entries.items()]
    rows = [
        {"method": method, "setting": setting, "seed": s, "dataset": d, "n": 64, "prompts": 98}
        for method, setting, _ in keys
        for d in datasets
        for s in range(seeds)
    ]
    found = [
        a | {"method": method}
        for method, setting, like in keys
        for d in datasets
        for a in aggregate(like, setting, d, seeds)
    ]
    return {"rows": rows, "aggregate": found, "baseline": "grpo", "notes": [], **more}


THREE = {"base": "base", "grpo": "grpo", "dph_f": "dph_f"}
TRAINING = {
    m: [
        {"step": s, "seed": seed, "reward": s / 20 + seed, "entropy": 1 / (1 + s)} for s in range(10) for seed in (0, 1)
    ]
    for m in ("grpo", "dph_f")
}


class Loads(HTMLParser):
    """Everything in a page that a browser would fetch or run, and its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster") or name.startswith("on"):
                self.found.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


HOW = {"Versions": {"trl": "1.16.0"}, "Commands": ["dphrl demo"], "Runs": [{"run": "a", "seed": 7}], "Text": "eta: 0.2"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of THREE."""
    summary = summary_of(THREE, notes=["Seeds differ."])
    return write_report(summary, tmp_path_factory.mktemp("report"), title="Demo", training=TRAINING, how=HOW).parent


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    """Its page."""
    return (folder / "index.html").read_text()


def test_the_page_is_one_file_that_loads_nothing(page: str) -> None:
    """Links stay inside the page, no script, no address, no id twice."""
    loads = Loads(page)
    assert all(re.fullmatch(r"use xlink:href=#[\w-]+", found) for found in loads.found), set(loads.found)
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(loads.tags)
    assert "http:" not in page and "https:" not in page and "@import" not in page and "@font-face" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", page)) | set(re.findall(r'href="#([^"]+)"', page))
    assert used <= set(ids)
    assert page.count("<figure") == 2 + 2 + 2


def test_colours_follow_the_page_in_light_and_dark(page: str) -> None:
    """No colour of ours is left in the figures; every variable that they use is defined for both."""
    style, figures = page.split("</style>", 1)
    assert not re.findall(r"#[0-9a-f]{6}\b", figures)
    used = set(re.findall(r"var\((--[\w-]+)\)", page))
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    assert used and all(f"{name}:" in light and f"{name}:" in dark for name in used)


def test_figures_are_pngs_beside_the_page(folder: Path) -> None:
    found = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    assert set(found) == {"pass_at_k.png", "frontier.png", "training.png"}
    assert all(content.startswith(b"\x89PNG\r\n") and len(content) > 10_000 for content in found.values())
    assert json.loads((folder / "summary.json").read_text()) == summary_of(THREE, notes=["Seeds differ."])


def test_the_same_summary_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    write_report(summary, tmp_path, title="Demo", training=TRAINING, how=HOW)
    for path in ("index.html", "figures/pass_at_k.png", "figures/frontier.png", "figures/training.png"):
        assert (tmp_path / path).read_bytes() == (folder / path).read_bytes()


EVIL = '</template></style></svg><script>alert("x")</script>-->\u202egnp.$x_1$\x1b[31m'


def test_what_users_wrote_is_shown_and_never_run(tmp_path: Path) -> None:
    """Markup, bidirectional marks, escapes and formulas in every text: the page has them as text."""
    summary = summary_of({**THREE, f"dph_js {EVIL}": "dph_f"}, datasets=(EVIL,), notes=[EVIL])
    how = {EVIL: EVIL, "list": [EVIL], "table": {EVIL: EVIL}, "rows": [{"run": EVIL}]}
    training = {f"dph_js {EVIL}": TRAINING["grpo"]}
    text = write_report(summary, tmp_path, title=EVIL, training=training, how=how).read_text()
    loads = Loads(text)
    assert not {"script", "template"} & set(loads.tags)
    assert "<script" not in text and "\u202e" not in text and "\x1b" not in text
    shown = "".join(loads.text)
    assert shown.count('<script>alert("x")</script>') > 10 and "\\u202egnp.$x_1$\\u001b[31m" in shown


def test_a_name_without_a_sign_in_the_font_is_drawn_without_a_warning(tmp_path: Path) -> None:
    write_report(summary_of(THREE, datasets=("数学",)), tmp_path, title="数学", training=None, how={})


def test_how_it_was_made_is_shown_by_kind(page: str) -> None:
    assert "<tr><th>trl</th><td>1.16.0</td></tr>" in page and "<code>dphrl demo</code>" in page
    assert "<tr><td>a</td><td>7</td></tr>" in page and "<pre>eta: 0.2</pre>" in page


def test_the_page_says_what_the_summary_says(page: str) -> None:
    """A cell per number: 76.7 with its spread and interval; the difference to GRPO, bold since it leaves out 0."""
    assert '<td>76.7 <small style="display:inline">± 0.4</small><small>[75.7, 77.7]</small></td>' in page
    assert '<td class="clear">+8.9<small>[+6.9, +10.9]</small></td>' in page
    assert '<td class="clear">-2.2<small>[-4.2, -0.2]</small></td>' in page
    assert "<li>Seeds differ.</li>" in page and "2 datasets, 2 methods, seeds 0, 1, 2" in page
    assert "98 prompts, n = 64" in page and "<th>Pass@8</th><th>Pass@64</th>" in page


def test_a_verdict_has_its_numbers_and_says_where_nothing_is_clear() -> None:
    """mean@64 .767 - .622 = +14.5 points; greedy is not in it; an interval around 0 is no clear difference."""
    view = View(summary_of(THREE, datasets=("in_domain",)))
    assert verdicts(view) == {
        "in_domain": "DPH-F keeps 99.7 % of what the base solved, GRPO 93.2 % (+6.5 points [+4.5, +8.5]); "
        "mean@64 76.7 %, +14.5 points against the base, -2.2 points [-4.2, -0.2] against GRPO; "
        "Pass@8 96.3 %, -2.3 points against the base, +8.9 points [+6.9, +10.9] against GRPO."
    }
    same = summary_of({"grpo": "grpo", "dapo": "dph_f"}, datasets=("in_domain",))
    for a in same["aggregate"]:
        if a["difference"]:
            a["difference"] |= {"low": -0.01, "high": 0.2}
    assert "no clear difference from GRPO (-2.2 points [-1.0, +20.0])" in verdicts(View(same))["in_domain"]


def test_the_verdict_of_one_run_is_against_its_base() -> None:
    summary = summary_of({"base": "base", "grpo": "grpo"}, datasets=("in_domain",), baseline="base")
    for a in summary["aggregate"]:
        gap = {"baseline": "base", "value": 0.167, "low": 0.1, "high": 0.2}
        a["difference"] = gap if a["method"] == "grpo" and a["metric"] == "mean_at_n" else None
    said = verdicts(View(summary))["in_domain"]
    assert said == (
        "GRPO keeps 93.2 % of what the base solved [92.2, 94.2]; "
        "mean@64 78.9 %, +16.7 points [+10.0, +20.0] against the base; Pass@8 87.4 %."
    )
    alone = View(summary_of({"base": "base"}, datasets=("in_domain",), baseline=None))
    assert verdicts(alone)["in_domain"] == "Base mean@64 62.2 %; Pass@8 98.6 %."


def test_the_entry_of_the_verdict_is_chosen_openly() -> None:
    """Of two DPH entries the one with the higher mean@64 + Pass@8, and the reader is told."""
    view = View(summary_of({"grpo": "grpo", "dph_f eta=0.05": "grpo", "dph_f eta=0.2": "dph_f"}))
    assert headline(view) == Entry("dph_f", "eta=0.2")
    assert choice(view).startswith("DPH-F eta=0.2 is named because, of 2 DPH entries")
    assert choice(View(summary_of(THREE))) == ""


def test_entries_stand_in_the_order_of_the_table_and_of_their_numbers() -> None:
    keys = [
        "dph_f eta=0.5",
        "dph_f eta=0.05",
        "zeta",
        "rkl beta=0.1 k3",
        "rkl beta=0.1 k2",
        "grpo maxrl",
        "grpo",
        "base",
    ]
    view = View(summary_of(dict.fromkeys(keys, "grpo")))
    assert [f"{e.method} {e.setting}".strip() for e in view.entries] == [
        *("base", "grpo", "grpo maxrl", "rkl beta=0.1 k2", "rkl beta=0.1 k3", "dph_f eta=0.05", "dph_f eta=0.5", "zeta")
    ]
    assert view.baseline == Entry("grpo") and view.sweeps() == {"grpo", "rkl", "dph_f"}


def test_a_sweep_goes_from_pale_to_full_and_another_estimator_changes_the_line() -> None:
    entries = [Entry("rkl", f"beta={b} {k}") for b in (0.1, 0.5) for k in ("k2", "k3")]
    found = looks(entries)
    assert [look.css for look in found.values()] == [
        *["color-mix(in srgb, var(--rkl) 50%, var(--page))"] * 2,
        *["var(--rkl)"] * 2,
    ]
    assert found[entries[0]].line == found[entries[2]].line != found[entries[1]].line == found[entries[3]].line
    assert looks([Entry("grpo")])[Entry("grpo")].color == METHODS["grpo"].light
    assert looks([Entry("zeta")])[Entry("zeta")].css == "var(--other)"


def test_a_sweep_of_many_settings_is_drawn(tmp_path: Path) -> None:
    keys = [f"dph_f eta={e}" for e in (0.05, 0.2, 0.5)] + [
        f"rkl beta={b} {k}" for b in (0.02, 0.1, 0.5) for k in ("k2", "k3")
    ]
    summary = summary_of({"base": "base", "grpo": "grpo", **dict.fromkeys(keys, "dph_f")}, datasets=("in_domain",))
    text = write_report(summary, tmp_path, title="Sweep", training=None, how={}).read_text()
    assert "10 method settings" in text and "Bands:" not in text and "color-mix" in text


def test_curves_average_seeds_and_smooth() -> None:
    """Rewards s/20 and s/20 + 1 over s = 0..9: mean s/20 + 1/2 inside; at the start the mean of three values."""
    found = curves(TRAINING)
    assert list(found) == ["reward", "entropy"] and list(found["reward"]) == [Entry("grpo"), Entry("dph_f")]
    curve = found["reward"][Entry("grpo")]
    assert curve.seeds == 2 and curve.steps.tolist() == list(range(10))
    np.testing.assert_allclose(curve.mean[2:8], np.arange(2, 8) / 20 + 0.5)
    assert curve.mean[0] == pytest.approx((0 + 1 + 2) / 3 / 20 + 0.5)
    np.testing.assert_allclose(curve.high - curve.low, 1.0)
    assert curves({"grpo": [{"step": 1, "reward": None}, {"step": 2, "reward": float("nan")}, {"loss": 1.0}]}) == {}


@pytest.mark.parametrize(
    ("value", "metric", "signed", "expected"),
    [
        (0.9966, "keep", False, "99.7"),
        (6.14, "distinct_correct", False, "6.1"),
        (-0.0001, "keep", True, "+0.0"),
        (-0.022, "greedy", True, "-2.2"),
        (None, "keep", False, "–"),
    ],
)
def test_numbers_have_one_decimal(value: float | None, metric: str, signed: bool, expected: str) -> None:
    assert number(value, metric, signed=signed) == expected


def test_intervals_and_names() -> None:
    assert interval(0.1, 0.25, "keep") == "[10.0, 25.0]" and interval(None, 0.2, "keep") == ""
    assert display("dph_f", "eta=0.2") == "DPH-F eta=0.2" and display("new") == "new"
    assert plain("a\u202eb\x1b[0m\nc\u2066") == "a\\u202eb\\u001b[0m\nc\\u2066"


def test_a_summary_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows; evaluate at least one run with `dphrl eval`"):
        write_report({"rows": [], "aggregate": []}, tmp_path, title="x", training=None, how={})
    with pytest.raises(DataError, match="no rows"):
        print_summary({}, Console())


def printed(summary: Mapping[str, Any], *, width: int = 100, encoding: str = "utf-8", terminal: bool = False) -> str:
    buffer = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    print_summary(summary, Console(file=buffer, width=width, force_terminal=terminal, _environ={}))
    return buffer.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


GOLDEN = """
in-domain: DPH-F keeps 99.7 % of what the base solved, GRPO 93.2 % (+6.5 points [+4.5, +8.5]);
mean@64 76.7 %, +14.5 points against the base, -2.2 points [-4.2, -0.2] against GRPO; Pass@8 96.3 %,
-2.3 points against the base, +8.9 points [+6.9, +10.9] against GRPO.
"""
TABLE = """\
           greedy    mean@64        P@8        P@64       keep   explore   distinct   P@1-64
─────────────────────────────────────────────────────────────────────────────────────────────
 Base    79.4±0.4   62.2±0.4   98.6±0.4   100.0±0.4          –         –    7.5±0.0   ▁██
 GRPO    83.3±0.4   78.9±0.4   87.4±0.4    93.2±0.4   93.2±0.4         –    2.3±0.0   ▄▆▇
 DPH-F   84.1±0.4   76.7±0.4   96.3±0.4    99.7±0.4   99.7±0.4         –    6.1±0.0   ▄▇█
98 prompts, n = 64; rates in %; ±: sd over seeds
Note: Seeds differ.
"""


def test_the_terminal_shows_a_verdict_and_a_table() -> None:
    """Golden: width 100, no colour."""
    summary = summary_of(THREE, datasets=("in_domain",), notes=["Seeds differ."])
    assert [line.rstrip() for line in printed(summary).splitlines()] == (GOLDEN + TABLE).splitlines()


@pytest.mark.parametrize("width", [44, 60, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(width: int) -> None:
    text = printed(summary_of(THREE), width=width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    assert "DPH-F   " in text and "76.7" in text and "99.7" in text


def test_terminals_without_unicode_get_ascii_and_users_text_is_no_markup() -> None:
    summary = summary_of({**THREE, f"dph_js [red]{EVIL}": "dph_f"}, datasets=("in_domain",), seeds=1)
    text = printed(summary, encoding="ascii", width=200)
    assert "76.7+/-1.0" in text and "+/-: half of the 95 % interval" in text and "[red]" in text
    coloured = printed(summary, width=200, terminal=True)
    assert "\x1b[31m" not in coloured and "\u202e" not in coloured and "\x1b[1m" in coloured
