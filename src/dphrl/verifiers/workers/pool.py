"""Persistent worker processes that judge items which may be hostile.

A worker that dies, or is killed at its deadline, is replaced, and only the item it was at is blamed. What items that
take long may cost the rest of their batch is bounded (`slow_items`).
"""

from __future__ import annotations

import atexit
import json
import os
import select
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from dphrl.errors import VerifierError
from dphrl.verifiers.workers.job import Reply, Settings
from dphrl.verifiers.workers.process import Forked, Process, WorkerDied
from dphrl.verifiers.workers.slow_items import LEAST, SMALL, Spent, TooSlow, deadline_of_slow, key_of, worth_trying
from dphrl.verifiers.workers.template import Template

CHUNK = 64
"""Most items in one message."""
LEAST_CHUNK = 8
"""Fewer items than this are not worth another process."""
SHARES = 4
"""Chunks that a batch is cut into for each worker: while one is at a slow chunk, the others take the rest."""
TRIES = 3
"""Workers that must die at an item for no known reason (memory, killed from outside) before the item is blamed."""
MAX_WORKERS = 8
ORPHAN_FACTOR = 2.0
"""The kernel's own deadline, for a worker whose parent died while it was busy, as a multiple of the parent's."""
SHARED_BYTES = 8 << 20
"""Characters of shared values a worker may hold before it is told to forget them all; in memory they take ten times
as much."""
_SHARE = "its share of what slow items of a batch may take"
GROWN_BYTES = 256 << 20
"""Memory a worker may grow by before it is replaced, between two chunks."""
CHUNK_BYTES = 4 << 20
"""Characters of shared values that the items of a chunk may need between them, if it has more than one."""


