"""The record of a step that was left out: its line for the screen, and its files."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file

from dphrl.engines.common.bad_step import NAMED, BadMicroBatch, BadShare, BadStep, MicroBatch, keep_share
from dphrl.files import read_json
from dphrl.types import Anchor

ANCHOR = Anchor("p", (1, 2), (3,), (-0.5,), draw=3)


def test_the_line_names_the_micro_batches_whose_own_loss_is_bad() -> None:
    """Two ranks; only rank 1's second loss is not finite. Long lists are cut."""
    good = BadMicroBatch(0.5, ("a",), ())
    bad = BadMicroBatch(math.nan, tuple(f"b{i}" for i in range(NAMED + 2)), (ANCHOR,))
    step = BadStep(7, math.nan, 1, (BadShare(0, "x", (good,)), BadShare(1, "y", (good, bad))))
    assert step.line(Path("x")) == (
        "step 7 is left out: loss nan, gradient norm nan; prompts b0, b1, b2, b3, b4, b5, b6, b7 and 2 more; "
        "anchors task/p/3; kept in x/step-7.json"
    )
    finite = BadStep(7, math.inf, 1, (BadShare(0, "x", (good,)),))
    assert "loss 0.5, gradient norm inf; prompts a; kept" in finite.line(Path("x"))


def test_files_hold_batches_and_name_prompts_and_anchors(tmp_path: Path) -> None:
    ids, mask = torch.tensor([[0, 5, 6], [7, 8, 9]]), torch.tensor([[0, 1, 1], [1, 1, 1]])
    batch = MicroBatch({"prompt_ids": ids, "prompt_mask": mask, "advantages": torch.ones(2)}, (ANCHOR,))
    names = {(5, 6): ["first"], (7, 8, 9): ["third", "second"]}
    asked: list[frozenset[tuple[int, ...]]] = []
    share = keep_share(tmp_path / "bad", 4, 1, [math.nan], [batch], lambda wanted: asked.append(wanted) or names)
    assert asked == [frozenset(names)]
    assert share == BadShare(1, "step-4-rank-1.safetensors", share.micro_batches)
    kept = load_file(tmp_path / "bad" / share.file)
    assert torch.equal(kept["micro-0/prompt_ids"], ids) and torch.equal(kept["micro-0/advantages"], torch.ones(2))
    assert len(kept["rng_state"]) == len(torch.random.get_rng_state())
    BadStep(4, math.inf, 2, (share,)).write(tmp_path / "bad")
    assert read_json(tmp_path / "bad/step-4.json") == {
        "step": 4,
        "grad_norm": "inf",
        "in_a_row": 2,
        "ranks": [
            {
                "rank": 1,
                "file": "step-4-rank-1.safetensors",
                "micro_batches": [
                    {
                        "loss": "nan",
                        "prompts": ["first", "second", "third"],
                        "anchors": [
                            {
                                "task": "task",
                                "prompt_id": "p",
                                "draw": 3,
                                "prompt_ids": [1, 2],
                                "completion_ids": [3],
                                "ref_logps": [-0.5],
                            }
                        ],
                    }
                ],
            }
        ],
    }
