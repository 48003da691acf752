"""The report in a real browser: `make test-browser`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from report_summaries import EVIL, THREE, TRAINING, comparison

from dphrl.report.comparison import Entry
from dphrl.report.page.cut_text import cut, cut_middle
from dphrl.report.page.drift_view import TOKENS_SHOWN, AnchorDrift, DriftedAnchor
from dphrl.report.page.prompt_spots import PromptSpots, Spot
from dphrl.report.page.sample_browser import Browser, Case, Cell, Shown, State
from dphrl.report.page.write_page import Extras, write_page

pytestmark = pytest.mark.slow

HOSTILE = (
    "<script>alert(1)</script>",
    "</script></template></pre></article><h1>owned</h1>",
    "<img src=x onerror=alert(2)><svg onload=alert(3)>",
    "\u202e\u2066reversed\u2069 \x1b[31m",
    "{{ 7 * 7 }} ${alert(4)} <!-- --> ]]> &lt;b&gt;",
    "<b>" * 350_000,
)


def sample(text: str, status: str) -> Shown:
    shown, left_out, end = cut_middle(text, 2_000)
    return Shown("draw 1", status, status == "correct", shown, left_out, end, cut(text, 200)[0], False)


def case(number: int, text: str, states: tuple[State, State]) -> Case:
    verdicts = ("correct" if states[0] in ("kept", "found") else "wrong", "wrong")
    cells = tuple(
        Cell(Entry(method), state, 1, 4, (sample(text, verdict),))
        for method, state, verdict in zip(("grpo", "dph_f"), states, verdicts, strict=True)
    )
    prompt, _ = cut(f"question {number} {text}", 700)
    return Case("in_domain" if number % 2 else "arithmetic", f"p{number:03d}", prompt, cut(text, 300)[0], 0, cells)


def anchor(name: str, text: str, low: float) -> DriftedAnchor:
    return DriftedAnchor(text[:50], name, 0, text, (text, "b", "c"), (low, 0.3, 0.0))


SPOTS = PromptSpots(
    Entry("grpo"),
    "in_domain",
    (
        Spot(0.75, 0.0, "lost", 2, ("p003", "p009")),
        Spot(0.25, 0.25, "other", 9, ()),
        Spot(0.0, 0.5, "found", 1, ("p005",)),
    ),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every part, in which all texts of models, prompts and settings are hostile."""
    kinds: list[tuple[State, State]] = [("lost", "kept"), ("kept", "kept"), ("found", "unsolved")]
    cases = tuple(case(i, HOSTILE[i % len(HOSTILE)], kinds[i % 3]) for i in range(30))
    extras = Extras(
        training={**TRAINING, Entry("dph_js", EVIL): TRAINING[Entry("grpo")]},
        drift={
            Entry("grpo"): AnchorDrift(
                {}, 9, True, tuple(anchor(f"a{i}", text, float(-i)) for i, text in enumerate(HOSTILE))
            ),
            Entry("dph_f"): EVIL,
        },
        browser=Browser(cases, "The first prompts.", (SPOTS,)),
        how={EVIL: EVIL, "Settings": EVIL},
    )
    summary = comparison({**THREE, f"dph_js {EVIL}": "dph_f"}, notes=[EVIL])
    return write_page(summary, tmp_path_factory.mktemp("page"), title=EVIL, extras=extras)


def test_it_renders_without_a_complaint_and_asks_for_nothing(opened: Any, path: Path) -> None:
    with opened(path) as page:
        assert page.locator("figure svg").count() == page.locator("figure").count() == 11
        assert page.locator("figure svg path").first.is_visible()


def test_hostile_texts_stay_texts(opened: Any, path: Path) -> None:
    """No element of theirs, no dialog (see `opened`), nothing reordered, and a megabyte is cut with a note."""
    with opened(path) as page:
        assert page.locator("h1").count() == 1 and page.locator("img, template, iframe").count() == 0
        assert page.locator("script").count() == 3 and page.locator("[onload], [onerror]").count() == 0
        shown = page.locator("body").text_content()
        assert "<script>alert(1)</script>" in shown and "<h1>owned</h1>" in shown and "{{ 7 * 7 }}" in shown
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b]", shown) and "\\u202e" in shown
        assert re.search(r"… 1,04\d,\d{3} characters …", shown)
    assert path.stat().st_size < 3_000_000 and TOKENS_SHOWN == 200


def test_hovering_and_the_legend_work(opened: Any, path: Path) -> None:
    with opened(path) as page:
        page.locator("#pass-0 .mark-symbol path").first.hover()
        page.locator("#vg-tooltip-element.visible").wait_for()
        assert "Base" in page.locator("#vg-tooltip-element").inner_text()
        drawn = page.locator("#pass-0 .mark-symbol path[aria-label]")
        before, mine = drawn.count(), page.locator('#pass-0 .mark-symbol path[aria-label*="GRPO"]')
        toggle = page.get_by_role("button", name="GRPO").first
        toggle.focus()
        page.keyboard.press("Enter")
        mine.first.wait_for(state="detached")
        assert toggle.get_attribute("aria-pressed") == "false" and 0 < drawn.count() < before
        assert page.locator('.toggle[data-entry="GRPO"][aria-pressed="true"]').count() == 0  # in every legend
        page.keyboard.press("Enter")
        mine.first.wait_for(state="attached")
        assert drawn.count() == before


