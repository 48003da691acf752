"""The anchor drift: what a trained policy says of the anchors, made once, gone on with, left alone without a model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from presample_runs import config_of, made

from dphrl.anchors import open_store
from dphrl.errors import RunDirError
from dphrl.models.policy import load_policy, save_policy
from dphrl.report.page.drift_view import AnchorDrift
from dphrl.runs.run_dir import RunDir
from dphrl.stages.report import anchor_drift as stage
from dphrl.stages.report.anchor_drift import anchor_drift, evenly_chosen, pieces
from dphrl.types import as_json


def test_anchors_are_chosen_evenly_and_within_the_tokens() -> None:
    assert evenly_chosen([5] * 3) == [0, 1, 2] and evenly_chosen([]) == []
    assert evenly_chosen([5] * 1000) == list(range(0, 1000, 5))
    long = evenly_chosen([10_000] * 1000)
    assert len(long) == 10 and long[0] == 0 and len(set(long)) == 10


class Words:
    """A tokenizer that writes a space before each token but the first, and a letter of two tokens."""

    def decode(self, ids: list[int]) -> str:
        return " ".join({1: "a", 2: "b", 3: "\ufffd"}.get(i, str(i)) for i in ids).replace("\ufffd \ufffd", "é")


def test_pieces_of_tokens_join_to_the_text() -> None:
    assert pieces(Words(), [1, 2, 2, 1, 2, 1, 1]) == ["a", " b", " b", " a", " b", " a", " a"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run with anchors, whose trained model is the base made surer of itself."""
    config = config_of(tmp_path_factory.mktemp("drift") / "run")
    run = made(config)
    policy = load_policy(config)
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.mul_(1.3)
    save_policy(policy, policy.model, run.final)
    return run


@pytest.mark.slow
def test_the_drift_is_measured_once_and_kept(trained: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    def told(task: str, done: int, total: int, note: str = "") -> None:
        calls.append((done, total))

    monkeypatch.setattr(stage, "PART", 4)
    found = anchor_drift(trained.root, progress=told)
    assert isinstance(found, AnchorDrift) and found.complete
    store = open_store(trained.anchors, None)
    assert found.store == len(store) == len(found.rows) and calls[0] == (4, len(store))
    row = found.rows[0]
    assert len(row.tokens) == len(row.log_u) == len(store[0].completion_ids)
    assert row.prompt_id == store[0].prompt_id and any(abs(v) > 0.01 for r in found.rows for v in r.log_u)
    calls.clear()
    assert anchor_drift(trained.root, progress=told) == found and calls == []
    halved = {"schema": 1, **as_json(replace(found, complete=False, rows=found.rows[:4]))}
    (trained.root / "drift.json").write_text(json.dumps(halved))
    assert anchor_drift(trained.root, progress=told) == found and calls[0] == (8, len(store))


@pytest.mark.slow
def test_the_base_itself_has_not_moved_and_a_new_model_is_measured_anew(trained: RunDir, tmp_path: Path) -> None:
    """log_u = 0 for the policy that scored the anchors; drift.json of the other model is not taken for it."""
    run = RunDir(shutil.copytree(trained.root, tmp_path / "run"))
    (run.root / "config.yaml").write_text((trained.root / "config.yaml").read_text())
    config = config_of(run.root)
    policy = load_policy(config)
    save_policy(policy, policy.model, run.final)
    found = anchor_drift(run.root)
    assert isinstance(found, AnchorDrift)
    assert max(abs(v) for row in found.rows for v in row.log_u) < 2e-3


@pytest.mark.slow
def test_without_a_model_what_is_there_is_read_or_the_reason_told(trained: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(trained.root, tmp_path / "run"))
    known: Any = anchor_drift(run.root)
    shutil.rmtree(run.final)
    assert anchor_drift(run.root) == known
    (run.root / "drift.json").unlink()
    assert anchor_drift(run.root) == "its trained model is not here"
    assert anchor_drift(run.root, measure=False) == "not measured"
    (run.root / "drift.json").write_text("{")
    with pytest.raises(RunDirError, match=r"drift.json is damaged .*; delete it"):
        anchor_drift(run.root)


def test_a_run_without_anchors_says_so(tmp_path: Path) -> None:
    final = RunDir(tmp_path).final
    final.mkdir(parents=True)
    (final / "config.json").write_text("{}")
    (tmp_path / "config.yaml").write_text(f"out: {tmp_path}\nmethod: grpo\neval: {{}}\n")
    assert anchor_drift(tmp_path) == "it has no anchors"
    assert "no run directory" in str(anchor_drift(tmp_path / "nowhere"))
