"""Databases on disk: any path, broken ones, changes that must be noticed, logs beside them; the gold cache."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dphrl.errors import VerifierError
from dphrl.types import Verdict
from dphrl.verifiers.sql import verify_sql as sql_module
from dphrl.verifiers.sql.database_file import database_version
from dphrl.verifiers.sql.gold_cache import GoldCache
from dphrl.verifiers.sql.run_query import QueryFailed, _check_file
from dphrl.verifiers.sql.verify_sql import GOLD_WORKER, QUERY_WORKER, verify_sql
from dphrl.verifiers.workers.pool import Pool, pool_of


def make(path: Path, value: int, mode: str = "DELETE") -> Path:
    """A database with one table of one row."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"PRAGMA journal_mode={mode}; CREATE TABLE t(a); INSERT INTO t VALUES ({value});")
    return path


def judge(db: Path | str, value: int, gold: str = "SELECT a FROM t", **args: Any) -> Verdict:
    """The verdict on a completion that says what the gold query returns."""
    return verify_sql([{"gold": gold, "db": str(db), "completion": f"SELECT {value}"}], **args)[0]


def with_errors(verdict: Verdict, db: Path | str) -> str:
    """The detail of a gold error, which must name the database."""
    assert (verdict.status, verdict.reward) == ("gold_error", None)
    assert str(db) in verdict.detail
    return verdict.detail


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        'it\'s "quoted" `here`',
        "100%20?mode=rwc&cache=shared#frag",
        "file:x",
        " spaces  and\ttab",
        "new\nline",
        "ünïcödé 数据库 \u202e",
        "back\\slash;semicolon",
        "-dash",
        os.fsdecode(b"not \xff utf-8"),
    ],
)
def test_a_path_may_hold_any_character(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    db = make(folder / f"{name}.sqlite", 3)
    assert judge(db, 3).correct and judge(name, 3, db_dir=str(tmp_path)).correct
    assert [path.name for path in folder.iterdir()] == [db.name]


def test_databases_by_name_need_their_folder(tmp_path: Path) -> None:
    with pytest.raises(VerifierError, match="db_dir"):
        judge("shop", 1)
    with_errors(judge("shop", 1, db_dir=str(tmp_path)), "shop.sqlite")


def truncated(path: Path) -> None:
    make(path, 1)
    with path.open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) // 2)


def overwritten(path: Path) -> None:
    make(path, 1)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


BROKEN: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "truncated": truncated,
    "overwritten": overwritten,
    "a text": lambda path: path.write_text("id,name\n1,x\n" * 200),
    "a folder": lambda path: path.mkdir(),
    "a named pipe": lambda path: os.mkfifo(path),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_missing_or_broken_database_is_the_datas_fault_and_is_named(tmp_path: Path, name: str) -> None:
    """Before and after an honest one; it is neither made nor mended, and repaired it is judged."""
    good, bad = make(tmp_path / "good.sqlite", 1), tmp_path / "bad.sqlite"
    BROKEN[name](bad)
    before = sorted(path.name for path in tmp_path.iterdir())
    items = [{"gold": "SELECT a FROM t", "db": str(db), "completion": "SELECT 1"} for db in (good, bad, good)]
    verdicts = verify_sql(items)
    assert [verdict.status for verdict in verdicts] == ["correct", "gold_error", "correct"]
    with_errors(verdicts[1], bad if name != "a link to nothing" else "nowhere")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    if name != "a folder":
        bad.unlink(missing_ok=True)
        make(bad, 2)
        assert judge(bad, 2).correct


def test_a_page_that_only_the_completion_reads_is_no_fault_of_the_completion(tmp_path: Path) -> None:
    db = make(tmp_path / "half.sqlite", 1)
    overwritten(tmp_path / "other.sqlite")
    db.write_bytes((tmp_path / "other.sqlite").read_bytes())
    [verdict] = verify_sql([{"gold": "SELECT 1", "db": str(db), "completion": "SELECT a FROM t"}])
    assert "malformed" in with_errors(verdict, db)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_database_that_may_not_be_read(tmp_path: Path) -> None:
    db = make(tmp_path / "secret.sqlite", 1)
    db.chmod(0)
    assert "Permission" in with_errors(judge(db, 1), db)


