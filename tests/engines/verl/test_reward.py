"""Our verifiers as verl's reward function: verdicts, batches, failures, and which verifier is asked."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Sequence
from typing import Any

import pytest

from dphrl.engines.verl.reward import GatheringJudge, check_reward, compute_score, judged, named_verifier
from dphrl.errors import VerifierError
from dphrl.types import Item, Verdict

RIGHT = Verdict(True, 1.0, "correct")


def score(**given: Any) -> dict[str, Any]:
    return asyncio.run(compute_score("gsm8k", given.pop("text"), given.pop("gold"), given.pop("info", None), **given))


def test_a_verdict_becomes_what_verl_reads() -> None:
    assert inspect.iscoroutinefunction(compute_score), "verl awaits it, so that completions can be judged together"
    found = score(text="It is \\boxed{4}", gold="4", verifier="math")
    assert 0 <= found.pop("timeouts_s") <= found.pop("verifier_s")
    assert found == {
        "score": 1.0,
        "acc": 1.0,
        "unjudged": 0.0,
        "status": "correct",
        "detail": "",
    }
    assert score(text="\\boxed{5}", gold="4", verifier="math")["acc"] == 0.0


def test_the_row_names_its_verifier_where_the_config_does_not() -> None:
    info = {"id": "p", "verifier": "exact", "verifier_args": "{}", "columns": json.dumps({"gold": "four"})}
    assert score(text="four", gold="four", info=info)["acc"] == 1.0
    assert named_verifier("math", {"b": 1}, info, "s") == ("math", '{"b": 1}')
    assert named_verifier(None, None, info, "s") == ("exact", "{}")
    with pytest.raises(VerifierError, match=r"no verifier for data_source='s': set \+reward"):
        named_verifier(None, None, {}, "s")


def test_a_data_file_alone_runs_no_code() -> None:
    info = {"id": "p", "verifier": "builtins:print", "verifier_args": "{}", "columns": "{}"}
    with pytest.raises(VerifierError, match=r"must run no code: set \+reward.*functions=\[builtins:print\]"):
        named_verifier(None, None, info, "s")
    assert named_verifier(None, None, info, "s", ["builtins:print"]) == ("builtins:print", "{}")


def test_what_cannot_be_judged_is_marked_and_never_ends_the_worker() -> None:
    found = score(text="x", gold="4", verifier="maht")
    assert (found["score"], found["unjudged"], found["status"]) == (0.0, 1.0, "verifier_error")
    assert "'maht' is not one of" in found["detail"]
    with pytest.raises(VerifierError, match=r"reward_kwargs\.threshold is not one of verifier"):
        score(text="x", gold="4", verifier="math", threshold=2)


def test_completions_that_come_together_are_judged_together() -> None:
    sizes: list[int] = []

    def verify(items: Sequence[Item]) -> list[Verdict]:
        sizes.append(len(items))
        return [RIGHT] * len(items)

    async def ask() -> list[Verdict]:
        judge = GatheringJudge(verify)
        return [verdict for verdict, _ in await asyncio.gather(*(judge({"completion": str(i)}) for i in range(100)))]

    assert asyncio.run(ask()) == [RIGHT] * 100
    assert sizes == [100]


def test_verdicts_go_to_those_who_asked() -> None:
    def verify(items: Sequence[Item]) -> list[Verdict]:
        return [Verdict(True, float(item["completion"]), "correct") for item in items]

    async def ask() -> list[Verdict]:
        judge = GatheringJudge(verify)
        first = asyncio.create_task(judge({"completion": "0"}))
        await asyncio.sleep(0)  # it is at work on the first when the others come
        others = [asyncio.create_task(judge({"completion": str(i)})) for i in range(1, 50)]
        others[7].cancel()
        await asyncio.wait(others)
        return [(await first)[0], *(task.result()[0] for task in others if not task.cancelled())]

    assert [v.reward for v in asyncio.run(ask())] == [float(i) for i in range(50) if i != 8]


def test_only_the_completion_at_fault_has_no_verdict() -> None:
    def verify(items: Sequence[Item]) -> list[Verdict]:
        if any(item["completion"] == "bad" for item in items):
            raise RuntimeError("no server")
        return [RIGHT] * len(items)

    found = judged(verify, [{"completion": c} for c in ("a", "bad", "b")])
    assert [v.status for v in found] == ["correct", "verifier_error", "correct"]
    assert found[1].detail == "RuntimeError: no server" and found[1].reward is None
    assert judged(lambda items: [], [{"completion": "a"}])[0].detail == "VerifierError: 0 verdicts for 1 completions"


class Config(dict[str, Any]):
    """A mapping with attributes, as verl's config is."""

    def __getattr__(self, name: str) -> Any:
        value = self[name]
        return Config(value) if isinstance(value, dict) else value


def reward_config(**function: Any) -> Config:
    return Config(reward={"custom_reward_function": {"path": "pkg://dphrl.engines.verl.reward", **function}})


def test_a_wrong_verifier_is_known_before_anything_is_drawn() -> None:
    check_reward(reward_config())
    check_reward(reward_config(reward_kwargs={"verifier": "math"}))
    check_reward(reward_config(path="other.py", reward_kwargs={"verifier": "maht"}))
    with pytest.raises(VerifierError, match="'maht' is not one of"):
        check_reward(reward_config(reward_kwargs={"verifier": "maht"}))
    with pytest.raises(VerifierError, match="has no argument 'x'"):
        check_reward(reward_config(reward_kwargs={"verifier": "math", "verifier_args": {"x": 1}}))
    with pytest.raises(VerifierError, match=r"reward_kwargs\.verifer is not one of .*did you mean 'verifier'"):
        check_reward(reward_config(reward_kwargs={"verifer": "math"}))
    with pytest.raises(VerifierError, match="no_such_module"):
        check_reward(reward_config(reward_kwargs={"functions": ["no_such_module:f"]}))
    with pytest.raises(VerifierError, match=r"needs reward_kwargs\.verifier"):
        check_reward(reward_config(reward_kwargs={"verifier_args": {"x": 1}}))
