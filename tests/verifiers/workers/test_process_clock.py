"""Whose CPU time a deadline counts, on a machine that keeps the parent waiting."""

from __future__ import annotations

import math

import pytest

from dphrl.verifiers.workers.process import Process, WorkerDied


class Silent(Process):
    """A worker that has not rung, with a clock of ours."""

    now = 0.0

    def __init__(self) -> None:
        self.was_ready, self._partial, self._gave_up = True, [], False
        self._cpu_s, self._cpu_mark, self._silent_s, self._wall_end = 1.0, 0.0, 0.0, math.inf

    def _cpu_clock(self) -> float:
        return self.now

    def _rung(self) -> bytes | None:
        return None

    def _read(self) -> bytes:
        return b""

    def _has_ended(self) -> bool:
        return False

    def _count_time(self) -> None:
        pass


def test_what_a_worker_does_while_its_parent_waits_is_not_the_time_of_one_item() -> None:
    worker = Silent()
    assert worker.receive() == []
    worker.now = 5.0  # the parent was kept waiting before it could ask; the worker may have rung
    worker.check_deadline()
    worker.receive()
    with pytest.raises(WorkerDied, match="more than 1 s of CPU time"):
        worker.check_deadline()