def test_no_permission_is_the_datas_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the worker does then, where a test may be run by root."""
    db = make(tmp_path / "secret.sqlite", 1)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(QueryFailed, match=f"{db} cannot be read: Permission denied") as failure:
        _check_file(db)
    assert failure.value.status == "gold_error"


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    for name in ("a\0b.sqlite", "\ud800.sqlite"):
        verdict = verify_sql([{"gold": "SELECT 1", "db": str(tmp_path / name), "completion": "SELECT 1"}])[0]
        assert (verdict.status, verdict.reward) == ("gold_error", None)


def in_place(db: Path) -> None:
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("UPDATE t SET a = 2")
        connection.commit()


def byte_by_byte(db: Path) -> None:
    """As rsync --inplace --times would: same file, same size, same time of change."""
    stat = db.stat()
    data = make(db.with_name("new.sqlite"), 2).read_bytes()
    with db.open("r+b") as file:
        file.write(data)
    os.utime(db, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def renamed_over(db: Path) -> None:
    make(db.with_name("new.sqlite"), 2).replace(db)


def made_again(db: Path) -> None:
    db.unlink()
    make(db, 2)


def linked_elsewhere(db: Path) -> None:
    link = make(db.with_name("new.sqlite"), 2)
    db.unlink()
    db.symlink_to(link)


@pytest.mark.parametrize("change", [in_place, byte_by_byte, renamed_over, made_again, linked_elsewhere])
def test_a_change_on_disk_is_noticed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Between two calls, by the very processes that have the old one open."""
    db = make(tmp_path / "x.sqlite", 1)
    for _ in range(2):
        assert [judge(db, 1, mode=mode).status for mode in ("spider", "bird")] == ["correct"] * 2
    pids = pool_of(QUERY_WORKER).pids, pool_of(GOLD_WORKER).pids
    change(db)
    assert [judge(db, value).status for value in (1, 2)] == ["wrong", "correct"]
    reads = {"gold": "SELECT 2", "db": str(db), "completion": "SELECT a FROM t"}
    assert verify_sql([reads])[0].correct  # the completion's query sees the change, too
    assert (pool_of(QUERY_WORKER).pids, pool_of(GOLD_WORKER).pids) == pids


def test_a_change_in_mid_batch_does_not_mix_old_and_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gold result is of the old version, the completion's of the new one: judged again."""
    db = make(tmp_path / "x.sqlite", 1)
    gold_replies = sql_module._gold_replies
    calls = []

    def changing(*args: Any) -> Any:
        replies = gold_replies(*args)
        if not calls:
            in_place(db)
        calls.append(1)
        return replies

    monkeypatch.setattr(sql_module, "_gold_replies", changing)
    item = {"gold": "SELECT a FROM t", "db": str(db), "completion": "SELECT a FROM t"}
    assert verify_sql([item, item | {"completion": "SELECT 1"}])[0].correct
    assert len(calls) == 2


def test_a_database_that_never_rests_is_no_fault_of_the_completion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet, busy = make(tmp_path / "quiet.sqlite", 1), make(tmp_path / "busy.sqlite", 1)
    versions = iter(range(100))
    monkeypatch.setattr(
        sql_module, "database_version", lambda db: f"{next(versions)}" if db == str(busy) else database_version(db)
    )
    items = [{"gold": "SELECT a FROM t", "db": str(db), "completion": "SELECT 1"} for db in (quiet, busy)]
    verdicts = verify_sql(items)
    assert [verdict.status for verdict in verdicts] == ["correct", "gold_error"]
    assert "kept changing" in with_errors(verdicts[1], busy)


