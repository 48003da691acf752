"""The processes that train together, as one of them sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Processes:
    """Rank and number of the processes, and how they exchange; every process must call an exchange."""

    rank: int
    count: int
    device: torch.device
    gather: Callable[[Tensor], Tensor]
    """Rows of this process -> rows of all processes in the order of their ranks."""
    gather_objects: Callable[[list[Any]], list[Any]]
    """The same for a list of records."""

    @classmethod
    def alone(cls, device: str = "cpu") -> Processes:
        """A single process."""
        return cls(0, 1, torch.device(device), lambda rows: rows, lambda records: records)

    @property
    def is_main(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def own_rows(self, gathered: Tensor, count: int) -> Tensor:
        """Of rows gathered from all processes, the `count` ones of this process."""
        return gathered[self.rank * count : (self.rank + 1) * count]
