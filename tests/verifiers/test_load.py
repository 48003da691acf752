"""Loading verifiers by name, the user's own reward functions, and the reward function handed to TRL."""

from __future__ import annotations

import asyncio
import math
import os
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dphrl.config.sources import TaskConfig
from dphrl.errors import VerifierError
from dphrl.tasks import load_task
from dphrl.types import STATUSES, Item, Prompt, Task, Verdict, item_of
from dphrl.verifiers import VERIFIERS, load_verifier, math_reward, reward_function, sql_reward, task_reward
from dphrl.verifiers.registry import verifier_of
from dphrl.verifiers.user_function import from_reward_function

PROMPTS = [Prompt(str(i), f"q{i}", {"gold": f"g{i}"}) for i in range(3)]


def items(*texts: str) -> list[Item]:
    return [item_of(prompt, text) for prompt, text in zip(PROMPTS, texts, strict=False)]


def test_exact() -> None:
    verify = load_verifier("exact", {})
    items = [{"gold": "Yes\n", "completion": text} for text in (" Yes ", "yes", " ")]
    assert [v.status for v in verify([*items, {"gold": None, "completion": "Yes"}])] == [
        "correct",
        "wrong",
        "no_answer",
        "gold_error",
    ]
    with pytest.raises(VerifierError, match="no 'gold'"):
        verify([{"completion": "x"}])


def test_builtin_verifiers_take_their_arguments() -> None:
    long = "+".join(f"x_{{{i}}}" for i in range(150))
    item = {"gold": "x+1", "completion": rf"\boxed{{{long}}}"}
    assert load_verifier("math", {"deadline_s": 0.3})([item])[0].status == "timeout"
    assert load_verifier("math", {})([item | {"completion": r"\boxed{1+x}"}])[0].status == "correct"


NEW_VERIFIER = """
from dphrl.verifiers.verifier import Verifier, completion_of, verdict

def verify_length(items, *, most=3):
    return [verdict("correct" if len(completion_of("length", item)) <= most else "wrong") for item in items]

VERIFIER = Verifier(name="length", judge=verify_length, solution=str.upper, answer=str.strip, answer_form="<%s>")
"""


def test_a_new_verifier_is_one_module_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Judging, solutions, answers and golds all come from its record."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "verify_length_of_tests.py").write_text(NEW_VERIFIER)
    monkeypatch.setitem(VERIFIERS, "length", "verify_length_of_tests")
    (tmp_path / "rows.jsonl").write_text('{"question": "q"}\n')
    cfg = TaskConfig(data="rows.jsonl", verifier="length", verifier_args={"most": 2})
    task = load_task("t", cfg, base_dir=tmp_path)
    assert [v.status for v in task.verify([item_of(task.prompts[0], text) for text in ("ab", "abc")])] == [
        "correct",
        "wrong",
    ]
    assert task.answer is not None and (task.solution("a"), task.answer(" a ")) == ("A", "a")
    assert verifier_of("length").gold_completion(7) == "<7>"
    with pytest.raises(VerifierError, match="did you mean 'most'"):
        load_verifier("length", {"mots": 2})


@pytest.mark.parametrize("name", list(VERIFIERS))
def test_every_record_is_of_its_name(name: str) -> None:
    record = verifier_of(name)
    assert record.name == name and "%s" in record.answer_form
    assert isinstance(record.solution("x"), str)


@pytest.mark.parametrize(
    ("spec", "args", "message"),
    [
        ("maths", {}, "did you mean 'math'"),
        ("sql", {"dbdir": "x"}, "did you mean 'db_dir'"),
        ("exact", {"x": 1}, "may hold nothing"),
        ("no_such_module_of_mine:f", {}, "cannot import"),
        ("json:lodas", {}, "did you mean 'loads'"),
        ("json:loads", {"correct": 1}, "did you mean 'correct_at'"),
    ],
)
def test_wrong_use_is_named(spec: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(VerifierError, match=message):
        load_verifier(spec, args)


def test_a_module_of_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_reward_of_tests.py").write_text(
        "def short(completions, **others):\n    return [1.5 if len(text) < 3 else 0.5 for text in completions]\n"
    )
    verdicts = load_verifier("my_reward_of_tests:short", {})(items("ab", "abc"))
    assert verdicts == [Verdict(True, 1.5, "correct"), Verdict(False, 0.5, "wrong")]
    assert load_verifier("my_reward_of_tests:short", {"correct_at": 0.5})(items("abc"))[0].correct


