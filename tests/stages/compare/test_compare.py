"""Comparing runs: hand-made run directories of 2 methods x 2 seeds x 3 prompts, every number worked by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from compare_runs import BASE, DPH, GRPO, compared, row, write_eval, write_run

from dphrl.config.load import build_config
from dphrl.config.objective import DphObjective, Method
from dphrl.config.root import Config
from dphrl.errors import DataError, RunDirError
from dphrl.files import read_json
from dphrl.metrics.intervals import Scores
from dphrl.report.labels import METHODS, dph_label
from dphrl.report.setting_names import config_label, setting_names
from dphrl.runs.eval_dir import Model, add_samples, write_evaldir
from dphrl.runs.samples import read_samples
from dphrl.runs.summary_file import put_summary, read_summaries
from dphrl.stages.compare.evaluations import counted
from dphrl.stages.report.write_report import write_report

AGAINST_BASE = ("greedy", "mean_at_n", "pass@1", "pass@2", "pass@n", "distinct_correct")


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """GRPO and DPH-F with two seeds each."""
    made = [write_run(tmp_path / f"grpo-{s}", c, method="grpo", seed=s) for s, c in enumerate(GRPO)]
    return made + [write_run(tmp_path / f"dph-{s}", c, method="dph", seed=s) for s, c in enumerate(DPH)]


def number(summary: Mapping[str, Any], method: str, metric: str, setting: str = "") -> dict[str, Any]:
    """The one aggregate of a method and metric."""
    (found,) = [
        a for a in summary["aggregate"] if (a["method"], a["metric"], a["setting"]) == (method, metric, setting)
    ]
    return found


def test_means_and_spreads_are_those_of_the_rows(runs: list[Path], tmp_path: Path) -> None:
    """mean@2 of GRPO is 1/3 and 1/2: mean 5/12, sd (1/6)/sqrt 2. DPH keeps all, GRPO half and all: 3/4."""
    summary = compared(runs, tmp_path / "out", resamples=500)
    assert number(summary, "grpo", "mean_at_n")["mean"] == pytest.approx(5 / 12)
    assert number(summary, "grpo", "mean_at_n")["sd"] == pytest.approx(1 / 6 / math.sqrt(2))
    assert number(summary, "grpo", "keep")["mean"] == pytest.approx(3 / 4)
    assert number(summary, "dph_f", "keep")["mean"] == 1.0
    assert number(summary, "dph_f", "explore")["mean"] == pytest.approx(1 / 2)
    assert number(summary, "dph_f", "pass@2") == number(summary, "dph_f", "pass@n") | {"metric": "pass@2"}
    assert number(summary, "base", "keep")["mean"] is None
    assert number(summary, "base", "mean_at_n")["seeds"] == 2


def test_differences_are_paired_over_prompts(runs: list[Path], tmp_path: Path) -> None:
    """pass@2 averaged over seeds: GRPO 1, 1/2, 0 and DPH-F 1, 1, 1/2, so differences 0, 1/2, 1/2.

    Of 27 resamples one has mean 0 (3.7 % > 2.5 %) and eight have 1/2: the interval is [0, 1/2] exactly.
    """
    summary = compared(runs, tmp_path / "out")
    gap = number(summary, "dph_f", "pass@2")["difference"]
    assert gap.pop("spread")["low"] == -1.0, "two seeds say next to nothing of a third"
    assert gap == {
        "baseline": "grpo",
        "value": pytest.approx(1 / 3),
        "low": pytest.approx(0.0),
        "high": pytest.approx(0.5),
    }
    assert number(summary, "dph_f", "keep")["difference"]["value"] == pytest.approx(1 / 4)
    assert number(summary, "dph_f", "explore")["difference"]["value"] == pytest.approx(1 / 2)
    assert number(summary, "base", "mean_at_n")["difference"]["value"] == pytest.approx(1 / 2 - 5 / 12)
    assert number(summary, "grpo", "pass@2")["difference"] is None


def test_every_difference_is_the_difference_of_means(runs: list[Path], tmp_path: Path) -> None:
    """Also for keep, which counts in a share of the prompts only; intervals hold their value and stay in 0..1."""
    summary = compared(runs, tmp_path / "out", resamples=500)
    assert len(summary["aggregate"]) == 3 * 8
    for a in summary["aggregate"]:
        if a["low"] is not None:
            assert 0.0 <= a["low"] <= a["mean"] + 1e-12 and a["mean"] <= a["high"] + 1e-12 <= 1.0 + 2e-12
        if a["difference"] is not None:
            other = number(summary, "grpo", a["metric"])
            assert a["difference"]["value"] == pytest.approx(a["mean"] - other["mean"])


def test_the_base_stands_once_a_seed_and_rows_keep_their_fields(runs: list[Path], tmp_path: Path) -> None:
    summary = compared(runs, tmp_path / "out", resamples=100)
    assert [(r["method"], r["seed"], r["setting"]) for r in summary["rows"]] == [
        *(("base", s, "") for s in (0, 1)),
        *(("grpo", s, "") for s in (0, 1)),
        *(("dph_f", s, "") for s in (0, 1)),
    ]
    on_disk = {"method": "grpo", "setting": "", "seed": 0, **row(GRPO[0], BASE, "in_domain")}
    assert {key: value for key, value in summary["rows"][2].items() if key in on_disk} == on_disk
    assert not any(value for key, value in summary["rows"][2].items() if key not in on_disk), "not known: null or empty"
    assert summary["notes"] == [] and summary["baseline"] == "grpo"
    assert read_json(tmp_path / "out" / "summary.json") == summary


def test_other_rules_of_the_verifier_are_noted(runs: list[Path], tmp_path: Path) -> None:
    for folder in (runs[2] / "eval/final", runs[2] / "eval/base"):
        for name in read_summaries(folder / "summary.json"):
            put_summary(
                folder / "summary.json",
                read_summaries(folder / "summary.json")[name].with_facts({"verifier_rules": "math 3"}),
            )
    assert any(
        "the verifier's rules differ (" in note for note in compared(runs, tmp_path / "out", resamples=100)["notes"]
    )


def test_identical_runs_differ_by_exactly_zero(tmp_path: Path) -> None:
    made = [write_run(tmp_path / m, DPH[0], method=m, seed=0) for m in ("grpo", "dapo")]
    summary = compared(made, tmp_path / "out", resamples=200)
    for a in summary["aggregate"]:
        if a["method"] == "dapo" and a["metric"] != "distinct_correct":
            zero = {"baseline": "grpo", "value": 0.0, "low": 0.0, "high": 0.0, "spread": None}
            assert a["difference"] == zero | {"agree": 3}


def test_the_order_of_the_runs_changes_no_number(runs: list[Path], tmp_path: Path) -> None:
    one, other = (compared(r, tmp_path / "out", resamples=300) for r in (runs, runs[::-1]))
    key = lambda a: (a["method"], a["metric"])  # noqa: E731
    assert sorted(one["aggregate"], key=key) == sorted(other["aggregate"], key=key)


def test_distinct_solutions_have_an_interval_where_the_samples_name_them(tmp_path: Path) -> None:
    """With a column `solution` each right draw here is a solution of its own: 2, 1, 1 = 4/3 on average."""
    plain = [write_run(tmp_path / "p" / m, DPH[0], method=m, seed=0) for m in ("grpo", "dph")]
    named = [write_run(tmp_path / "n" / m, DPH[0], method=m, seed=0, solutions=True) for m in ("grpo", "dph")]
    without = number(compared(plain, tmp_path / "out", resamples=100), "dph_f", "distinct_correct")
    found = number(compared(named, tmp_path / "out", resamples=100), "dph_f", "distinct_correct")
    assert without["mean"] == found["mean"] == pytest.approx(4 / 3)
    assert without["low"] is None and without["difference"]["low"] is None and without["difference"]["value"] == 0.0
    assert 1.0 <= found["low"] <= 4 / 3 <= found["high"] <= 2.0 and found["difference"]["low"] == 0.0


def test_without_the_baseline_there_are_no_differences(tmp_path: Path) -> None:
    summary = compared([write_run(tmp_path / "dph", DPH[0], method="dph")], tmp_path / "out", resamples=100)
    assert summary["baseline"] is None and all(a["difference"] is None for a in summary["aggregate"])
    assert summary["notes"] == ["No run is the baseline 'grpo', so no differences are shown."]


def test_a_sweep_is_grouped_by_its_setting(tmp_path: Path) -> None:
    made = [write_run(tmp_path / "grpo", GRPO[0], method="grpo")]
    made += [write_run(tmp_path / f"dph{eta}", DPH[0], method="dph", objective={"eta": eta}) for eta in (0.2, 0.05)]
    summary = compared(made, tmp_path / "out", resamples=100)
    assert number(summary, "dph_f", "keep", "eta=0.05")["seeds"] == 1
    assert number(summary, "dph_f", "keep", "eta=0.05")["sd"] is None
    assert {r["setting"] for r in summary["rows"] if r["method"] == "dph_f"} == {"eta=0.2", "eta=0.05"}
    against = compared(made, tmp_path / "out", baseline="dph_f eta=0.2", resamples=100)
    assert against["baseline"] == "dph_f eta=0.2"
    with pytest.raises(RunDirError, match=r"several settings; name one of: dph_f eta=0.2; dph_f eta=0.05"):
        compared(made, tmp_path / "out", baseline="dph_f")
    with pytest.raises(RunDirError, match=r"no run is the baseline 'dph_f eta=0.3'; did you mean 'dph_f eta=0.2'"):
        compared(made, tmp_path / "out", baseline="dph_f eta=0.3")


@pytest.mark.parametrize(
    ("configs", "expected"),
    [
        ([{"method": "grpo"}, {"method": "grpo", "seed": 1}], ["", ""]),
        ([{"method": "dph"}, {"method": "dph", "objective": {"divergence": "js"}}], ["", ""]),
        ([{"objective": {"eta": e}} for e in (0.2, 0.05)], ["eta=0.2", "eta=0.05"]),
        (
            [{"method": "rkl", "objective": {"beta": 0.1, "kl_estimator": e}} for e in ("k2", "k3")],
            ["beta=0.1 k2", "beta=0.1 k3"],
        ),
        ([{}, {"train": {"advantage": "maxrl"}}], ["eta=0.05", "maxrl eta=0.05"]),
        ([{"method": "grpo"}, {"method": "grpo", "train": {"advantage": "maxrl"}}], ["", "maxrl"]),
        ([{}, {"train": {"steps": 240}}], ["eta=0.05 steps=60", "eta=0.05 steps=240"]),
        (
            [{"objective": {"divergence": "alpha", "alpha": a, "eta": 0.05}} for a in (0.2, 0.8)],
            ["alpha=0.2 eta=0.05", "alpha=0.8 eta=0.05"],
        ),
        ([{"method": "grpo"}, {"method": "grpo", "anchor": {"topk": 4}}], ["", ""]),
        ([{}, {"train": {"micro_batch": 4}, "sampling": {"batch_size": 2}}], ["", ""]),
    ],
)
def test_settings_name_what_tells_runs_apart(configs: list[dict[str, Any]], expected: list[str]) -> None:
    """Seeds, other methods' settings and settings that only change the speed are no difference."""
    assert setting_names([build_config(values) for values in configs]) == expected


