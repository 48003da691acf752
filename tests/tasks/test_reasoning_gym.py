"""Tasks of reasoning-gym: prompts that are the same everywhere, golds that verify, scorers that evaluate nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dphrl.config.sources import TaskConfig
from dphrl.errors import ConfigError, DphrlError, VerifierError
from dphrl.tasks import load_task, reasoning_gym
from dphrl.types import Prompt, Task, Verdict, item_of
from dphrl.verifiers.gym.verify_gym import tagged_answer, verify_gym
from dphrl.verifiers.registry import verifier_of
from dphrl.verifiers.verifier import text_style

INSTALLED = importlib.util.find_spec("reasoning_gym") is not None
needs_gym = pytest.mark.skipif(not INSTALLED, reason="reasoning-gym is not installed: pip install 'dphrl[gym]'")
HANDFUL = ["gcd", "countdown", "knights_knaves"]


def load(name: str, **settings: Any) -> Task:
    return load_task("t", TaskConfig(name=f"reasoning_gym:{name}", **settings), base_dir=Path())


def judged(task: Task, *completions: str) -> list[Verdict]:
    """Verdicts on completions of the first prompt."""
    return task.verify([item_of(task.prompts[0], text) for text in completions])


@pytest.mark.slow
@needs_gym
@pytest.mark.parametrize("name", HANDFUL)
def test_golds_verify(name: str) -> None:
    task = load(name, limit=3)
    assert [prompt.id for prompt in task.prompts] == ["row-0000000", "row-0000001", "row-0000002"]
    assert task.solution is text_style
    golds = [item_of(p, verifier_of("gym").gold_completion(p.columns["gold"])) for p in task.prompts]
    assert [(v.correct, v.reward) for v in task.verify(golds)] == [(True, 1.0)] * 3
    (message,) = task.prompts[0].prompt
    assert "between <answer> and </answer>" in message["content"]  # type: ignore[index]
    json.dumps(golds[0])  # a line of `dphrl verify` is the same object


@needs_gym
@pytest.mark.slow
def test_splits_limits_and_settings_choose_the_prompts() -> None:
    train, test = load("gcd", limit=4), load("gcd", limit=4, split="test")
    assert not {p.columns["entry"] for p in train.prompts} & {p.columns["entry"] for p in test.prompts}
    part = load("gcd", offset=1, limit=2)
    assert part.prompts == train.prompts[1:3]
    large = load("gcd", limit=4, verifier_args={"min_value": 10**6, "max_value": 10**7, "deadline_s": 2.0})
    assert all(int(word) >= 10**6 for word in numbers(large.prompts[0]))
    assert judged(large, f"<answer>{large.prompts[0].columns['gold']}</answer>")[0].correct
    assert len(load("gcd").prompts) == reasoning_gym.DEFAULT_ROWS


def numbers(prompt: Prompt) -> list[str]:
    """The numbers a prompt names."""
    (message,) = prompt.prompt
    text = str(message["content"])  # type: ignore[index]
    return [word for word in text.replace(",", " ").split() if word.isdigit()]


@needs_gym
@pytest.mark.slow
@pytest.mark.parametrize("name", ["polynomial_multiplication", "ransom_note"])
def test_prompts_do_not_depend_on_the_hash_seed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """These generators walk over sets of texts."""
    found = []
    for seed in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        found.append(load(name, limit=5).prompts)
    assert found[0] == found[1]


@pytest.mark.slow
@needs_gym
def test_a_score_below_one_is_wrong_and_keeps_its_reward() -> None:
    task = load("spiral_matrix", limit=1)
    gold = task.prompts[0].columns["gold"]
    as_list = json.dumps([int(number) for number in gold.split()])
    right, partly, wrong, none = judged(task, gold, as_list, "7 7", " ")
    assert (right.status, right.reward) == ("correct", 1.0)
    assert (partly.status, partly.correct, partly.reward) == ("wrong", False, 0.1)
    assert (wrong.status, wrong.reward) == ("wrong", 0.0)
    assert (none.status, none.reward) == ("no_answer", 0.0)


@needs_gym
@pytest.mark.slow
def test_a_scorer_that_raises_or_hangs_is_blamed_as_such() -> None:
    raised, right = judged(load("prime_factorization", limit=1), "two × x", "<answer>0</answer>")
    assert (raised.status, raised.reward) == ("verifier_error", None) and right.status == "wrong"
    task = load("countdown", limit=1, verifier_args={"deadline_s": 0.5})
    slow, gold = judged(task, "9**9**9**9", f"<answer>{task.prompts[0].columns['gold']}</answer>")
    assert (slow.status, slow.reward) == ("timeout", 0.0)
    assert gold.correct, "the next item is judged by another worker"


EVERY_GENERATOR = """
import builtins, contextlib, io, json, sys
from reasoning_gym.factory import DATASETS
from dphrl.tasks.reasoning_gym import EXCLUDED
from dphrl.verifiers.gym.generate_rows import generate_rows
from dphrl.verifiers.gym.gym_worker import score_answer
from dphrl.verifiers.gym.verify_gym import tagged_answer

