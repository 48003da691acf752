"""Drawing completions: what is asked for, and the protocol of what draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from dphrl.types import Completion


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to draw; `draw` = GREEDY_DRAW asks for the most likely tokens instead."""

    prompt_id: str
    draw: int
    prompt_ids: tuple[int, ...]


@runtime_checkable
class Sampler(Protocol):
    """Draws completions; temperature, top_p, the limit, the stop tokens and the seed are those it was made with."""

    def draw(self, requests: Sequence[Request]) -> Iterator[list[Completion]]:
        """Every request's completion exactly once, in batches as they are ready, in an order of the sampler's choice.

        Raises:
            SamplerError: the backend failed for good; what was drawn before has been yielded.
        """
        ...

    def close(self) -> None:
        """Give back what the backend holds (an engine's memory); no draw may follow."""
        ...
