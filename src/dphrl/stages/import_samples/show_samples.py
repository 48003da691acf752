"""`dphrl import --show`: samples as they were read, before anything is made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from dphrl.progress import silent
from dphrl.stages.import_samples.sample_files import PlacedSample, Reading, Source, read_source

SHOWN = 3
"""Samples of each file."""
CHARACTERS = 300
"""Of a text, half of them from its end, where the answer is."""


def shown_samples(sources: Sequence[Source], reading: Reading) -> Iterator[str]:
    """Lines that show the first samples of each file. Raises DataError as `read_source`."""
    for source in sources:
        for placed in islice(read_source(source, reading, silent), SHOWN):
            yield from _lines(placed)


def _lines(placed: PlacedSample) -> Iterator[str]:
    sample = placed.sample
    verdict = {True: "right", False: "wrong", None: "not judged"}[sample.right]
    yield f"{placed.where}, read as {placed.shape}"
    told = {
        "model": placed.model.name,
        "task": placed.task,
        "prompt_id": sample.prompt_id,
        "verdict": f"{verdict} (reward {sample.reward})",
        "finish_reason": sample.finish,
        "step": sample.step,
        "greedy": sample.greedy or None,
        "prompt": _cut(sample.prompt),
        "gold": _cut(sample.gold),
        "completion": _cut(sample.text),
    }
    yield from (f"  {name}: {value}" for name, value in told.items() if value not in (None, ""))


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else f"{text[: CHARACTERS // 2]} ... {text[-CHARACTERS // 2 :]}"