def test_wal_without_a_log_is_read_and_nothing_is_made_beside_it(tmp_path: Path) -> None:
    db = make(tmp_path / "wal.sqlite", 1, "WAL")
    assert db.read_bytes()[18:20] == b"\x02\x02"
    assert judge(db, 1).correct
    assert list(tmp_path.iterdir()) == [db]


@pytest.mark.parametrize("link", [False, True])
def test_wal_with_changes_in_its_log_is_refused_and_then_read(tmp_path: Path, link: bool) -> None:
    """Without the log its rows would be old; through a link, too, which the log does not lie beside."""
    real = make(tmp_path / "wal.sqlite", 1, "WAL")
    db = real
    if link:
        (tmp_path / "links").mkdir()
        db = tmp_path / "links" / "link.sqlite"
        db.symlink_to(real)
    with closing(sqlite3.connect(real)) as writer:
        writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute("UPDATE t SET a = 2")
        writer.commit()
        before = {path.name: path.read_bytes() for path in tmp_path.glob("wal*")}
        assert "journal_mode=DELETE" in with_errors(judge(db, 2), real)
        assert {path.name: path.read_bytes() for path in tmp_path.glob("wal*")} == before
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert judge(db, 2).correct  # the log is there, and empty
    assert judge(db, 2).correct


def test_a_journal_of_a_change_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    db = make(tmp_path / "x.sqlite", 1)
    journal = tmp_path / "x.sqlite-journal"
    with closing(sqlite3.connect(db)) as writer:
        writer.execute("UPDATE t SET a = 2")
        assert journal.exists()
        assert judge(db, 1).correct  # nothing is written yet, not even the journal's head
    journal.write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"\0" * 504)
    db.touch()
    with_errors(judge(db, 1), db)
    journal.write_bytes(b"\0" * 512)  # as PRAGMA journal_mode=PERSIST leaves it
    assert judge(db, 1).correct


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs that were given something to do; the memory of gold results is empty at first."""
    monkeypatch.setattr(sql_module, "_cache", GoldCache())
    record: list[str] = []
    run = Pool.run

    def recording(pool: Pool, items: Any, *args: Any, **others: Any) -> Any:
        record.extend([pool.job] if items else [])
        return run(pool, items, *args, **others)

    monkeypatch.setattr(Pool, "run", recording)
    return record


def test_gold_results_are_kept_in_a_file(tmp_path: Path, jobs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process asks the file: values of all types, no gold query run. Then the database changes."""
    db, file = make(tmp_path / "x.sqlite", 1), str(tmp_path / "golds '%20.cache")
    gold = "SELECT a, NULL, 'é', x'00ff', 9e999, 1.5 FROM t"
    item = {"gold": gold, "db": str(db), "completion": gold.replace("FROM t", "FROM t WHERE 1")}
    for expected in ([GOLD_WORKER, QUERY_WORKER], [QUERY_WORKER], [QUERY_WORKER]):
        jobs.clear()
        assert verify_sql([item], gold_cache=file)[0].correct
        assert jobs == expected
        monkeypatch.setattr(sql_module, "_cache", GoldCache())
    in_place(db)
    jobs.clear()
    assert verify_sql([item], gold_cache=file)[0].correct
    assert jobs == [GOLD_WORKER, QUERY_WORKER]
    assert Path(file).read_bytes().startswith(b"SQLite format 3\0")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["x.sqlite", Path(file).name])


