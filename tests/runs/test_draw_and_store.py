"""Drawing: samplers that double or lose draws, interrupts, and what is stored already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dphrl.errors import SamplerError
from dphrl.progress import silent
from dphrl.runs import draw_and_store as drawing
from dphrl.runs import samples
from dphrl.runs.draw_and_store import draw_and_store, draw_missing
from dphrl.runs.samples import SampleFiles
from dphrl.sampling.base import Request
from dphrl.sampling.judge import Judge
from dphrl.types import Completion, Prompt, Task
from dphrl.verifiers.verifier import verdict

TASK = Task(
    "t", tuple(Prompt(f"p{i}", "", {}) for i in range(4)), lambda items: [verdict("correct") for _ in items], str
)


def completion(i: int, draw: int = 0, text: str = "") -> Completion:
    return Completion(f"p{i}", draw, (1, 2), text, "stop")


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
    draw_and_store(requests(*keys), sampler, Judge(TASK), shards, lambda batch: None)
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
    shards, task = SampleFiles(tmp_path), TASK
    first, _ = draw_missing(requests((0, 0)), Given([completion(0)]), task, shards, silent, "")
    both, speed = draw_missing(requests((0, 0), (1, 0)), Given([completion(1)]), task, shards, silent, "")
    assert both[0] == first[0] and {c.prompt_id for c in both} == {"p0", "p1"} and speed.tokens == 2
    shards.paths()[0].unlink()
    assert shards.next().name == "completions-00002.parquet"
    light = shards.read(without=samples.HEAVY)[0]
    assert (light.token_ids, light.text, light.verdict) == ((), "", both[1].verdict)
    assert list(shards.take([("p1", 0), ("p9", 0)])) == shards.read()