def test_every_method_and_divergence_has_a_label_and_a_style() -> None:
    divergences = get_args(get_type_hints(DphObjective)["divergence"])
    labels = [dph_label(d) for d in divergences] + [m for m in get_args(Method) if m != "dph"]
    assert set(labels) | {"base"} == set(METHODS)
    assert [dph_label(d) for d in ("forward_kl", "js", "alpha")] == ["dph_f", "dph_js", "dph_alpha"]
    assert len({style.marker for style in METHODS.values()}) == len(METHODS)


def test_counted_keeps_ratios_and_full_columns() -> None:
    """keep 1, 0 of two prompts among four: R = 1/2, share 1/2, so values 3/2, -1/2, 1/2, 1/2."""
    nan = math.nan
    scores = Scores(
        tuple("abcd"), ("full", "keep", "none"), np.array([[1, 1, nan], [0, 0, nan], [1, nan, nan], [1, nan, nan]])
    )
    found = counted(scores)
    assert found.column("full").tolist() == [1, 0, 1, 1]
    assert found.column("keep").tolist() == [1.5, -0.5, 0.5, 0.5]
    assert np.isnan(found.column("none")).all()


def test_the_spread_names_what_prompts_and_seeds_add(runs: list[Path], tmp_path: Path) -> None:
    """mean@2 of GRPO by seed and prompt: 1 0 0 and 1 1/2 0. Mean squares: prompts 13/24, seeds 1/24, rest 1/24."""
    found = number(compared(runs, tmp_path / "out", resamples=100), "grpo", "mean_at_n")["spread"]
    assert found["prompts"] == pytest.approx(math.sqrt((13 / 24 - 1 / 24) / 6))
    assert found["seeds"] == pytest.approx(0.0, abs=1e-6) and found["rest"] == pytest.approx(math.sqrt(1 / 24 / 6))
    assert (found["low"], found["high"]) == (0.0, 1.0), "a rate ends at 0 and 1"
    single = compared(runs[:1], tmp_path / "out", resamples=100)
    assert number(single, "grpo", "mean_at_n")["spread"] is None