def test_samples_are_filtered(opened: Any, path: Path) -> None:
    """30 prompts in turn: GRPO lost, kept, found; 12 at a time are shown."""
    with opened(path) as page:
        form, count, cases = (
            page.locator("#sample-filters"),
            page.locator("#sample-count"),
            page.locator(".case:visible"),
        )
        assert count.inner_text() == "30 of 30 prompts" and cases.count() == 12
        page.locator("#sample-more").click()
        assert cases.count() == 24
        form.locator("[name=by-state]").select_option("lost")
        assert count.inner_text() == "10 of 30 prompts" and cases.count() == 10
        assert page.locator(".cell:visible").count() == 10
        form.locator("[name=by-method]").select_option("DPH-F")
        assert count.inner_text() == "0 of 30 prompts"
        page.get_by_role("button", name="Show all").click()
        page.locator("#sample-count:text-is('30 of 30 prompts')").wait_for()
        form.locator("[name=by-verdict]").select_option("correct")
        assert count.inner_text() == "20 of 30 prompts" and page.locator(".completion:visible .wrong").count() == 0
        form.locator("[name=by-task]").select_option("in_domain")
        assert count.inner_text() == "10 of 30 prompts"
        form.locator("[name=by-text]").fill("P007")
        assert count.inner_text() == "1 of 30 prompts"


def test_a_spot_shows_the_samples_of_its_prompts(opened: Any, path: Path) -> None:
    with opened(path) as page:
        page.locator("#prompts-0 .mark-symbol path").first.click()
        page.locator("#sample-count:text-is('2 of 30 prompts')").wait_for()
        assert page.locator(".case:visible code").all_inner_texts()[:1] == ["p003"]
        page.get_by_role("button", name="Show all").click()
        page.locator("#sample-count:text-is('30 of 30 prompts')").wait_for()


def test_without_scripts_everything_is_there(opened: Any, path: Path) -> None:
    with opened(path, scripts=False) as page:
        assert page.locator("figure svg").count() == page.locator("figure").count() == 11
        assert page.locator(".case:visible").count() == 30 and not page.locator("#sample-filters").is_visible()
        assert page.get_by_text("Scripts are off").is_visible()
        assert page.locator(".toggle:enabled").count() == 0


def contrast(page: Any, selector: str) -> float:
    """WCAG contrast of an element's colour on the page's."""
    return float(
        page.evaluate(
            """selector => {
              const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
              const light = text => {
                const [r, g, b] = text.match(/[\\d.]+/g).map(Number);
                return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
              };
              const style = getComputedStyle(document.querySelector(selector));
              const ink = style.fill !== "rgb(0, 0, 0)" && selector.includes("svg") ? style.fill : style.color;
              const pair = [light(ink), light(getComputedStyle(document.documentElement).backgroundColor)];
              return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
            }""",
            selector,
        )
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("scripts", [False, True])
def test_light_and_dark_are_readable(opened: Any, path: Path, dark: bool, scripts: bool) -> None:
    """Text at 4.5 : 1 and more, charts among it, as pictures and live."""
    if scripts:
        with opened(path, dark=dark) as page:
            assert contrast(page, "#pass-0 svg .role-axis text") > 4.5
            assert contrast(page, ".muted") > 4.5 and contrast(page, "h1") > 10
            return
    with opened(path, dark=dark, scripts=False) as page:  # the tool's own script still runs
        assert contrast(page, "#pass-0 svg .role-axis text") > 4.5


@pytest.mark.parametrize("scripts", [False, True])
def test_a_phone_needs_no_sideways_scrolling(opened: Any, path: Path, scripts: bool) -> None:
    with opened(path, width=360, scripts=scripts) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        size = page.locator("#pass-0 svg text").first.evaluate("text => text.getBoundingClientRect().height")
        assert size > 8  # pixels: small, and readable


@pytest.mark.parametrize("width", [390, 1280])
def test_the_first_screen_answers(opened: Any, path: Path, width: int) -> None:
    """The sentence and a line of each method with its words, numbers and plots are there without scrolling sideways;
    a phone gets each line as a block, with the name of each number beside it."""
    with opened(path, width=width) as page:
        said, table = page.locator(".said"), page.locator("table.verdict")
        assert "gave up" in said.inner_text() and said.bounding_box()["y"] < 450
        first = table.locator("tbody").first.locator("tr:not(.group)")
        assert first.count() == 3 and "collapsed" in first.first.inner_text()
        assert first.first.locator("svg.forest .mark").count() == 4
        box = first.first.bounding_box()
        assert box["y"] < 900 and box["x"] + box["width"] <= width
        label = first.first.locator("td[data-label]").first
        shown = label.evaluate("e => getComputedStyle(e, '::before').content")
        assert ("mean@64" in shown) == (width == 390)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_table_that_is_cut_says_so(opened: Any, path: Path) -> None:
    with opened(path, width=390) as page:
        cut_off = page.locator(".scroll[data-cut]").first
        assert "more to the right" in cut_off.evaluate("e => getComputedStyle(e, '::after').content")
    with opened(path, width=1600) as page:
        assert page.locator("#verdict ~ .scroll").first.get_attribute("data-cut") is None


def test_it_can_be_used_by_keyboard_and_read_aloud(opened: Any, path: Path) -> None:
    """The first tab stop skips to the results; every control has a name; headings leave out no level."""
    with opened(path) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "To the results"
        unnamed = "select, input, button, figure"
        for control in page.locator(unnamed).all():
            named = "e => e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.[0]?.textContent"
            assert control.evaluate(named)
        levels = page.eval_on_selector_all("h1,h2,h3,h4,h5", "all => all.map(h => Number(h.tagName[1]))")
        assert levels[0] == 1 and set(levels) <= {1, 2, 3, 4, 5}
        tables = page.locator("thead th:not([scope])").count()
        assert tables == page.locator(".how thead th").count()


def test_it_prints(opened: Any, path: Path) -> None:
    """A PDF of some pages, on white even where the screen is dark."""
    with opened(path, dark=True) as page:
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
        assert not page.locator("#sample-filters").is_visible()
        assert page.pdf().startswith(b"%PDF-")