HOSTILE = ["__import__('builtins').__dict__.update(owned=1)", "[__import__('builtins').__dict__.update(owned=1)]"]
faults = []
for name in sorted(set(DATASETS) - set(EXCLUDED)):
    with contextlib.redirect_stdout(io.StringIO()):
        rows = generate_rows(name, {}, seed=0, size=2).rows
        answers = [tagged_answer("<answer>" + r["gold"] + "</answer>") for r in rows]
        found = [score_answer([name, {}, r["entry"], answer], None) for r, answer in zip(rows, answers)]
        if [status for status, _ in found] != ["correct"] * 2:
            faults.append([name, found])
        for text in HOSTILE:
            with contextlib.suppress(Exception):
                score_answer([name, {}, rows[0]["entry"], text], None)
            if vars(builtins).pop("owned", None):
                faults.append([name, "ran the answer"])
json.dump({"generators": len(DATASETS), "faults": faults}, sys.stdout)
"""


@needs_gym
@pytest.mark.slow
def test_every_generator_verifies_its_golds_and_evaluates_no_answer() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EVERY_GENERATOR],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["generators"] > 90 and found["faults"] == []


@pytest.mark.slow
@needs_gym
@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("gdc", {}, "no generator of reasoning-gym; did you mean 'gcd'"),
        ("gcd", {"verifier_args": {"min_valeu": 1}}, "min_valeu.*the generator has .*min_value"),
        ("gcd", {"verifier_args": {"min_value": 5, "max_value": 2}}, "verifier_args of reasoning_gym:gcd: .*max_value"),
    ],
)
def test_errors_of_the_generators(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(name, **settings)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        *((name, {}, "cannot be used: its own gold") for name in list(reasoning_gym.EXCLUDED)[:-1]),
        ("composite", {}, "it is a mixture"),
        ("gcd", {"split": "dev"}, "is not one of train, test"),
        ("gcd", {"data": "x.jsonl"}, "take out task.data"),
        ("gcd", {"verifier_args": {"seed": 3}}, "seed of reasoning_gym:gcd follows from task.split"),
    ],
)
def test_settings_that_no_generator_takes(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(name, **settings)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs reasoning-gym; pip install 'dphrl\[gym\]'"):
        load("gcd")
    with pytest.raises(VerifierError, match="not installed"):
        verify_gym([{"completion": "1", "gym": "gcd", "entry": "{}"}])


@needs_gym
@pytest.mark.parametrize(
    ("item", "arguments", "message"),
    [
        ({"completion": "1", "gym": "gcd"}, {}, "has no 'entry'"),
        ({"completion": "1", "entry": "{}"}, {}, "has no 'gym'"),
        ({"gym": "gcd", "entry": "{}"}, {}, "has no 'completion'"),
        ({}, {"deadline_s": 0}, "deadline_s=0 must be above 0"),
        ({}, {"workers": 0}, "workers=0 at least 1"),
    ],
)
def test_bad_items_and_arguments(item: dict[str, Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DphrlError, match=message):
        verify_gym([item], **arguments)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("I say <answer> 4 </answer>", "4"),
        ("<answer>3</answer> no, <answer>4</answer> it is", "4"),
        ("<answer>3</answer> and <answer>4", "3"),
        ("\\boxed{3} or <answer>4</answer>", "4"),
        ("\\boxed{3} so \\boxed{4}", "4"),
        ("  4\n", "4"),
        ("</answer>4<answer>", "</answer>4<answer>"),
        ("<answer></answer>", ""),
        ("<answer>" * 10**5, "<answer>" * 10**5),
    ],
)
def test_the_answer_of_a_completion(completion: str, answer: str) -> None:
    assert tagged_answer(completion) == answer


def test_no_row_of_the_test_split_is_made_with_a_seed_of_the_train_split() -> None:
    assert reasoning_gym.SEEDS["test"] - reasoning_gym.SEEDS["train"] >= 10**9
    assert reasoning_gym.SEEDS["test"] + 10**9 < 2**32, "numpy's largest seed"