def test_the_spread_of_a_difference_needs_the_same_seeds(runs: list[Path], tmp_path: Path) -> None:
    whole = number(compared(runs, tmp_path / "out", resamples=100), "dph_f", "mean_at_n")["difference"]
    assert whole["spread"]["seeds"] >= 0.0
    lacking = number(compared(runs[:3], tmp_path / "out", resamples=100), "dph_f", "mean_at_n")["difference"]
    assert lacking["spread"] is None and lacking["low"] is not None


def test_forgetting_is_the_difference_to_the_base(runs: list[Path], tmp_path: Path) -> None:
    """pass@2 of the base 1, 1, 0; of GRPO 1, 1/2, 0 over two seeds; of DPH-F 1, 1, 1/2."""
    summary = compared(runs, tmp_path / "out", resamples=200)
    cells = {(c["method"], c["metric"]): c for c in summary["forgetting"]}
    assert set(cells) == {(m, k) for m in ("grpo", "dph_f") for k in AGAINST_BASE}
    assert cells["grpo", "pass@n"]["value"] == pytest.approx(-1 / 6)
    assert cells["dph_f", "pass@n"]["value"] == pytest.approx(1 / 6)
    assert cells["grpo", "pass@n"]["low"] <= -1 / 6 <= cells["grpo", "pass@n"]["high"] <= 0.0
    bare = write_run(tmp_path / "bare", GRPO[0], base=None, method="grpo")
    assert compared([bare], tmp_path / "out", resamples=100)["forgetting"] == []


