"""What slow items may cost a batch: the rule alone, and with workers that burn CPU time."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dphrl.verifiers.workers import slow_items
from dphrl.verifiers.workers.pool import Pool
from dphrl.verifiers.workers.slow_items import SMALL, Spent, TooSlow, deadline_of_slow, key_of, worth_trying

JOB = """
import time
from dphrl.verifiers.workers.job import Job

held = []

def judge(item, settings):
    word, _, number = item.partition(" ")
    if word == "burn":
        end = time.process_time() + float(number)
        while time.process_time() < end: pass
    if word == "grow":
        held.append(bytearray(b"x" * int(number)))
    if word == "quit":
        return "timeout", "by itself"
    return "correct", item

def warm_up():
    held.append("warm")

def count(item, settings):
    return "correct", str(len(held))

JOB = Job(lambda item, settings: count(item, settings) if item == "count" else judge(item, settings), warm_up=warm_up)
"""


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    (tmp_path / "burning_job_of_tests.py").write_text(JOB)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    pool = Pool("burning_job_of_tests")
    yield pool
    pool.close()


def statuses(pool: Pool, items: list[str], cpu_s: float, *, adapt: bool = True) -> list[str]:
    return [status for status, _ in pool.run(items, {}, cpu_s=cpu_s, workers=2, adapt=adapt)]


@pytest.mark.parametrize(
    ("count", "finished_s", "expected"),
    [(1, 0.0, 5.0), (2, 0.0, 5.0), (4, 0.0, 2.5), (100, 0.0, 0.1), (4, 100.0, 5.0), (100, 100.0, 1.0)],
)
def test_the_deadline_of_slow_items(count: int, finished_s: float, expected: float) -> None:
    """Two whole deadlines between them, or as much as the rest of the batch took."""
    assert deadline_of_slow(count, 5.0, finished_s) == pytest.approx(expected)


def test_what_is_worth_another_try() -> None:
    assert worth_trying(5.0, 5.0, 3.0) and not worth_trying(5.0, 5.0, 5.0)
    assert worth_trying(1.0, 5.0, 0.5) and not worth_trying(1.0, 5.0, 0.6)


def test_memory_of_slow_items_is_bounded_and_keeps_the_latest() -> None:
    slow = TooSlow(most=2)
    for name, seconds in ((b"a", 1.0), (b"b", 2.0), (b"a", 0.5), (b"c", 3.0)):
        slow.put(name, seconds)
    assert len(slow) == 2 and [slow.exceeded(name) for name in (b"a", b"b", b"c")] == [1.0, 0.0, 3.0]
    assert len(key_of(["x" * 10_000, None], {})) == 16
    assert key_of(["x"], {"deadline_s": 1}) != key_of(["x"], {"deadline_s": 2})


def test_share_of_time() -> None:
    assert Spent().timeout_share == 0 and Spent(1.0, 3.0).timeout_share == 0.75
    assert Spent(2.0, 3.0) - Spent(1.0, 1.0) + Spent(1.0, 1.0) == Spent(2.0, 3.0)


def test_in_a_small_batch_every_item_has_its_whole_deadline(pool: Pool) -> None:
    """Also beside others that never end."""
    items = ["burn 0.1", *["burn 60"] * 3, *[str(n) for n in range(SMALL - 4)]]
    assert statuses(pool, items, 0.2) == ["correct", *["timeout"] * 3, *["correct"] * (SMALL - 4)]


@pytest.mark.slow
def test_slow_items_of_a_large_batch_share_its_time_and_the_rest_is_judged(pool: Pool) -> None:
    """8 that were put off have 2 deadlines between them: 0.2 s each. An item of 0.06 s is among them, and is judged."""
    items = [str(n) for n in range(50)]
    for n in range(7):
        items[5 * n] = f"burn {60 + n}"
    items[49] = "burn 0.06"
    replies = pool.run(items, {}, cpu_s=0.8, workers=2)
    assert [status for status, _ in replies] == [
        "timeout" if item.startswith("burn 6") else "correct" for item in items
    ]
    assert "share" in replies[0][1]
    assert 0 < pool.spent.timeouts_s < 0.8 * 4  # 0.8 * 7 with whole deadlines
    assert pool.spent.timeout_share > 0.5


def test_one_slow_item_of_a_large_batch_has_its_whole_deadline(pool: Pool) -> None:
    assert statuses(pool, [*map(str, range(50)), "burn 0.3"], 0.5) == ["correct"] * 51


def test_what_timed_out_is_not_tried_again(pool: Pool) -> None:
    assert statuses(pool, ["burn 60", "a"], 0.2) == ["timeout", "correct"]
    before = pool.spent.timeouts_s
    replies = pool.run(["burn 60", "b"], {}, cpu_s=0.2)
    assert [status for status, _ in replies] == ["timeout", "correct"] and "as before" in replies[0][1]
    assert statuses(pool, [*map(str, range(50)), "burn 60"], 0.2)[-1] == "timeout"
    assert pool.spent.timeouts_s == before
    assert statuses(pool, ["burn 60"], 0.4) == ["timeout"] and pool.spent.timeouts_s > before  # a longer deadline


@pytest.mark.slow
def test_an_item_that_was_cut_short_is_tried_again_where_it_has_longer(pool: Pool) -> None:
    """In a batch of many slow items it had its share; alone it has its whole deadline, and is judged."""
    many = [*map(str, range(50)), "burn 0.2", *[f"burn {60 + n}" for n in range(7)]]
    assert statuses(pool, many, 0.4)[50] == "timeout"
    assert statuses(pool, ["burn 0.2"], 0.4) == ["correct"]


@pytest.mark.slow
def test_whole_deadlines_for_all(pool: Pool) -> None:
    many = [*map(str, range(50)), "burn 0.15", *[f"burn {60 + n}" for n in range(3)]]
    assert statuses(pool, many, 0.25, adapt=False) == [*["correct"] * 51, *["timeout"] * 3]


def test_an_item_that_the_job_itself_gives_up_is_remembered(pool: Pool) -> None:
    assert pool.run(["quit"], {}, cpu_s=60.0) == [("timeout", "by itself")]
    assert "as before" in pool.run(["quit"], {}, cpu_s=60.0)[0][1]


def test_a_worker_that_has_grown_is_replaced_by_a_warm_one(pool: Pool) -> None:
    """Between two chunks; what it was told before it was forked, the next one knows too."""
    small = 8 << 20
    assert pool.run(["a"], {}, cpu_s=60.0, grown_bytes=small) == [("correct", "a")]
    [first] = pool.pids
    pool.run([f"grow {2 * small}"], {}, cpu_s=60.0, grown_bytes=small)
    assert pool.pids == [first]
    assert pool.run(["count"], {}, cpu_s=60.0, grown_bytes=small) == [("correct", "1")]
    assert len(pool.pids) == 1 and pool.pids != [first]


def test_a_template_that_is_killed_is_replaced(pool: Pool) -> None:
    assert pool.run(["a"], {}, cpu_s=60.0) == [("correct", "a")]
    assert pool._template is not None
    os.kill(pool._template._process.pid, signal.SIGKILL)
    pool._template._process.wait()
    for _ in range(3):  # its workers leave by themselves, before or after they answer
        assert pool.run([str(n) for n in range(40)], {}, cpu_s=60.0, workers=2) == [
            ("correct", str(n)) for n in range(40)
        ]


def test_constants_fit_together() -> None:
    """An item is put off before it has its share, and a second try is longer than the first."""
    assert 0 < slow_items.LEAST * slow_items.FURTHER < 1 < slow_items.ALLOWED
