"""Texts cut to size, samples chosen by a rule, the most forgotten anchors, labels placed in pixels, tables as files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from dphrl.errors import RunDirError
from dphrl.report.charts.axes import Axis, percent_axis, shown_ks
from dphrl.report.charts.placing import LINE, Label, moved_apart, place_labels
from dphrl.report.comparison import Entry
from dphrl.report.page.cut_text import cut, cut_middle
from dphrl.report.page.drift_view import ANCHORS_SHOWN, AnchorDrift, DriftedAnchor, drift_views, shade
from dphrl.report.page.prompt_spots import CHARTS, most_lost
from dphrl.report.page.sample_browser import CELLS, AskedPrompt, browse, state
from dphrl.report.table_text import ReportTable, as_csv, markdown
from dphrl.runs.samples import write_samples
from dphrl.types import Completion, Status, Verdict

BASE, GRPO, DPH = Entry("base"), Entry("grpo"), Entry("dph_f")


@given(st.text(max_size=300), st.integers(16, 200), st.booleans())
def test_a_text_takes_no_more_room_than_it_has(text: str, room: int, keep_end: bool) -> None:
    """Escaped, in bytes; what is left out is counted, and what is shown is one end of the text."""
    shown, left_out = cut(text, room, keep_end=keep_end)
    assert len(str(escape(shown)).encode("utf-8", "replace")) <= room
    kept = text[left_out:] if keep_end else text[: len(text) - left_out]
    assert cut(kept, 10_000) == (shown, 0)


@given(st.text(max_size=300), st.integers(40, 200))
def test_a_completion_keeps_both_ends(text: str, room: int) -> None:
    """What is left out is counted, and the answer at the end is shown."""
    begin, left_out, end = cut_middle(text, room)
    assert sum(len(str(escape(part)).encode("utf-8", "replace")) for part in (begin, end)) <= room
    if left_out:
        kept = len(text) - left_out
        assert end and any(
            (cut(text[:i], 10_000)[0], cut(text[len(text) - kept + i :], 10_000)[0]) == (begin, end)
            for i in range(kept)
        )
    else:
        assert (begin, end) == (cut(text, 10_000)[0], "")


def test_a_megabyte_of_markup_is_cut_and_counted() -> None:
    """`<` takes 4 bytes once escaped: 400 bytes hold 100 of them, less one for rounding."""
    shown, left_out = cut("<" * 1_000_000, 400)
    assert set(shown) == {"<"} and 90 <= len(shown) <= 100 and left_out == 1_000_000 - len(shown)
    assert cut("\u202eabc", 100) == ("\\u202eabc", 0)


def samples(path: Path, draws: dict[str, str], text: str = "{prompt} {draw} {status}") -> Path:
    """Parquet of an evaluation: prompt id -> a letter a draw (c correct, w wrong, e verifier error), greedy first."""
    statuses: dict[str, Status] = {"c": "correct", "w": "wrong", "e": "verifier_error"}
    completions = [
        Completion(
            prompt,
            i - 1,
            (),
            text.format(prompt=prompt, draw=i - 1, status=statuses[letter]),
            "stop",
            Verdict(letter == "c", None if letter == "e" else float(letter == "c"), statuses[letter]),
        )
        for prompt, letters in draws.items()
        for i, letter in enumerate(letters)
    ]
    write_samples(path, completions)
    return path


def test_states_are_against_the_base_and_leave_out_the_greedy_completion() -> None:
    assert state({-1: "wrong", 0: "correct"}, {0: "correct"}) == "kept"
    assert state({0: "correct"}, {-1: "correct", 0: "wrong"}) == "lost"
    assert state({-1: "correct", 0: "wrong"}, {0: "correct"}) == "found"
    assert state({0: "wrong"}, {0: "wrong"}) == "unsolved"
    assert (
        state({0: "correct"}, {0: "wrong", 1: "gold_error"}) == state({0: "verifier_error"}, {0: "wrong"}) == "unjudged"
    )
    assert state(None, {0: "correct"}) == "solved" and state(None, {0: "wrong"}) == "unsolved"


def test_prompts_are_chosen_lost_found_others_in_turn(tmp_path: Path) -> None:
    """Both lost b, grpo alone lost a: b before a. c was found, d and e were kept."""
    base = samples(tmp_path / "base", {"a": "wcw", "b": "wcw", "c": "www", "d": "wcc", "e": "ccc"})
    grpo = samples(tmp_path / "grpo", {"a": "www", "b": "www", "c": "wwc", "d": "wcc", "e": "ccw"})
    dph = samples(tmp_path / "dph", {"a": "wcw", "b": "www", "c": "www", "d": "wcc", "e": "cee"})
    files = {(entry, "t"): path for entry, path in ((BASE, base), (GRPO, grpo), (DPH, dph))}
    found = browse(files, {"t": {"b": AskedPrompt("question", "gold")}})
    assert found is not None and [case.prompt_id for case in found.cases][:4:3] == ["b", "a"]
    assert found.cases[1].prompt_id == "c" and {c.prompt_id for c in found.cases} == set("abcde")
    b = found.cases[0]
    assert (b.prompt, b.gold) == ("question", "gold") and found.cases[1].prompt == ""
    assert [(c.entry, c.state, c.right, c.drawn) for c in b.cells] == [
        (BASE, "solved", 1, 2),
        (GRPO, "lost", 0, 2),
        (DPH, "lost", 0, 2),
    ]
    assert [(s.draw, s.status, s.text) for s in b.cells[0].completions] == [
        ("greedy", "wrong", "b -1 wrong"),
        ("draw 1", "correct", "b 0 correct"),
    ]
    e = next(case for case in found.cases if case.prompt_id == "e")
    assert [s.status for s in e.cells[2].completions] == ["correct"]  # those that were not judged are no wrong ones


def test_the_browser_is_bounded_for_ten_methods_and_five_tasks(tmp_path: Path) -> None:
    """11 x 5 files of long texts: at most CELLS cells, and all texts together below 2 MB escaped."""
    letters = {f"p{i:03d}": "wc" for i in range(40)}
    path = samples(tmp_path / "all", letters, "<&>" * 20_000)
    files = {(Entry("base" if i == 0 else f"m{i}"), f"t{j}"): path for j in range(5) for i in range(11)}
    found = browse(files, {f"t{j}": {i: AskedPrompt("<" * 50_000, ">" * 50_000) for i in letters} for j in range(5)})
    assert found is not None
    cells = [cell for case in found.cases for cell in case.cells]
    texts = [s.text for c in cells for s in c.completions] + [t for c in found.cases for t in (c.prompt, c.gold)]
    assert 500 < len(cells) <= CELLS
    assert sum(len(str(escape(text))) for text in texts) < 2_000_000
    assert all(s.left_out > 50_000 for c in cells for s in c.completions)


def test_no_samples_are_no_browser_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    assert browse({}, {}) is None
    (tmp_path / "bad").write_bytes(b"PAR1")
    with pytest.raises(RunDirError, match=r"bad cannot be read .* run `dphrl eval` again"):
        browse({(BASE, "t"): tmp_path / "bad"}, {})


def anchor(name: str, log_u: list[float]) -> DriftedAnchor:
    return DriftedAnchor("task", name, 0, "q", tuple(f" t{i}" for i in range(len(log_u))), tuple(log_u))


def test_the_most_forgotten_anchor_comes_first() -> None:
    """Means -1 and +0.1; one of two anchors holds a token below -2 nats."""
    anchors = (anchor("up", [0.2, 0.0]), anchor("down", [-3.0, 1.0]))
    (view,) = drift_views({GRPO: AnchorDrift({}, 7, True, anchors), DPH: AnchorDrift({}, 0, True, ())})
    assert (view.name, view.measured, view.store, view.forgotten) == ("GRPO", 2, 7, 50.0)
    assert view.mean == pytest.approx(-1.8 / 4)
    assert [a.prompt_id for a in view.anchors] == ["down", "up"]
    assert [t.shade for t in view.anchors[0].tokens] == ["down4", "up3"]
    assert [t.shade for t in view.anchors[1].tokens] == ["up1", ""]
    assert [[t.text for t in a.lowest_tokens] for a in view.anchors] == [[" t0"], []]


def test_a_long_anchor_is_shown_around_its_lowest_token() -> None:
    anchors = tuple(anchor(f"a{i}", [0.0] * 900 + [-5.0] + [0.0] * 99) for i in range(ANCHORS_SHOWN + 3))
    (view,) = drift_views({GRPO: AnchorDrift({}, 99, True, anchors)})
    assert len(view.anchors) == ANCHORS_SHOWN and view.measured == ANCHORS_SHOWN + 3
    assert len(view.anchors[0].tokens) == 200 and view.anchors[0].left_out == 800
    assert min(t.log_u for t in view.anchors[0].tokens) == -5.0


@pytest.mark.parametrize(
    ("log_u", "expected"), [(0.09, ""), (-0.1, "down1"), (0.5, "up2"), (-1.0, "down3"), (9.0, "up4")]
)
def test_shades_have_stated_limits(log_u: float, expected: str) -> None:
    assert shade(log_u) == expected


@given(st.lists(st.floats(0, 240), min_size=1, max_size=8))
def test_names_at_the_end_of_curves_are_apart_and_inside(heights: list[float]) -> None:
    placed = moved_apart(heights, 240)
    ordered = sorted(placed)
    assert all(b - a >= LINE - 1e-6 for a, b in pairwise(ordered))
    assert ordered[0] >= -1e-6 and ordered[-1] <= 240 + 1e-6
    assert moved_apart([10.0, 100.0], 240) == [10.0, 100.0]


def test_labels_avoid_each_other() -> None:
    """Five points in one place: no two labels share a place."""
    labels = [Label((100, 100), name, (90, 90, 110, 110)) for name in ("Base", "GRPO", "RKL", "DPH-F", "DPH-JS")]
    assert len(set(place_labels(labels, (0, 0, 330, 240)))) == 5


def test_axes_of_rates_stay_within_0_and_100_and_never_magnify() -> None:
    assert (percent_axis([99.9, 100.0], 10).low, percent_axis([99.9, 100.0], 10).high) == (95, 100)
    assert (percent_axis([0.0, 0.1], 10).low, percent_axis([0.0, 0.1], 10).high) == (0, 5)
    axis = Axis(50, 100, 200)
    assert axis.at(75) == 100 and axis.value(100) == 75
    assert shown_ks([1, 2, 3, 4, 8, 12]) == [1, 2, 4, 8, 12] and shown_ks([1, 2, 4, 8, 10]) == [1, 2, 4, 10]


def test_tables_as_files_keep_texts_as_texts() -> None:
    """A spreadsheet runs =1+1; Markdown would read | and < and *."""
    table = ReportTable("t|1", ("method", "value"), (("=1+1", "-2.2 [-4.2, -0.2]"), ("a|<b>", None), ("+x", 0.5)))
    assert as_csv(table).splitlines() == ["method,value", '\'=1+1,"-2.2 [-4.2, -0.2]"', "a|<b>,", "'+x,0.5"]
    assert markdown(table).splitlines()[0] == r"## t\|1" and r"| a\|\<b\> |  |" in markdown(table)


def test_every_prompt_is_in_one_spot_and_its_samples_are_known(tmp_path: Path) -> None:
    """Of 4 draws: a 2 -> 0 lost, b 0 -> 1 found, c 4 -> 1 narrowed, d and e 2 -> 2; f was not judged."""
    base = {"a": "wcwcw", "b": "wwwww", "c": "ccccc", "d": "wccww", "e": "wwwcc", "f": "weeee"}
    trained = {"a": "cwwww", "b": "wwwwc", "c": "wcwww", "d": "wccww", "e": "wcwcw", "f": "wcccc"}
    files = {(BASE, "t"): samples(tmp_path / "b", base), (GRPO, "t"): samples(tmp_path / "g", trained)}
    found = browse(files, {})
    assert found is not None
    (of,) = found.spots
    assert [(s.mark, s.before, s.after, s.prompts, s.ids) for s in of.spots] == [
        ("found", 0.0, 0.25, 1, ("b",)),
        ("lost", 0.5, 0.0, 1, ("a",)),
        ("other", 0.5, 0.5, 2, ("d", "e")),
        ("narrowed", 1.0, 0.25, 1, ("c",)),
    ]
    assert (of.count("lost"), of.entry, of.dataset) == (1, GRPO, "t")
    assert len(most_lost([of] * 40)) == CHARTS