def test_bases_that_are_not_the_same_are_said(tmp_path: Path) -> None:
    other = {"a": 1, "b": 1, "c": 1}
    one = write_run(tmp_path / "grpo", GRPO[0], method="grpo")
    two = write_run(tmp_path / "dph", DPH[0], method="dph", base=other)
    (note,) = compared([one, two], tmp_path / "out", resamples=100)["notes"]
    assert note.startswith(f"in_domain: the bases of {one} and {two} differ (mean@n 0.5000 and 0.5000, n=2 and n=2)")


def test_draws_that_were_made_otherwise_are_said(tmp_path: Path) -> None:
    one = write_run(tmp_path / "grpo", GRPO[0], method="grpo", sampling={"temperature": 0.6})
    two = write_run(tmp_path / "dph", DPH[0], method="dph")
    (note,) = compared([one, two], tmp_path / "out", resamples=100)["notes"]
    assert note.startswith(f"sampling.temperature differs (0.6 in {one}; 1 in {two})")
    write_evaldir(tmp_path / "e", [Model("other")])
    add_samples(tmp_path / "e", "other", "in_domain", read_samples(one / "eval/final/in_domain.parquet"), resamples=100)
    said = compared([one, tmp_path / "e"], tmp_path / "out", resamples=100)["notes"]
    assert said == [], "nobody knows how the other's samples were drawn"


