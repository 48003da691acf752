"""What gold queries returned: in memory, and in a file if the user names one, so that the next run need not ask."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dphrl.errors import VerifierError
from dphrl.types import NO_REWARD, Status
from dphrl.verifiers.sql.sql_text import asks_the_moment

MEMORY_BYTES = 256 << 20
"""Characters of results that are kept in memory; the least recently used go first."""
BUSY_S = 30.0
"""Seconds to wait for another process that writes the file."""
_FORMAT = 3
"""Part of every key: results written by a version of this module that ran or encoded golds otherwise are not met."""


@dataclass(frozen=True, slots=True)
class GoldQuery:
    """Everything a gold result depends on."""

    db: str
    version: str
    """Of the database file, so that a result is never taken for that of a changed database."""
    mode: str
    sql: str
    keep_distinct: bool
    ties: str
    """Which rows may change places (`QuerySettings.ties_in`)."""
    max_rows: int
    max_bytes: int
    deadline_s: float

    @property
    def lasting(self) -> bool:
        """Whether a later run would give the same while the database stays as it is."""
        return not asks_the_moment(self.sql)

    def key(self) -> str:
        """Text that names its result in a file; a result, unlike a failure, does not depend on the deadline."""
        query = (self.db, self.version, self.mode, self.sql)
        rules = (self.keep_distinct, self.ties, self.max_rows, self.max_bytes)
        return json.dumps([_FORMAT, sqlite3.sqlite_version, *query, *rules])


@dataclass(frozen=True, slots=True)
class GoldReply:
    """What the worker said of a gold query."""

    name: str
    """Short and unique in this process."""
    status: Status
    text: str
    """The result (`result_json.encode`) where the status is `correct`, else why there is none."""


_names = itertools.count()  # of the process, not of a cache: the workers know results by them


class GoldCache:
    """Replies by gold query; safe to use from several threads, and to be forked."""

    def __init__(self) -> None:
        self._replies: OrderedDict[GoldQuery, GoldReply] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):  # a fork must not copy a lock that another thread holds
            os.register_at_fork(
                before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._lock.release
            )

    def get(self, golds: Sequence[GoldQuery]) -> dict[GoldQuery, GoldReply]:
        """Those of the gold queries that are known."""
        with self._lock:
            known = {gold: reply for gold in golds if (reply := self._replies.get(gold)) is not None}
            for gold in known:
                self._replies.move_to_end(gold)
        return known

    def put(self, replies: Mapping[GoldQuery, tuple[Status, str]]) -> dict[GoldQuery, GoldReply]:
        """Remember replies, and return them under their names.

        What may be otherwise next time is not remembered: queries that ask for the time or for chance, and faults of
        the database (locked, missing) or of the machine.
        """
        with self._lock:
            new = {gold: GoldReply(str(next(_names)), *reply) for gold, reply in replies.items()}
            for gold, reply in new.items():
                self._drop(gold)
                if gold.lasting and reply.status not in NO_REWARD:
                    self._replies[gold] = reply
                    self._size += len(reply.text)
            while self._size > MEMORY_BYTES and len(self._replies) > 1:
                self._drop(next(iter(self._replies)))
        return new

    def _drop(self, gold: GoldQuery) -> None:
        old = self._replies.pop(gold, None)
        self._size -= len(old.text) if old else 0


def read_file(path: Path, golds: Sequence[GoldQuery]) -> dict[GoldQuery, str]:
    """Results of those gold queries that a cache file holds; none when there is no file yet.

    Raises:
        VerifierError: the file is no gold cache, or cannot be read.
    """
    if not path.exists():
        return {}
    results = {}
    with _opened(path) as connection:
        for gold in golds:
            row = connection.execute("SELECT result FROM golds WHERE key = ?", (gold.key(),)).fetchone()
            if row is not None:
                results[gold] = row[0]
    return results


def write_file(path: Path, results: Mapping[GoldQuery, str]) -> None:
    """Add results to a cache file, all or none of them; several processes may do so at once.

    Raises:
        VerifierError: the file is no gold cache, or cannot be written.
    """
    with _opened(path) as connection:
        connection.executemany(
            "INSERT OR REPLACE INTO golds VALUES (?, ?)", [(gold.key(), text) for gold, text in results.items()]
        )
        connection.commit()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_S)) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS golds (key TEXT PRIMARY KEY, result TEXT NOT NULL)")
            yield connection
    except (sqlite3.Error, ValueError) as error:  # ValueError: a null character in the path
        raise VerifierError(
            f"gold_cache={str(path)!r} cannot be used ({error}); name a file in a folder that exists and may be "
            "written, and delete it if it is no gold cache"
        ) from None
