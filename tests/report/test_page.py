"""The page, its figures and tables, from a summary written by hand."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_summaries import EVIL, THREE, TRAINING, comparison, comparison_of, summary_of, with_limit

from dphrl.files import read_json
from dphrl.report.comparison import Entry
from dphrl.report.labels import METHODS
from dphrl.report.page.drift_view import AnchorDrift, DriftedAnchor
from dphrl.report.page.sample_browser import AskedPrompt, browse
from dphrl.report.page.write_page import Extras, write_page

pytestmark = pytest.mark.slow


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


LIMITED = with_limit(summary_of(THREE, notes=["Seeds differ."]), what="<b>not bold</b>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of THREE, with a limit."""
    summary = comparison_of(LIMITED)
    extras = Extras(training=TRAINING, how=HOW)
    return write_page(summary, tmp_path_factory.mktemp("report"), title="Demo", extras=extras).parent


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    """Its page."""
    return (folder / "index.html").read_text()


def test_the_page_is_one_file_that_loads_nothing(page: str) -> None:
    """Links stay inside the page, no script but the two that its policy names by their hash, no id twice."""
    loads = Loads(page)
    assert all(re.fullmatch(r"(a href|use xlink:href)=#[\w-]+", found) for found in loads.found), set(loads.found)
    assert not {"link", "img", "iframe", "object", "base", "embed"} & set(loads.tags)
    assert "@import" not in page and "@font-face" not in page and "unsafe-eval" not in page
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
    assert len(scripts) == 2 and loads.tags.count("script") == 3  # and the data of the charts
    assert f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {' '.join(hashes)}\"" in page
    body = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "http:" not in body and "https:" not in body
    ids = re.findall(r'\bid="([^"]+)"', body)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", body)) | set(re.findall(r'href="#([^"]+)"', body))
    assert used <= set(ids)
    assert body.count("<figure") == 2 + 2 + 2 + 2 + 2  # Pass@k, frontier, keep, distinct correct; reward, entropy


def test_every_chart_has_a_text_and_its_data(page: str) -> None:
    """What a screen reader says, and what the script draws: one of each for every figure."""
    figures = re.findall(r'<figure id="([\w-]+)" role="img" aria-label="([^"]+)">', page)
    data = json.loads(re.search(r'<script type="application/json" id="charts">(.*?)</script>', page)[1])  # type: ignore[index]
    assert [name for name, _ in figures] == list(data) and all(len(label) > 20 for _, label in figures)
    assert dict(figures)["keep-0"] == "Keep, %, in-domain: GRPO 93.2, DPH-F 99.7"


def test_the_page_says_what_the_limit_is(page: str, folder: Path) -> None:
    assert (
        "Dashed, the limit (in-domain): &lt;b&gt;not bold&lt;/b&gt;." in page
        and "Distance to the limit in points" in page
    )
    svg = (folder / "figures" / "frontier.svg").read_text()
    assert svg.count(">limit</text>") == 1


def test_colours_follow_the_page_in_light_and_dark(page: str) -> None:
    """No colour of ours is left in the figures; every variable that they use is defined for both."""
    style, figures = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL).split("</style>", 1)
    assert not re.findall(r"#[0-9a-f]{6}\b", figures)
    used = set(re.findall(r"var\((--[\w-]+)\)", page)) - {"--share"}
    light, dark = style.split("(prefers-color-scheme: dark)")
    assert {name for name in used if f"{name}:" not in light} == set()
    assert {name for name in used if f"{name}:" not in dark} <= {"--accent"}  # made of the others


