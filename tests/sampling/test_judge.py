"""Verdicts from a verifier that fails for a while."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dphrl.errors import VerifierError
from dphrl.sampling import judge
from dphrl.sampling.judge import Judge
from dphrl.types import Completion, Item, Prompt, Task, Verdict
from dphrl.verifiers.verifier import verdict


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "PAUSES", (0.0, 0.0, 0.0))


def task_of(verify: Callable[[Sequence[Item]], list[Verdict]], prompts: int = 4) -> Task:
    return Task("t", tuple(Prompt(f"p{i}", "", {}) for i in range(prompts)), verify, str)


def completion(i: int, draw: int = 0, text: str = "") -> Completion:
    return Completion(f"p{i}", draw, (1, 2), text, "stop")


class Flaky:
    """A verifier that raises, or cannot judge, as often as told."""

    def __init__(self, raises: int = 0, unjudged: int = 0, always: str = "") -> None:
        self.raises, self.unjudged, self.always, self.calls = raises, unjudged, always, 0

    def __call__(self, items: Sequence[Item]) -> list[Verdict]:
        self.calls += 1
        if self.raises:
            self.raises -= 1
            raise ConnectionError("no server")
        if any(item["completion"] == self.always for item in items if self.always):
            raise RuntimeError("this one breaks it")
        status: Any = "verifier_error" if self.unjudged else "correct"
        self.unjudged = max(0, self.unjudged - 1)
        return [verdict(status) for _ in items]


def statuses(found: Sequence[Completion]) -> list[str]:
    return [c.verdict.status for c in found if c.verdict is not None]


def test_a_failing_verifier_is_asked_again_before_anything_is_recorded() -> None:
    for flaky in (Flaky(raises=3), Flaky(unjudged=2), Flaky(raises=1, unjudged=1)):
        assert statuses(Judge(task_of(flaky))([completion(0), completion(1)])) == ["correct"] * 2


def test_what_stays_unjudged_is_recorded_as_such_never_as_wrong() -> None:
    judged = Judge(task_of(Flaky(unjudged=9)))([completion(0)])
    assert judged[0].verdict == Verdict(False, None, "verifier_error")


def test_only_the_completion_at_fault_is_recorded() -> None:
    judged = Judge(task_of(Flaky(always="bad")))([completion(0), completion(1, text="bad"), completion(2)])
    assert statuses(judged) == ["correct", "verifier_error", "correct"]
    assert judged[1].verdict is not None and judged[1].verdict.detail == "RuntimeError: this one breaks it"


def test_a_verifier_that_never_worked_is_an_error_and_one_that_did_is_not() -> None:
    with pytest.raises(VerifierError, match=r"'t' raised on each of 2 completions.*ConnectionError: no server"):
        Judge(task_of(Flaky(raises=99)))([completion(0), completion(1)])
    flaky = Flaky()
    later = Judge(task_of(flaky))
    later([completion(0)])
    flaky.raises = 99
    assert statuses(later([completion(1)])) == ["verifier_error"]


def test_wrong_use_of_a_verifier_is_not_retried() -> None:
    def verify(items: Sequence[Item]) -> list[Verdict]:
        calls.append(len(items))
        raise VerifierError("mend it")

    calls: list[int] = []
    with pytest.raises(VerifierError, match="mend it"):
        Judge(task_of(verify))([completion(0)])
    assert calls == [1]
