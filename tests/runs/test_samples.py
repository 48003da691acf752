"""Verdicts from a verifier that fails for a while, shards that are never written twice, difficulty."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dphrl.errors import RunDirError, SamplerError, VerifierError
from dphrl.method.difficulty import difficulty, in_band, mean_reward, posterior
from dphrl.method.partition import Rules
from dphrl.progress import silent
from dphrl.runs import drawing, samples
from dphrl.runs.drawing import draw_and_store, draw_missing
from dphrl.runs.samples import SampleFiles
from dphrl.sampling import judge
from dphrl.sampling.base import Request
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


class Given:
    """A sampler that yields these batches."""

    def __init__(self, *batches: Sequence[Completion]) -> None:
        self.batches = batches

    def draw(self, requests: Sequence[Request]) -> Iterator[list[Completion]]:
        yield from map(list, self.batches)

    def close(self) -> None:
        """Nothing to give back."""


def requests(*keys: tuple[int, int]) -> list[Request]:
    return [Request(f"p{i}", d, (1,)) for i, d in keys]


def drawn(tmp_path: Path, sampler: Given, *keys: tuple[int, int]) -> list[Completion]:
    shards = SampleFiles(tmp_path)
    draw_and_store(requests(*keys), sampler, Judge(task_of(Flaky())), shards, lambda batch: None)
    return shards.read()


def test_a_sampler_that_doubles_or_loses_a_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SamplerError, match=r"twice: \[\('p0', 0\)\]"):
        drawn(tmp_path / "a", Given([completion(0)], [completion(0)]), (0, 0))
    with pytest.raises(SamplerError, match=r"left out 1 completions, first \[\('p1', 0\)\]"):
        drawn(tmp_path / "b", Given([completion(0)]), (0, 0), (1, 0))
    assert [c.prompt_id for c in SampleFiles(tmp_path / "b").read()] == ["p0"], "what came is kept"


def test_an_interrupt_in_the_middle_of_a_flush_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C right after the first shard was renamed into place: the flush on the way out must not write another."""
    inner, first = samples.write_samples, iter([True])

    def write(path: Path, completions: Any) -> None:
        inner(path, completions)
        if next(first, False):
            raise KeyboardInterrupt

    monkeypatch.setattr(drawing, "write_samples", write)
    monkeypatch.setattr(drawing, "FILE_COMPLETIONS", 1)
    with pytest.raises(KeyboardInterrupt):
        drawn(tmp_path, Given([completion(0)], [completion(1)]), (0, 0), (1, 0))
    assert [c.prompt_id for c in SampleFiles(tmp_path).read()] == ["p0"]


def test_what_is_stored_is_not_drawn_again_and_shards_never_replace_each_other(tmp_path: Path) -> None:
    shards, task = SampleFiles(tmp_path), task_of(Flaky())
    first, _ = draw_missing(requests((0, 0)), Given([completion(0)]), task, shards, silent, "")
    both, speed = draw_missing(requests((0, 0), (1, 0)), Given([completion(1)]), task, shards, silent, "")
    assert both[0] == first[0] and {c.prompt_id for c in both} == {"p0", "p1"} and speed.tokens == 2
    shards.paths()[0].unlink()
    assert shards.next().name == "completions-00002.parquet"
    light = shards.read(without=samples.HEAVY)[0]
    assert (light.token_ids, light.text, light.verdict) == ((), "", both[1].verdict)
    assert list(shards.take([("p1", 0), ("p9", 0)])) == shards.read()


def test_a_damaged_shard_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "completions-00000.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(RunDirError, match=r"completions-00000.parquet cannot be read.*delete it and run again"):
        SampleFiles(tmp_path).read()


def test_evaluations_store_solutions_and_answers_and_older_files_are_read(tmp_path: Path) -> None:
    """A solution of right completions only, an answer where there is one; the completions are the same without."""
    verdicts = [verdict("correct"), verdict("wrong"), verdict("no_answer")]
    mine = [Completion("p", d, (1,), t, "stop", v) for d, (t, v) in enumerate(zip("ABC", verdicts, strict=True))]
    new, old = tmp_path / "new.parquet", tmp_path / "old.parquet"
    samples.write_samples(new, mine, solution=str.lower, answer=lambda text: None if text == "C" else f"={text}")
    samples.write_samples(old, mine)
    table = pq.read_table(new)
    assert table["solution"].to_pylist() == ["a", None, None] and table["answer"].to_pylist() == ["=A", "=B", None]
    assert samples.read_samples(new) == samples.read_samples(old) == mine
    assert pq.read_schema(old).names == samples.SCHEMA.names, "shards hold neither"


def test_posterior_by_hand() -> None:
    """No draw: the uniform prior. 8 of 8: the distribution function is x^9. 1 of 1: x^2."""
    assert posterior(0, 0) == pytest.approx((0.025, 0.975))
    assert posterior(8, 0) == pytest.approx((0.025 ** (1 / 9), 0.975 ** (1 / 9)))
    assert posterior(1, 0) == pytest.approx((math.sqrt(0.025), math.sqrt(0.975)))


@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from([0.5, 0.9, 0.95]))
@settings(deadline=None, max_examples=40)
def test_posterior_holds_its_mass_and_mirrors(successes: int, failures: int, level: float) -> None:
    low, high = posterior(successes, failures, level)
    x = np.linspace(0, 1, 20_001)
    density = x**successes * (1 - x) ** failures
    inside = density[(x >= low) & (x <= high)].sum() / density.sum()
    assert inside == pytest.approx(level, abs=4e-3)
    assert posterior(failures, successes, level) == pytest.approx((1 - high, 1 - low))


def row(marks: str) -> dict[int, Completion]:
    of: dict[str, Any] = {"+": verdict("correct"), "-": verdict("wrong"), "v": verdict("verifier_error")}
    return {d: Completion("p", d, (1,), "", "stop", of[m]) for d, m in enumerate(marks)}


def test_difficulty_reads_the_draws_that_settled_the_set() -> None:
    """Threshold 3 of 4: two draws every prompt gets; +--... is settled by its third draw, the fourth is not read."""
    rules = Rules(threshold=3, presamples=4)
    one = difficulty(row("+--+"), rules)
    assert (one.draws, one.judged, one.successes, one.reward) == (3, 3, 1, 0.5)
    assert (one.low, one.high) == pytest.approx(posterior(1, 2), abs=1e-6)
    full = difficulty(row("+-v+"), Rules(threshold=3, presamples=4, full_counts=True))
    assert (full.draws, full.judged, full.successes) == (4, 3, 2) and full.reward == pytest.approx(2 / 3)
    none = difficulty(row("vvvv"), rules)
    assert none.reward is None and not in_band(none, [0, 1])
    assert in_band(full, [0.5, 0.7]) and not in_band(full, [0.7, 1])
    assert mean_reward({"a": one, "b": full, "c": none}, "abc") == pytest.approx((0.5 + 2 / 3) / 2)
    assert mean_reward({"c": none}, "c") is None