def test_a_rate_that_all_prompts_share_has_a_width_over_seeds_too(runs: list[Path], tmp_path: Path) -> None:
    """DPH-F keeps a and b in both seeds: keep rests on two prompts, so it is at least 0.025 ** (1/2)."""
    found = number(compared(runs, tmp_path / "out", resamples=100), "dph_f", "keep")
    assert (found["low"], found["high"]) == (pytest.approx(0.025**0.5), 1.0)


def test_a_shared_base_is_found_and_a_base_folder_may_be_compared_too(tmp_path: Path) -> None:
    base = write_run(tmp_path / "base-s0", None, method="dph")
    run = write_run(tmp_path / "grpo-s0", None, base=None, method="grpo", base_run="elsewhere/base-s0")
    write_eval(run / "eval" / "final", GRPO[0], BASE)
    for paths in ([run], [base, run]):
        summary = compared(paths, tmp_path / "out", resamples=100)
        assert [r["method"] for r in summary["rows"]] == ["base", "grpo"]
        assert number(summary, "grpo", "keep")["low"] is not None and summary["notes"] == []
    (base / "train").mkdir()
    (note,) = compared([base, run], tmp_path / "out", resamples=100)["notes"]
    assert "only its base was measured; run `dphrl eval --config" in note


def test_notes_say_what_is_hard_to_compare(tmp_path: Path) -> None:
    one = write_run(tmp_path / "grpo", GRPO[0], method="grpo", seed=0, base=None)
    two = write_run(tmp_path / "dph", DPH[0], method="dph", seed=1, base=None, dataset="other")
    path = two / "eval" / "final" / "summary.json"
    path.write_text(path.read_text().replace('"unjudged": 0', '"unjudged": 3'))
    notes = compared([one, two], tmp_path / "out", resamples=100)["notes"]
    assert notes == [
        "in_domain: not measured for dph_f.",
        "other: some completions could not be judged and count as neither right nor wrong (dph_f: 3).",
        "other: not measured for grpo.",
        "Seeds differ: grpo: 0; dph_f: 1.",
        "No evaluation of the base was found, so differences to it are not shown; set eval.base and evaluate again.",
    ]


def test_other_prompts_are_refused_and_both_runs_named(tmp_path: Path) -> None:
    one = write_run(tmp_path / "grpo", GRPO[0], method="grpo", base=None)
    two = write_run(tmp_path / "dph", {"a": 1, "b": 1, "x": 1}, method="dph", base=None)
    with pytest.raises(
        RunDirError, match=r"dph \(dph_f, seed 0\) and .*grpo \(grpo, seed 0\).*2 are on one side only, e.g. 'c'"
    ):
        compared([one, two], tmp_path / "out")


def test_a_folder_that_is_no_run_or_has_no_evaluation_is_refused(tmp_path: Path, runs: list[Path]) -> None:
    with pytest.raises(RunDirError, match="no run directory to compare"):
        compared([], tmp_path / "out")
    with pytest.raises(RunDirError, match=r"is no run directory .*dphrl run --config FILE --out"):
        compared([tmp_path / "nothing"], tmp_path / "out")
    bare = write_run(tmp_path / "bare", None, base=None, method="grpo")
    with pytest.raises(
        RunDirError, match=r"no evaluation yet \(no eval/final/summary.json\); run `dphrl eval --config"
    ):
        compared([bare], tmp_path / "out")
    with pytest.raises(RunDirError, match="both grpo with seed 0; name each run once"):
        compared([runs[0], runs[0]], tmp_path / "out")
    with pytest.raises(RunDirError, match="a report of 2 runs needs a folder"):
        write_report(runs[:2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "summary.json").write_text("{"), r"summary.json is damaged"),
        (lambda f: (f / "summary.json").write_text('{"rows": []}'), r"has no rows; name at least one dataset"),
        (lambda f: (f / "in_domain.parquet").unlink(), r"in_domain.parquet cannot be read"),
        (lambda f: (f / "in_domain.parquet").write_bytes(b"PAR"), r"in_domain.parquet cannot be read"),
        (
            lambda f: pq.write_table(pa.table({"draw": [0]}), f / "in_domain.parquet"),
            r"lacks the columns prompt_id, text",
        ),
        (lambda f: write_eval(f, GRPO[1], BASE) or rename(f, "in_domain", "../x"), r"'\.\./x', which is doubled or no"),
        (lambda f: edit(f, '"mean_at_n": 0.33', '"mean_at_n": 0.73'), r"does not fit the samples of 'in_domain'"),
    ],
)
def test_damaged_evaluations_are_named(runs: list[Path], tmp_path: Path, damage: Any, message: str) -> None:
    damage(runs[0] / "eval" / "final")
    with pytest.raises((RunDirError, DataError), match=message):
        compared(runs, tmp_path / "out")


def edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "summary.json").read_text()
    assert old in text
    (folder / "summary.json").write_text(text.replace(old, new))


def rename(folder: Path, old: str, new: str) -> None:
    edit(folder, f'"dataset": "{old}"', f'"dataset": "{new}"')


@pytest.mark.slow
def test_the_report_of_one_run_lies_in_it_and_looks_at_its_base(runs: list[Path]) -> None:
    metrics = runs[2] / "train" / "metrics.jsonl"
    metrics.parent.mkdir()
    metrics.write_text("".join(json.dumps({"step": s, "reward": s / 10, "entropy": 1.0}) + "\n" for s in range(6)))
    (runs[2] / "versions.json").write_text('{"trl": "1.16.0"}')
    change = {"step": 4, "time": "2026-01-01T00:00:00+00:00", "changes": {"objective.eta": {"old": 0.2, "new": 0.3}}}
    (metrics.parent / "changes.jsonl").write_text(json.dumps(change) + "\n")
    (metrics.parent / "warnings.jsonl").write_text('{"step": 5, "metric": "entropy", "text": "entropy\u2028is low"}\n')
    page = write_report(runs[2], resamples=100)
    assert page == runs[2] / "report" / "index.html"
    summary = json.loads((page.parent / "summary.json").read_text())
    assert summary["baseline"] == "base" and summary["notes"] == []
    text = page.read_text()
    assert "DPH-F, seed 0" in text and "1.16.0" in text and "dphrl report" in text and "log_u_cap" in text
    assert "Changed while training" in text and "objective.eta" in text and "is low" in text
    assert {"pass_at_k.png", "frontier.png", "training.png"} <= {p.name for p in (page.parent / "figures").iterdir()}
    metrics.write_text("{")
    with pytest.raises(RunDirError, match=r"metrics.jsonl line 1 is damaged"):
        write_report(runs[2:3], resamples=100)


@pytest.mark.slow
def test_the_report_of_several_runs_compares_them_first(runs: list[Path], tmp_path: Path) -> None:
    page = write_report(runs, tmp_path / "out", title="Two methods", resamples=100)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["baseline"] == "grpo"
    text = page.read_text()
    assert "Two methods" in text and "method=dph" in text and "dphrl compare" in text


def test_the_report_says_which_gradient_an_rkl_run_followed(tmp_path: Path) -> None:
    """k3 in the loss is a forward-KL gradient (PAPER.md), so `RKL` alone would mislead."""
    rkl = write_run(tmp_path / "rkl", GRPO[0], method="rkl", objective={"beta": 0.1, "kl_estimator": "k3"})
    text = write_report(
        [rkl, write_run(tmp_path / "grpo", GRPO[0], method="grpo")], tmp_path / "out", resamples=100
    ).read_text()
    assert "<th>RKL</th><td>beta=0.1 k3 (k3 in the loss: the gradient of forward KL)</td>" in text
    assert "<th>GRPO</th><td>as published</td>" in text


def test_config_defaults_are_what_the_labels_rest_on() -> None:
    """`setting_names` reads resolved configs: a default config is a DPH-F run."""
    assert config_label(Config()) == "dph_f"
