"""The processes that train together, as one of them sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Processes:
    """Rank and number of the processes, and exchanges that all of them must call; by default a single one on a CPU."""

    rank: int = 0
    count: int = 1
    device: torch.device = CPU
    gather: Callable[[Tensor], Tensor] = lambda rows: rows
    """Rows of this process -> rows of all processes in the order of their ranks."""
    gather_objects: Callable[[list[Any]], list[Any]] = lambda records: records
    """The same for a list of records."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def own_rows(self, gathered: Tensor, count: int) -> Tensor:
        """Of rows gathered from all processes, the `count` ones of this process."""
        return gathered[self.rank * count : (self.rank + 1) * count]