def test_figures_and_tables_are_files_beside_the_page(folder: Path) -> None:
    names = {"pass_at_k", "frontier", "retention", "diversity", "forgetting", "training"}
    found = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    assert set(found) == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert all(content.startswith(b"\x89PNG\r\n") for name, content in found.items() if name.endswith("png"))
    drawn = [content.decode() for name, content in found.items() if name.endswith("svg")]
    assert all(svg.startswith("<svg xmlns=") and "var(--" not in svg for svg in drawn)
    assert METHODS["dph_f"].light in found["pass_at_k.svg"].decode()
    assert read_json(folder / "summary.json") == comparison_of(LIMITED).to_json()
    assert {p.name for p in (folder / "tables").iterdir()} == {
        *("numbers.csv", "numbers.md", "pass_at_k.csv", "pass_at_k.md", "training.csv", "training.md"),
        *("verdict.csv", "verdict.md", "verdict.tex", "limit.csv", "limit.md"),
    }


def test_tables_hold_the_numbers(folder: Path) -> None:
    """CSV in full precision, one number a line; Markdown as on the page."""
    rows = list(csv.DictReader((folder / "tables" / "numbers.csv").read_text().splitlines()))
    keep = next(r for r in rows if (r["dataset"], r["method"], r["metric"]) == ("in_domain", "dph_f", "keep"))
    assert keep["mean"] == "0.997" and float(keep["low"]) == pytest.approx(0.987) and keep["seeds"] == "3"
    assert float(keep["difference"]) == pytest.approx(0.065)
    assert "| DPH-F | 84.1 \\[83.1" not in (text := (folder / "tables" / "numbers.md").read_text())
    assert "| DPH-F | 84.1 [83.1, 85.1] | 76.7 [75.7, 77.7] |" in text and "## in-domain, 98 prompts, n = 64" in text


def test_the_same_summary_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    summary = comparison_of(read_json(folder / "summary.json"))
    write_page(summary, tmp_path, title="Demo", extras=Extras(training=TRAINING, how=HOW))
    for path in (p.relative_to(folder) for p in folder.rglob("*") if p.is_file()):
        assert (tmp_path / path).read_bytes() == (folder / path).read_bytes(), path


def test_what_users_wrote_is_shown_and_never_run(tmp_path: Path) -> None:
    """Markup, bidirectional marks, escapes and formulas in every text: the page has them as text."""
    summary = comparison({**THREE, f"dph_js {EVIL}": "dph_f"}, datasets=(EVIL,), notes=[EVIL])
    how = {EVIL: EVIL, "list": [EVIL], "table": {EVIL: EVIL}, "rows": [{"run": EVIL}]}
    training = {Entry("dph_js", EVIL): TRAINING[Entry("grpo")]}
    text = write_page(summary, tmp_path, title=EVIL, extras=Extras(training=training, how=how)).read_text()
    loads = Loads(text)
    assert loads.tags.count("script") == 3 and "template" not in loads.tags
    body = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert "<script" not in body and "\u202e" not in text and "\x1b" not in text
    shown = "".join(loads.text)
    assert shown.count('<script>alert("x")</script>') > 10 and "\\u202egnp.$x_1$\\u001b[31m" in shown
    files = [p.read_text() for kind in ("md", "csv", "svg") for p in tmp_path.rglob(f"*.{kind}")]
    assert files and not any("\u202e" in file or "\x1b" in file for file in files)
    assert not re.search(r"(?<!\\)<script", (tmp_path / "tables" / "numbers.md").read_text())


def test_numbers_of_another_harness_stand_on_the_page_and_in_a_file(tmp_path: Path) -> None:
    row = {"method": "grpo", "setting": "", "seed": 0, "task": "<gsm8k>", "metric": "exact_match", "filter": "none"}
    row |= {"value": 0.25, "stderr": 0.01, "n": 1319, "higher_is_better": True}
    summary = comparison({"grpo": "grpo"}, datasets=("in_domain",), baseline=None, harness=[row])
    text = write_page(summary, tmp_path, title="Other").read_text()
    assert "&lt;gsm8k&gt;" in text and "<gsm8k>" not in text and "0.2500 ± 0.0100" in text
    assert "0.2500 ± 0.0100" in (tmp_path / "tables" / "harness.csv").read_text()