class Pool:
    """Processes for one job, started when first needed and kept until exit; several threads may call it.

    A batch is cut into chunks that idle workers take. Each worker answers item by item, so that when one dies or is
    killed at its deadline, only the item it was at is blamed, and the rest of its chunk goes to the others.
    """

    def __init__(self, job: str) -> None:
        self.job = job
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._workers: list[Process] = []
        self._template: Template | None = None
        self._too_slow = TooSlow()
        self.spent = Spent()
        """CPU time of all its workers so far."""
        atexit.register(self.close)

    @property
    def pids(self) -> list[int]:
        """Process ids of the running workers."""
        return [worker.pid for worker in self._workers]

    def run(
        self,
        items: Sequence[Any],
        settings: Settings,
        *,
        cpu_s: float,
        workers: int | None = None,
        needs: Sequence[str] = (),
        shared: Mapping[str, Sequence[str]] | None = None,
        adapt: bool = True,
        grown_bytes: int = GROWN_BYTES,
    ) -> list[Reply]:
        """Judge items.

        An item that needs more than its time is a `timeout`, and is not tried again with no more time than it had.

        Args:
            items: what the job's `judge` takes; plain JSON values.
            settings: the same for all items; plain JSON values.
            cpu_s: CPU seconds one item may take before its worker is killed, > 0.
            workers: most processes at work; None = `default_workers()`.
            needs: for each item the key in `shared` of the value it needs, which is sent once to each worker that gets
                such an item. Empty = no item needs one. Items that need the same value should stand together.
            shared: key -> texts for the job's `remember`.
            adapt: in a batch of more than `SMALL` items, those that take long share a bounded part of its time, as
                `deadline_of_slow` says; False = each has its whole deadline.
            grown_bytes: what a worker's memory may grow by before it is replaced, >= 0.
        Returns:
            One (status, detail) per item, in order.
        Raises:
            VerifierError: a worker cannot start.
        """
        if not items:
            return []
        with self._lock:
            batch = _Batch(items, settings, cpu_s, needs, shared or {})
            most = min(workers or default_workers(), -(-len(items) // LEAST_CHUNK))
            before = self.spent
            batch.begin(self._too_slow, adapt=adapt)
            try:
                self._work(batch, most, grown_bytes)
                batch.try_slow_ones(self._too_slow, (self.spent - before).finished_s)
                self._work(batch, most, grown_bytes)
            except BaseException:  # Ctrl-C too: replies still under way would answer the next call
                self._stop()
                raise
            batch.keep(self._too_slow)
            return batch.replies

    def _work(self, batch: _Batch, most: int, grown_bytes: int) -> None:
        """Do what is to do."""
        while batch.left:
            self._hand_out(batch, most, grown_bytes)
            self._collect(batch)

    def close(self) -> None:
        """Stop the workers; the next `run` starts others. A forked copy, which does not own them, leaves them be."""
        if self._owner == os.getpid():
            self._stop()

    def _new(self) -> Process:
        if self._template is None or self._template.gone:
            if self._template is not None:
                self._template.stop()
            self._template = Template(self.job)
        return Forked(self.job, self._template)

    def _stop(self) -> None:
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.stop()
        if self._template is not None:
            self._template.stop()
            self._template = None

    def _hand_out(self, batch: _Batch, most: int, grown_bytes: int) -> None:
        """Give every idle worker a chunk; start more while there is work that none has taken."""
        size = min(CHUNK, max(1 if batch.one_by_one else LEAST_CHUNK, -(-len(batch.replies) // (SHARES * most))))
        for worker in [worker for worker in self._workers if worker.idle and worker.grown_bytes() > grown_bytes]:
            self._workers.remove(worker)
            worker.stop()
        for worker in self._workers[:most]:
            if batch.todo and worker.idle:
                self._try(batch, worker, batch.take(size))
        while batch.todo and len(self._workers) < most:
            try:
                self._workers.append(self._new())
            except WorkerDied as death:
                self._bad_start(batch, death, self._template.command if self._template else [])

    def _try(self, batch: _Batch, worker: Process, chunk: list[int]) -> None:
        try:
            worker.send(chunk, batch.request(chunk, worker), batch.cpu_s, batch.whole_s)
        except WorkerDied as death:
            self._bury(batch, worker, death)

    def _collect(self, batch: _Batch) -> None:
        """Wait until a worker rings or for the next deadline, and take what came."""
        busy = {worker.fileno(): worker for worker in self._workers if not worker.idle}
        poll = select.poll()
        for file in busy:
            poll.register(file, select.POLLIN)
        rung = {file for file, _ in poll.poll(1000 * min(worker.patience() for worker in busy.values()))}
        for file, worker in busy.items():
            before = worker.spent
            try:
                for index, (status, detail) in worker.receive():
                    batch.judged(index, (status, detail))
                if file not in rung:
                    worker.check_deadline()
            except WorkerDied as death:
                self._bury(batch, worker, death)
            self.spent += worker.spent - before

    def _bury(self, batch: _Batch, worker: Process, death: WorkerDied) -> None:
        self._workers.remove(worker)
        worker.stop()
        if not worker.was_ready:
            self._bad_start(batch, death, worker.command)
        batch.requeue(worker.chunk, death)

    def _bad_start(self, batch: _Batch, death: WorkerDied, command: Sequence[str]) -> None:
        batch.bad_starts += 1
        if batch.bad_starts == TRIES:  # one may have been killed from outside
            raise VerifierError(
                f"a worker for {self.job} did not start ({death.detail}); its own message stands above; "
                f"`{' '.join(command)}` should say ready and wait for input"
            ) from death


class _Batch:
    """The items of one `run`: which are to do, which are settled, how often a worker died at one, or starting."""

    def __init__(
        self,
        items: Sequence[Any],
        settings: Settings,
        cpu_s: float,
        needs: Sequence[str],
        shared: Mapping[str, Sequence[str]],
    ) -> None:
        self.items, self.settings, self.cpu_s, self.needs, self.shared = items, settings, cpu_s, needs, shared
        self.replies: list[Reply] = [("verifier_error", "not judged")] * len(items)
        self.todo = deque(range(len(items)))
        self.left = len(items)
        self.bad_starts = 0
        self.last_try = True
        """Whether an item that does not keep `cpu_s` is a timeout; else it is put off."""
        self.one_by_one = False
        """Whether items are handed out one at a time: they are slow, and may stand beside idle workers."""
        self.whole_s = cpu_s
        self._slow: list[int] = []
        self._exceeded: dict[int, float] = {}
        self._deaths: Counter[int] = Counter()

    def begin(self, too_slow: TooSlow, *, adapt: bool) -> None:
        """Settle what is known to need more than the deadline; put off what is known to be slow."""
        if len(too_slow):
            known = ((index, too_slow.exceeded(self.key(index))) for index in self.todo)
            self._exceeded = {index: seconds for index, seconds in known if seconds}
        small = not adapt or len(self.items) <= SMALL
        for index in [index for index, seconds in self._exceeded.items() if small or seconds >= self.whole_s]:
            if self._exceeded[index] >= self.whole_s:
                self.todo.remove(index)
                self._give_up(index, self._exceeded[index], "as before")
        if not small:
            self.cpu_s, self.last_try = LEAST * self.whole_s, False
            for index in [index for index, seconds in self._exceeded.items() if seconds < self.whole_s]:
                self.todo.remove(index)
                self._put_off(index)

    def try_slow_ones(self, too_slow: TooSlow, finished_s: float) -> None:
        """Take up again what was put off, with the deadline that the rest of the batch leaves it."""
        slow, self._slow = self._slow, []
        self.last_try = self.one_by_one = True
        if slow:
            self.cpu_s = deadline_of_slow(len(slow), self.whole_s, finished_s)
        self.left = len(slow)
        for index in sorted(slow):
            exceeded = self._exceeded[index]
            if worth_trying(self.cpu_s, self.whole_s, exceeded):
                self.todo.append(index)
            else:
                self._give_up(index, exceeded, _SHARE)

    def keep(self, too_slow: TooSlow) -> None:
        """Remember which items took too long."""
        for index, seconds in self._exceeded.items():
            too_slow.put(self.key(index), seconds)

    def key(self, index: int) -> bytes:
        return key_of(self.items[index], self.settings)

    def _put_off(self, index: int) -> None:
        self._slow.append(index)
        self.left -= 1

    def _give_up(self, index: int, seconds: float, how: str) -> None:
        self.settle(index, ("timeout", f"more than {seconds:.3g} s of CPU time, {how}"))

    def take(self, size: int) -> list[int]:
        """The next items: at most `size`, and no more than need CHUNK_BYTES of shared text; at least one."""
        chunk: list[int] = []
        needed: dict[str, int] = {}
        while self.todo and len(chunk) < size:
            if self.needs and (key := self.needs[self.todo[0]]) not in needed:
                needed[key] = self._weight(key)
                if chunk and sum(needed.values()) > CHUNK_BYTES:
                    break
            chunk.append(self.todo.popleft())
        return chunk

    def settle(self, index: int, reply: Reply) -> None:
        self.replies[index] = reply
        self.left -= 1

    def judged(self, index: int, reply: Reply) -> None:
        """A worker's own reply; where it gave the item up, the job's own deadline is over."""
        if reply[0] == "timeout":
            self._exceeded[index] = self.whole_s
        else:
            self._exceeded.pop(index, None)
        self.settle(index, reply)

    def request(self, chunk: Sequence[int], worker: Process) -> bytes:
        """The message for a chunk, with the shared values the worker has not been sent yet."""
        forget = worker.held_bytes > SHARED_BYTES
        if forget:
            worker.held.clear()
        new = {self.needs[index] for index in chunk} - worker.held.keys() if self.needs else set()
        worker.held.update({key: self._weight(key) for key in new})
        message = {
            "items": [self.items[index] for index in chunk],
            "settings": self.settings,
            "orphan_s": ORPHAN_FACTOR * self.cpu_s,
            "shared": {key: self.shared[key] for key in new},
            "forget": forget,
        }
        return json.dumps(message).encode() + b"\n"

    def _weight(self, key: str) -> int:
        return sum(map(len, self.shared[key]))

    def requeue(self, chunk: Sequence[int], death: WorkerDied) -> None:
        """Put what a dead worker left unanswered back in front; only the first item, where it died, can be blamed."""
        rest = list(chunk)
        if rest and death.status == "timeout":
            culprit, *rest = rest
            self._exceeded[culprit] = self.cpu_s
            if self.last_try:
                share = "" if self.cpu_s == self.whole_s else f", {_SHARE}"
                self.settle(culprit, ("timeout", f"{death.detail}{share}"))
            else:
                self._put_off(culprit)
        elif rest:
            culprit = rest[0]
            self._deaths[culprit] += 1
            if death.status is not None or self._deaths[culprit] == TRIES:
                self.settle(culprit, (death.status or "memory", death.detail))
                rest = rest[1:]
        self.todo.extendleft(reversed(rest))


def default_workers() -> int:
    """Processes a pool may use here: the cores this process may run on, shared among the ranks of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_WORKERS, cores // max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))))


_POOLS: dict[tuple[int, str], Pool] = {}


def spent_so_far() -> Spent:
    """CPU time of the workers of all pools of this process."""
    return sum((pool.spent for (owner, _), pool in list(_POOLS.items()) if owner == os.getpid()), Spent())


def pool_of(job: str) -> Pool:
    """The pool of this process for a job (the name of a module that holds a `JOB`); a forked copy gets its own."""
    key = (os.getpid(), job)
    return _POOLS.get(key) or _POOLS.setdefault(key, Pool(job))