def test_what_may_change_or_failed_is_not_kept_in_a_file(
    tmp_path: Path, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    db, file = make(tmp_path / "x.sqlite", 1), str(tmp_path / "golds.cache")
    for gold, status in (("SELECT date('now') > ''", "correct"), ("SELECT zz FROM t", "gold_error")):
        for _ in range(2):
            jobs.clear()
            assert judge(db, 1, gold, gold_cache=file).status == status
            assert jobs[0] == GOLD_WORKER
            monkeypatch.setattr(sql_module, "_cache", GoldCache())


def test_several_may_write_the_cache_at_once(tmp_path: Path, jobs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    db, file = make(tmp_path / "x.sqlite", 1), str(tmp_path / "golds.cache")
    with ThreadPoolExecutor(8) as threads:
        verdicts = threads.map(lambda i: judge(db, i + 1, f"SELECT a + {i} FROM t", gold_cache=file), range(24))
        assert {verdict.status for verdict in verdicts} == {"correct"}
    monkeypatch.setattr(sql_module, "_cache", GoldCache())
    jobs.clear()
    assert all(judge(db, i + 1, f"SELECT a + {i} FROM t", gold_cache=file).correct for i in range(24))
    assert GOLD_WORKER not in jobs


@pytest.mark.parametrize("what", ["no database", "another table", "no folder", "a folder"])
def test_a_file_that_is_no_cache_is_named(tmp_path: Path, jobs: list[str], what: str) -> None:
    db, file = make(tmp_path / "x.sqlite", 1), tmp_path / "golds.cache"
    if what == "no database":
        file.write_text("my thesis " * 100)
    elif what == "another table":
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE golds(name, medals)")
    elif what == "a folder":
        file.mkdir()
    else:
        file = tmp_path / "nowhere" / "golds.cache"
    before = file.read_bytes() if file.is_file() else b""
    with pytest.raises(VerifierError, match="gold_cache="):
        judge(db, 1, gold_cache=str(file))
    assert not file.is_file() or file.read_bytes() == before


def test_memory_for_gold_results_is_bounded(tmp_path: Path, jobs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used go first; the verdicts stay."""
    monkeypatch.setattr("dphrl.verifiers.sql.gold_cache.MEMORY_BYTES", 1_000)
    db = make(tmp_path / "x.sqlite", 1)
    golds = [f"SELECT '{str(i) * 400}' FROM t" for i in range(4)]
    items = [{"gold": gold, "db": str(db), "completion": gold} for gold in golds]
    assert [verdict.status for verdict in verify_sql(items)] == ["correct"] * 4
    jobs.clear()
    assert verify_sql(items[3:])[0].correct and verify_sql(items[:1])[0].correct
    assert jobs == [QUERY_WORKER, GOLD_WORKER, QUERY_WORKER]


TIGHT = """
import sys
from dphrl.verifiers.sql import run_query as sql_exec
from dphrl.verifiers.sql.query_settings import QuerySettings
sql_exec.MEMORY_BYTES, sql_exec.CACHE_BYTES = 2 * 48_000_000, 40_000_000  # the heap's limit is half of the memory's
settings = QuerySettings(
    keep_distinct=True, ordered="auto", ties="any", exact=False, empty="same_tables", deadline_s=5.0,
    gold_deadline_s=5.0, max_rows=10, max_bytes=1000
)
def run(db, sql):
    return sql_exec.run_query((db, "1"), sql, settings, mode="bird", deadline_s=60.0).rows
large, small = sys.argv[1:]
numbers = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 30) "
much = numbers + "SELECT count(*) FROM (SELECT hex(zeroblob(490000)) || n FROM r GROUP BY 1)"
for _ in range(2):
    print(run(large, "SELECT count(*) FROM t WHERE length(hex(a)) > 0"), run(small, much))
"""


def test_what_other_connections_keep_in_memory_does_not_decide(tmp_path: Path) -> None:
    """A cache of 24 MB is given up for a query that needs 30 of the 48 there are."""
    large, small = make(tmp_path / "large.sqlite", 1), make(tmp_path / "small.sqlite", 1)
    with closing(sqlite3.connect(large)) as connection:
        connection.executemany("INSERT INTO t VALUES (zeroblob(400000))", [()] * 60)
        connection.commit()
    source = Path(__file__).parents[3] / "src"
    done = subprocess.run(
        [sys.executable, "-c", TIGHT, str(large), str(small)],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "[(61,)] [(30,)]\n" * 2, done.stderr
