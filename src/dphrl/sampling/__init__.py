"""Drawing completions: one protocol, one module a backend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from dphrl.types import Completion


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to draw; `draw` = GREEDY_DRAW asks for the most likely tokens instead."""

    prompt_id: str
    draw: int
    prompt_ids: tuple[int, ...]


class Sampler(Protocol):
    """Draws completions in batches, each yielded when it is ready, in an order of the sampler's choice."""

    def draw(self, requests: Sequence[Request]) -> Iterator[list[Completion]]: ...
