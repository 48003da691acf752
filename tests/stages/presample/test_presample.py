"""Stage 1 on the shipped model: waves, what a change of settings keeps, keep sets, interruptions, shares."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from presample_runs import config_of, made, result, stored

from dphrl.anchors import open_store
from dphrl.config.root import Config
from dphrl.errors import ConfigError, DataError, EmptyAnchorStore, RunDirError
from dphrl.files import read_json, write_json
from dphrl.runs.run_dir import RunDir
from dphrl.sampling.transformers_sampler import TransformersSampler
from dphrl.stages.evaluate.evaluate import evaluate
from dphrl.stages.presample.training_prompts import training_ids
from dphrl.tasks import load_task
from dphrl.verifiers.registry import verifier_of


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What the sampler was asked for, in order."""
    asked: list[tuple[str, int]] = []
    whole = TransformersSampler.draw

    def draw(self: Any, requests: Any) -> Any:
        asked.extend((r.prompt_id, r.draw) for r in requests)
        return whole(self, requests)

    monkeypatch.setattr(TransformersSampler, "draw", draw)
    return asked


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that nothing disturbed."""
    return made(config_of(tmp_path_factory.mktemp("whole")))


def test_stopping_early_gives_the_sets_of_drawing_everything(whole: RunDir, tmp_path: Path) -> None:
    full = made(config_of(tmp_path / "full", anchor={"full_counts": True}))
    early_sets, early_store = result(whole)
    full_sets, full_store = result(full)
    for name in ("near_perfect", "exploration", "dropped"):
        assert early_sets[name] == full_sets[name]
    assert early_store == full_store
    early, everything = stored(whole), stored(full)
    assert early.items() <= everything.items() and len(early) < 0.9 * len(everything)
    assert early_sets["near_perfect"] and early_sets["exploration"]
    assert all(c["draws"] == 5 for c in full_sets["counts"].values())
    one = early_sets["counts"][early_sets["near_perfect"][0]]
    assert 0 < one["low"] < one["successes"] / one["draws"] and one["low"] < one["high"] < 1 and one["successes"] == 4
    assert list(read_json(whole.presample / "speed.json")) == ["seconds", "tokens", "timeout_share"]


def test_a_finished_run_is_left_alone(whole: RunDir, drawn: list[tuple[str, int]]) -> None:
    before = {p: p.stat().st_mtime_ns for p in whole.root.rglob("*.arrow")} | {whole.partition: 0}
    made(config_of(whole.root))
    assert before == {p: p.stat().st_mtime_ns for p in whole.root.rglob("*.arrow")} | {whole.partition: 0} and not drawn


CHANGES: dict[str, dict[str, Any]] = {
    "threshold": {"threshold": 3},
    "source": {"source": "correct"},
    "per_prompt": {"per_prompt": 3},
    "presamples": {"presamples": 7, "threshold": 6},
    "full_counts": {"full_counts": True},
    "debias": {"debias": False, "per_prompt": 2},
    "topk": {"topk": 4},
    "keep set": {"also": [{"task": "demo:reversal", "prompts": 8}]},
}


QUICK = ("threshold", "presamples", "keep set")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CHANGES])
def test_a_change_of_anchor_settings_keeps_every_draw_and_gives_what_a_new_run_gives(
    name: str, whole: RunDir, tmp_path: Path, drawn: list[tuple[str, int]]
) -> None:
    run = shutil.copytree(whole.root, tmp_path / "run")
    before = stored(RunDir(run))
    changed = made(config_of(run, anchor=CHANGES[name]))
    again = list(drawn)
    after = stored(changed)
    assert before.items() <= after.items() and not {key for key in again if key in before}
    fresh = made(config_of(tmp_path / "fresh", anchor=CHANGES[name]))
    assert result(changed) == result(fresh)
    drawn.clear()
    assert result(made(config_of(run))) == result(whole) and not drawn, "the way back needs no draw"


@pytest.mark.slow
def test_several_anchors_of_a_prompt_are_different_solutions(tmp_path: Path) -> None:
    anchor = {"source": "correct", "per_prompt": 3, "full_counts": True, "debias": False}
    run = made(
        config_of(
            tmp_path / "run",
            task={"data": "demo:in_domain", "limit": 16},
            sampling={"max_new_tokens": 40},
            anchor=anchor,
        )
    )
    found = stored(run)
    texts: dict[str, list[str]] = {}
    for a in open_store(run.anchors, None):
        drawn_as = found[a.prompt_id, a.draw]
        assert drawn_as.token_ids == a.completion_ids and drawn_as.verdict is not None and drawn_as.verdict.correct
        texts.setdefault(a.prompt_id, []).append(" ".join(drawn_as.text.casefold().split()))
    assert max(map(len, texts.values())) == 3
    assert all(len(set(t)) == len(t) for t in texts.values())


def test_keep_sets_bring_their_own_anchors(tmp_path: Path) -> None:
    also = [
        {"task": "demo:reversal", "prompts": 6},
        {"task": {"data": "demo:cross_domain"}, "prompts": 6, "name": "other"},
    ]
    run = made(
        config_of(
            tmp_path / "run", sampling={"max_new_tokens": 40}, anchor={"also": also, "threshold": 2, "presamples": 2}
        )
    )
    tasks = [a.task for a in open_store(run.anchors, None)]
    assert set(tasks) == {"task", "reversal", "other"} and tasks == sorted(
        tasks, key=["task", "reversal", "other"].index
    )
    partition = json.loads(run.partition.read_text())
    assert {name: len(part["counts"]) for name, part in partition["also"].items()} == {"reversal": 6, "other": 6}
    first = set(partition["also"]["reversal"]["counts"])
    more = [{**also[0], "prompts": 9}, also[1]]
    made(config_of(run.root, sampling={"max_new_tokens": 40}, anchor={"also": more, "threshold": 2, "presamples": 2}))
    assert first < set(json.loads(run.partition.read_text())["also"]["reversal"]["counts"]), (
        "more prompts add to the same"
    )
    other = [{"task": {"data": "demo:reversal", "split": "eval"}, "prompts": 6}]
    with pytest.raises(
        RunDirError, match=r"(?s)also-reversal holds draws of another origin.*task.split.*another `name`"
    ):
        made(
            config_of(
                run.root, sampling={"max_new_tokens": 40}, anchor={"also": other, "threshold": 2, "presamples": 2}
            )
        )


def test_nothing_to_anchor_is_an_error_and_the_partition_is_written(tmp_path: Path) -> None:
    path = tmp_path / "never.jsonl"
    path.write_text("".join(json.dumps({"question": f"{i}", "gold": "never"}) + "\n" for i in range(3)))
    never = {"data": str(path), "verifier": "exact"}
    with pytest.raises(EmptyAnchorStore, match=r"^no near-perfect prompt"):
        made(config_of(tmp_path / "a", task={**never, "limit": None}))
    assert len(json.loads(RunDir(tmp_path / "a").partition.read_text())["exploration"]) == 3
    with pytest.raises(EmptyAnchorStore, match=r"^keep set 'never': no near-perfect prompt"):
        made(config_of(tmp_path / "b", anchor={"also": [{"task": never}]}))


def test_prompts_that_do_not_fit_are_dropped_by_id_never_cut(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"id": "short", "question": "2 + 2", "gold": "4"},
        {"id": "long", "question": "1 + " * 200 + "1", "gold": "201"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"data": str(path), "verifier": "exact", "limit": None}
    seen: list[str] = []
    run = config_of(tmp_path / "run", task=task, anchor={"source": "correct", "threshold": 1, "debias": False})
    run = replace(run, eval_tasks={"rows": run.task}, eval=replace(run.eval, n=2, resamples=100))
    partition = run_partition(run, lambda label, done, total, note="": seen.append(note))
    assert partition["near_perfect"] + partition["exploration"] == ["short"]
    assert partition["dropped"]["long"].startswith("too long: ") and "context of" in partition["dropped"]["long"]
    assert any("1 too long, dropped: long" in note for note in seen)
    evaluate(run, base_dir=Path(), models=("base",))
    row = json.loads((tmp_path / "run/eval/base/summary.json").read_text())["rows"][0]
    assert (row["too_long"], row["prompts"]) == (["long"], 1)
    path.write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(DataError, match=r"none of its 1 prompts is left; long: too long"):
        made(config_of(tmp_path / "none", task=task))


def run_partition(config: Config, progress: Any) -> dict[str, Any]:
    """The partition, whether or not the tiny model gave an anchor."""
    with contextlib.suppress(EmptyAnchorStore):
        made(config, progress=progress)
    return json.loads(RunDir(Path(config.out)).partition.read_text())


def test_the_filter_needs_full_counts_and_says_what_it_changes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"exploration_filter=\[0.3, 0.9\] needs anchor.full_counts: true"):
        made(config_of(tmp_path / "no", train={"exploration_filter": [0.3, 0.9]}))
    config = config_of(tmp_path / "run", anchor={"full_counts": True}, train={"exploration_filter": [0.3, 0.9]})
    seen: list[str] = []
    run = made(config, progress=lambda label, done, total, note="": seen.append(note) if "filter" in label else None)
    partition = json.loads(run.partition.read_text())
    task = load_task("task", config.task, base_dir=Path())
    ids = training_ids(config, task, run)
    rates = {i: c["successes"] / c["judged"] for i, c in partition["counts"].items()}
    assert set(ids) == {i for i in partition["exploration"] if 0.3 <= rates[i] <= 0.9} and ids
    assert set(training_ids(replace(config, train=replace(config.train, exploration_filter=None)), task, run)) > set(
        ids
    )
    mean = lambda some: sum(rates[i] for i in some) / len(some)  # noqa: E731
    assert partition["reward"]["filtered"] == pytest.approx(mean(ids))
    assert partition["reward"]["unfiltered"] == pytest.approx(mean(partition["exploration"]))
    assert partition["filter"] == {"band": [0.3, 0.9], "kept": len(ids), "of": len(partition["exploration"])}
    assert seen and f"{len(ids)} of {len(partition['exploration'])} prompts, mean presample reward" in seen[0]


def test_sets_of_other_settings_are_not_trained_on(whole: RunDir) -> None:
    config = config_of(whole.root, anchor={"threshold": 2})
    with pytest.raises(RunDirError, match=r"(?s)other settings.*anchor.threshold: there 4, now 2.*dphrl presample"):
        training_ids(config, load_task("task", config.task, base_dir=Path()), whole)


def test_draws_of_other_weights_are_not_mixed(whole: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(whole.root, tmp_path / "run"))
    origin = run.presample / "drawn.json"
    content = read_json(origin)
    content["fingerprint"]["weights"] = "0" * 32
    write_json(origin, content)
    with pytest.raises(
        RunDirError, match=r"(?s)draws of another origin:\n  fingerprint.weights: there '0.*another --out"
    ):
        made(config_of(run.root, anchor={"threshold": 3}))


def test_verdicts_by_other_rules_are_not_mixed(whole: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer dphrl judges otherwise than the one that made the presamples."""
    run = RunDir(shutil.copytree(whole.root, tmp_path / "run"))
    newer = lambda name: replace(verifier_of(name), rules=verifier_of(name).rules + 1)  # noqa: E731
    monkeypatch.setattr("dphrl.verifiers.registry.verifier_of", newer)
    with pytest.raises(RunDirError, match=r"(?s)another origin:\n  verifier_rules: there .*, now '.*another --out"):
        made(config_of(run.root, anchor={"threshold": 3}))


def test_draws_for_other_texts_of_the_same_ids_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    config = config_of(tmp_path / "run", task={"data": str(path), "verifier": "exact", "limit": None})
    path.write_text(json.dumps({"id": "a", "question": "2 + 2", "gold": "4"}))
    run_partition(config, lambda *told: None)
    path.write_text(json.dumps({"id": "a", "question": "2 + 3", "gold": "5"}))
    with pytest.raises(RunDirError, match=r"(?s)draws of another origin:\n  prompts: there"):
        made(config)