def test_what_a_reward_function_is_given() -> None:
    """Keyword arguments only, columns as lists, chat completions as messages: TRL's contract."""
    seen: dict[str, Any] = {}

    def reward(**everything: Any) -> list[float | None]:
        seen.update(everything)
        return [1.0, None]

    chat = Prompt("b", ({"role": "user", "content": "q"},), {"gold": "y"})
    verdicts = from_reward_function(reward, "r")([item_of(Prompt("a", "q", {"gold": "x"}), "s"), item_of(chat, "t")])
    assert seen == {
        "prompts": ["q", [{"role": "user", "content": "q"}]],
        "completions": ["s", [{"role": "assistant", "content": "t"}]],
        "gold": ["x", "y"],
        "id": ["a", "b"],
    }
    assert [verdict.status for verdict in verdicts] == ["correct", "verifier_error"]
    assert verdicts[1].reward is None


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([1.0], "1 results for 3"),
        (None, "must return a list"),
        ([1.0, "x", 1.0], "'x'"),
        ([1.0, math.nan, 1.0], "nan"),
        ([1.0, math.inf, 1.0], "inf"),
        ([1.0, 1e39, 1.0], "float32"),
        ({0: 1.0, 1: 0.0, 2: 1.0}, "a dict, .*in order"),
        ({1.0, 0.0, 0.5}, "a set"),
        ("101", "a str"),
        (torch.ones(3, 2), "for a completion"),
    ],
)
def test_a_broken_contract_is_an_error(result: Any, message: str) -> None:
    with pytest.raises(VerifierError, match=message):
        from_reward_function(lambda **_: result, "r")(items("a", "b", "c"))


async def later(completions: list[str], **_: Any) -> list[float]:
    await asyncio.sleep(0)
    return [float(len(text)) for text in completions]


@pytest.mark.parametrize(
    "function",
    [
        later,
        lambda completions, **_: torch.tensor([float(len(text)) for text in completions]),
        lambda completions, **_: [torch.tensor(float(len(text))) for text in completions],
        lambda completions, **_: np.array([len(text) for text in completions]),
        lambda completion_ids, **_: (float(len(ids)) for ids in completion_ids),
    ],
)
def test_what_trl_takes_is_taken(function: Callable[..., Any]) -> None:
    drawn = [item_of(prompt, "x" * n, range(n)) for n, prompt in enumerate(PROMPTS, start=1)]
    assert [verdict.reward for verdict in from_reward_function(function, "r")(drawn)] == [1.0, 2.0, 3.0]


def test_an_async_function_within_a_running_loop() -> None:
    """As in a notebook."""

    async def cell() -> list[Verdict]:
        return from_reward_function(later, "r")(items("ab"))

    assert asyncio.run(cell())[0].reward == 2.0


def test_a_function_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    def careless(completions: list[str], **_: Any) -> list[float]:
        os.chdir(tmp_path)
        torch.set_grad_enabled(False)
        for seed in (torch.manual_seed, np.random.seed, random.seed):
            seed(0)
        return [1.0] * len(completions)

    def state() -> tuple[object, ...]:
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist(), Path.cwd()  # noqa: NPY002

    before = state()
    from_reward_function(careless, "r")(items("a"))
    assert state() == before and torch.is_grad_enabled()