def test_any_name_is_drawn(tmp_path: Path) -> None:
    """Not every font has these signs; the page says them all the same."""
    summary = comparison({"grpo": "grpo"}, datasets=("数学",), baseline=None)
    assert "Pass@k, 数学, %" in write_page(summary, tmp_path, title="数学").read_text()


def test_how_it_was_made_is_shown_by_kind(page: str) -> None:
    assert "<tr><th>trl</th><td>1.16.0</td></tr>" in page and "<code>dphrl demo</code>" in page
    assert "<tr><td>a</td><td>7</td></tr>" in page and "<pre>eta: 0.2</pre>" in page


def test_the_page_says_what_the_summary_says(page: str) -> None:
    """A cell per number: 76.7 with its spread and interval; the difference to GRPO, bold since it leaves out 0."""
    assert '<td>76.7 <small style="display:inline">± 0.4</small><small>[75.7, 77.7]</small></td>' in page
    assert '<td class="clear">+8.9<small>[+6.9, +10.9]</small></td>' in page
    assert '<td class="clear">-2.2<small>[-4.2, -0.2]</small></td>' in page
    assert "<li>Seeds differ.</li>" in page and "2 datasets, 2 methods, seeds 0, 1, 2" in page
    assert "98 prompts, n = 64" in page and '<th scope="col">Pass@8</th><th scope="col">Pass@64</th>' in page


def test_a_sweep_of_many_settings_is_drawn(tmp_path: Path) -> None:
    keys = [f"dph_f eta={e}" for e in (0.05, 0.2, 0.5)] + [
        f"rkl beta={b} {k}" for b in (0.02, 0.1, 0.5) for k in ("k2", "k3")
    ]
    summary = comparison({"base": "base", "grpo": "grpo", **dict.fromkeys(keys, "dph_f")}, datasets=("in_domain",))
    text = write_page(summary, tmp_path, title="Sweep").read_text()
    assert "10 method settings" in text and "Bands:" not in text and "color-mix" in text


def test_ten_methods_on_five_tasks_stay_below_5_mb(tmp_path: Path) -> None:
    """Every part at its largest: a thousand log lines a run, samples of megabytes, 200 anchors of 500 tokens each."""
    names = [
        "base",
        "grpo",
        "dapo",
        "rkl",
        "replay",
        "dph_f",
        "dph_js",
        "dph_alpha",
        "dph_rkl",
        "dph_jeffreys",
        "dph_hellinger",
    ]
    tasks = tuple(f"task_{i}" for i in range(5))
    lines = [
        {"step": s, "reward": s / 1e3, "entropy": 1 / (1 + s), "anchor/forward_kl": s / 7, "anchor/eta": 0.2 + s}
        for s in range(1_000)
    ]
    files = {(Entry(n), t): big_samples(tmp_path / "samples") for n in names for t in tasks}
    asked = {t: {f"p{i}": AskedPrompt("<question> " * 9_000, "gold & " * 9_000) for i in range(30)} for t in tasks}
    anchor = DriftedAnchor("t", "p", 0, "<q>" * 2_000, ("<a>",) * 500, (-3.0,) * 500)
    extras = Extras(
        training={Entry(n): [lines] for n in names[1:]},
        drift={Entry(n): AnchorDrift({}, 10_000, True, (anchor,) * 200) for n in names[1:]},
        browser=browse(files, asked),
    )
    page = write_page(
        comparison(dict.fromkeys(names, "dph_f"), datasets=tasks), tmp_path / "out", title="Big", extras=extras
    )
    assert 2_000_000 < page.stat().st_size < 5_000_000


def big_samples(path: Path) -> Path:
    """30 prompts with a right and a wrong completion of 60 kB each."""
    if not path.exists():
        rows = [
            {"prompt_id": f"p{i}", "draw": d, "text": "a < b & c " * 6_000, "finish_reason": "stop", "correct": d == 0}
            | {"reward": float(d == 0), "status": "correct" if d == 0 else "wrong", "detail": "<detail> " * 1_000}
            for i in range(30)
            for d in range(2)
        ]
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path
