"""The method in one file computes the trainer's loss, splits as it says and runs to its table."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import exact_cases as cases
import pytest
import torch

from dphrl.demo.task import load_demo_task
from dphrl.method.anchor_order import AnchorOrder
from dphrl.method.divergences import generator
from dphrl.models.policy import load_policy
from dphrl.types import Anchor, Task

FILE = Path(__file__).parents[2] / "examples" / "dph_one_file.py"
record, anchors = cases.record, cases.anchors
ETA = 0.4


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dph_one_file", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def generation(example: ModuleType, micro_batches: Sequence[dict[str, Any]], old: Any) -> Any:
    """The trainer's rollouts as rows of the example, scored by the policy that drew them."""
    keys = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    completions = [
        example.Completion(p[pm.bool()].tolist(), c[cm.bool()].tolist(), False)
        for batch in micro_batches
        for p, pm, c, cm in zip(*(batch[key] for key in keys), strict=True)
    ]
    return example.rows_of(old, completions, torch.cat([batch["advantages"] for batch in micro_batches]))


def test_loss_and_gradient_are_the_trainers(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, record: cases.Recorded, anchors: tuple[Anchor, ...]
) -> None:
    """The second step on a generation: ratios are not 1, clipping acts, u lies on either side of 1."""
    monkeypatch.setattr(example, "CLIP_LOW", 0.05)
    monkeypatch.setattr(example, "CLIP_HIGH", 0.08)
    seen = record(anchors, method="dph", divergence="forward_kl", eta=ETA, temperature=1.0)
    rollouts = generation(example, seen.inputs, old=seen.model_at(0))
    second = generation(example, seen.inputs[2:], old=seen.model_at(0))
    chosen = [anchors[i] for i in AnchorOrder(16, 5).step(1, 8)]
    rows = example.rows_of(
        seen.model_at(0),
        [example.Completion(list(a.prompt_ids), list(a.completion_ids), True) for a in chosen],
        torch.zeros(len(chosen)),
    )
    rows.drawn_logp_BT[rows.mask_BT] = torch.tensor([logp for a in chosen for logp in a.ref_logps])
    model = seen.model_at(1)
    loss = example.step_loss(model, second, int(rollouts.mask_BT.sum()) / 2, rows, ETA)
    loss.backward()
    assert loss.item() == pytest.approx(sum(seen.losses[2:]), rel=1e-5)
    gradient = cases.gradient(model)
    assert (seen.gradients[1] - gradient).norm() < 2e-5 * gradient.norm()
    alone = example.step_loss(model, second, int(rollouts.mask_BT.sum()) / 2, None, ETA)
    assert alone.item() != pytest.approx(loss.item(), rel=0.1)  # the anchors weigh enough to be seen
    assert seen.trainer.state.log_history[1]["clip_ratio/region_mean"] > 0.02
    check_advantages(example, seen.inputs)


def check_advantages(example: ModuleType, micro_batches: Sequence[dict[str, Any]]) -> None:
    groups: dict[tuple[int, ...], list[tuple[float, float]]] = {}
    for batch in micro_batches:
        keys = ("prompt_ids", "prompt_mask", "rewards", "advantages")
        for ids, mask, reward, advantage in zip(*(batch[key] for key in keys), strict=True):
            groups.setdefault(tuple(ids[mask.bool()].tolist()), []).append((reward.item(), advantage.item()))
    reward_PG, advantage_PG = torch.tensor(list(groups.values())).unbind(-1)
    assert advantage_PG.shape == (4, cases.GROUP) and (advantage_PG != 0).any()
    assert torch.allclose(example.advantages(reward_PG), advantage_PG, atol=1e-5)


def test_the_penalty_is_forward_kl_with_its_tangent(example: ModuleType) -> None:
    log_u = torch.linspace(-9, 9, 101, dtype=torch.float64, requires_grad=True)
    example.forward_kl(log_u).sum().backward()
    other = log_u.detach().clone().requires_grad_()
    expected = generator("forward_kl", log_u_cap=example.LOG_U_CAP)(other)
    expected.sum().backward()
    assert torch.allclose(example.forward_kl(log_u), expected, rtol=1e-9, atol=1e-12)
    assert torch.allclose(log_u.grad, other.grad, rtol=1e-9, atol=1e-12)


def test_the_split_debiases(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six of eight right are near-perfect; the draw beyond decides, and must be right and finished."""
    end = example.TOKENIZER.eos_token_id
    right = {"a": 8, "b": 6, "c": 5, "d": 7, "e": 8}
    extra = {"a": ([5, end], True), "b": ([5, end], False), "d": ([5, 5], True), "e": ([7, end], True)}

    def draw(model: Any, prompts: Sequence[str], n: int) -> list[list[Any]]:
        if n == 1:
            return [[example.Completion([1], *extra[p])] for p in prompts]
        return [[example.Completion([1], [5, end], i < right[p]) for i in range(n)] for p in prompts]

    monkeypatch.setattr(example, "draw", draw)
    exploration, anchors = example.split(None, list("abcde"))
    assert exploration == ["c", "b", "d"]
    assert [c.ids for c in anchors] == [[5, end], [7, end]]


def test_draws_are_cut_at_the_end_and_judged(example: ModuleType) -> None:
    model = load_policy(cases.CONFIG).model
    prompts = load_demo_task("in_domain").prompts[:34]  # more than one batch
    torch.manual_seed(0)
    groups = example.draw(model, prompts, 4)
    end = example.TOKENIZER.eos_token_id
    assert [len(group) for group in groups] == [4] * 34
    for prompt, group in zip(prompts, groups, strict=True):
        for c in group:
            assert c.prompt_ids == example.TOKENIZER(prompt.prompt)["input_ids"]
            assert end not in c.ids[:-1] and 0 < len(c.ids) <= example.MAX_NEW_TOKENS
    assert 0.3 < sum(c.right for group in groups for c in group) / (4 * 34) < 0.9


@pytest.mark.slow
def test_it_runs_to_its_table(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a part of the prompts."""

    def some(name: str, split: str) -> Task:
        task = load_demo_task(name, split)
        return replace(task, prompts=task.prompts[:40])

    monkeypatch.setattr(example, "load_demo_task", some)
    monkeypatch.setattr(example, "TASK", some("in_domain", "train"))
    example.main(steps=2, n=8, seed=0)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("base", "GRPO", "DPH-F")) for line in lines) == 6
    rates = [float(x) for line in lines if line.startswith(("base", "GRPO", "DPH-F")) for x in line.split()[1:]]
    assert len(rates) == 18 and all(20 < rate <= 100 for rate in rates)


def test_it_is_short_and_stands_alone() -> None:
    """What is read aloud is at most 200 lines, and imports of dphrl the demo's world alone."""
    text = FILE.read_text()
    assert len(text.splitlines()) <= 200
    assert [line for line in text.splitlines() if "import" in line and "dphrl" in line.split("import")[0]] == [
        "from dphrl.demo.task import load_demo_task, model_folder"
    ]