def test_a_function_that_does_not_return_is_ended() -> None:
    def stuck(**_: Any) -> list[float]:
        while True:
            with suppress(Exception):
                list(range(1000))

    with pytest.raises(VerifierError, match=r"mine:stuck.*did not return within 0\.05 s.*timeout_s"):
        from_reward_function(stuck, "mine:stuck")(items("a", "b"), timeout_s=0.05)


def picky(completions: list[str], **_: Any) -> list[float]:
    return [1 / (0 if "bad" in text else 1) for text in completions]


def test_one_bad_text_does_not_end_a_run() -> None:
    verdicts = from_reward_function(picky, "r")(items("a", "bad", "c"))
    assert [verdict.status for verdict in verdicts] == ["correct", "verifier_error", "correct"]
    assert verdicts[1].reward is None and "ZeroDivisionError" in verdicts[1].detail


def test_a_function_that_never_worked_is_an_error_and_later_failures_are_not() -> None:
    verify = from_reward_function(picky, "mine:picky")
    with pytest.raises(VerifierError, match=r"mine:picky.*ZeroDivisionError"):
        verify(items("bad", "bad", "bad"))
    assert verify(items("good"))[0].correct
    assert [verdict.status for verdict in verify(items("bad", "bad", "bad"))] == ["verifier_error"] * 3
    assert verify([]) == []


def make_task(verify: Callable[..., list[Verdict]]) -> Task:
    return Task("t", tuple(PROMPTS), verify, str)


def test_the_reward_function_joins_by_id_and_reports_every_status() -> None:
    """Shuffled ids; one gold missing. Shares are over the completions of the call."""
    reward = task_reward(make_task(load_verifier("exact", {})))
    logged: dict[str, float] = {}
    rewards = reward(
        prompts=["q2", "q0", "q2", "q1"],
        completions=["g2", [{"role": "assistant", "content": "g0"}], "g0", ""],
        completion_ids=[[1]] * 4,
        prompt_id=["2", "0", "2", "1"],
        log_metric=logged.__setitem__,
    )
    assert reward.__name__ == "verifier"
    assert rewards == [1.0, 1.0, 0.0, 0.0]
    expected = dict.fromkeys([f"verifier/status/{status}" for status in STATUSES], 0.0)
    assert logged == expected | {
        "verifier/status/correct": 0.5,
        "verifier/status/wrong": 0.25,
        "verifier/status/no_answer": 0.25,
        "verifier/timeout_share": 0.0,
    }


def test_the_reward_function_names_what_is_missing() -> None:
    reward = task_reward(make_task(load_verifier("exact", {})))
    with pytest.raises(VerifierError, match="prompt_id"):
        reward(completions=["x"])
    with pytest.raises(VerifierError, match="no prompt '9'"):
        reward(completions=["x"], prompt_id=["9"])
    with pytest.raises(VerifierError, match="0 verdicts for 1"):
        task_reward(make_task(lambda *_: []))(completions=["x"], prompt_id=["1"])


def test_rewards_without_a_task(tmp_path: Path) -> None:
    """TRL's own columns and keywords do not disturb; arguments of the verifier are bound by name."""
    db = tmp_path / "empty.sqlite"
    db.touch()
    extra = {"prompts": ["q", "q"], "completion_ids": [[1], [2]], "trainer_state": object()}
    assert math_reward(completions=["so 4", "5"], gold=["4", "4"], **extra) == [1.0, 0.0]
    chat = [[{"role": "assistant", "content": "SELECT 1, 2"}], [{"role": "assistant", "content": "SELECT 2, 1"}]]
    columns = {"gold": ["SELECT 2, 1", "x"], "db": [str(db)] * 2}
    assert sql_reward(completions=chat, **columns, **extra) == [1.0, None]
    assert reward_function("sql", mode="bird")(completions=chat, **columns) == [0.0, None]
    assert (math_reward.__name__, sql_reward.__name__) == ("math_reward", "sql_reward")
    with pytest.raises(VerifierError, match="no 'gold'"):
        math_reward(completions=["4"], answer=["4"])
