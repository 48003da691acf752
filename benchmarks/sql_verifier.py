"""SQL verdicts beside SQLite's own loop and beside the released way of scoring, in CPU seconds.

The limit prepares, steps and fetches each query on one open connection, and compares nothing. The released way opens a
connection for each completion, runs the prediction and the gold query, and compares bags. Ours is `verify_sql` with
one worker that is running and gold results that are known, as after the first step of a training run; its time is this
process's and the worker's. All three judge the same queries in turn, in many rounds; the best round of each counts.
Query texts are distinct, so nothing is run once for several, but for `deduplicated_over_limit`; none has DISTINCT,
which spider takes out, so that all run the same. One JSON line; the databases are made in a temporary folder.
"""

from __future__ import annotations

import json
import random
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from dphrl.verifiers.sql.verify_sql import GOLD_WORKER, QUERY_WORKER, verify_sql
from dphrl.verifiers.workers.pool import pool_of

SEED = 0
ROUNDS = 6
SMALL_ROUNDS = 30
"""More of them, as each is short: other work on the machine must miss at least one."""
DRAWS = 64
"""Completions of one gold query, as in a group of rollouts; every second one is right."""
COPIES = 8
"""Times each query stands in the batch of `deduplicated_over_limit`."""

Items = list[dict[str, str]]

SMALL = """
CREATE TABLE stadium(id INTEGER PRIMARY KEY, name TEXT, location TEXT, capacity INTEGER, average INTEGER);
CREATE TABLE singer(id INTEGER PRIMARY KEY, name TEXT, country TEXT, song TEXT, year INTEGER, age INTEGER);
CREATE TABLE concert(id INTEGER PRIMARY KEY, name TEXT, theme TEXT, stadium_id INTEGER, year INTEGER);
CREATE TABLE singer_in_concert(concert_id INTEGER, singer_id INTEGER, PRIMARY KEY (concert_id, singer_id));
"""
SMALL_GOLDS = (
    "SELECT count(*) FROM singer AS {a} WHERE {a}.age > {n}",
    "SELECT {a}.name, {a}.country, {a}.age FROM singer AS {a} WHERE {a}.age > {n} ORDER BY {a}.age DESC",
    "SELECT {a}.country, count(*) FROM singer AS {a} WHERE {a}.age <= {n} GROUP BY {a}.country",
    "SELECT {a}.name, {a}.song FROM singer AS {a} WHERE {a}.country = 'country 3' AND {a}.age > {n}",
    "SELECT avg({a}.age), min({a}.age), max({a}.age) FROM singer AS {a} WHERE {a}.age > {n}",
    "SELECT {a}.name, count(*) FROM concert AS c JOIN stadium AS {a} ON c.stadium_id = {a}.id "
    "WHERE {a}.capacity > {n} GROUP BY {a}.id",
    "SELECT {a}.name FROM stadium AS {a} WHERE {a}.id NOT IN (SELECT stadium_id FROM concert WHERE year > 1990 + {n})",
    "SELECT {a}.name FROM singer_in_concert AS j JOIN singer AS {a} ON j.singer_id = {a}.id JOIN concert AS c "
    "ON j.concert_id = c.id WHERE c.year > 1990 + {n}",
    "SELECT {a}.location FROM stadium AS {a} JOIN concert AS c ON c.stadium_id = {a}.id WHERE c.year = 2014 "
    "INTERSECT SELECT s.location FROM stadium AS s JOIN concert AS c ON c.stadium_id = s.id WHERE c.year > 1990 + {n}",
    "SELECT {a}.country FROM singer AS {a} WHERE {a}.age > {n} GROUP BY {a}.country HAVING count(*) > 2 "
    "ORDER BY count(*) DESC LIMIT 3",
)
LARGE = """
CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT, city TEXT);
CREATE TABLE product(id INTEGER PRIMARY KEY, name TEXT, price REAL);
CREATE TABLE purchase(id INTEGER PRIMARY KEY, customer_id INTEGER, day TEXT, note TEXT);
CREATE TABLE line(purchase_id INTEGER, product_id INTEGER, amount INTEGER);
"""
LARGE_GOLDS = (
    "SELECT {a}.city, count(*) FROM purchase AS p JOIN customer AS {a} ON p.customer_id = {a}.id "
    "WHERE {a}.id > {n} GROUP BY {a}.city",
    "SELECT {a}.name, sum(l.amount * {a}.price) FROM line AS l JOIN product AS {a} ON l.product_id = {a}.id "
    "WHERE {a}.id > {n} GROUP BY {a}.id ORDER BY 2 DESC LIMIT 10",
    "SELECT {a}.city, sum(l.amount) FROM line AS l JOIN purchase AS p ON l.purchase_id = p.id JOIN customer AS {a} "
    "ON p.customer_id = {a}.id WHERE l.product_id < 2 * {n} GROUP BY {a}.city",
    "SELECT {a}.name, p.day FROM purchase AS p JOIN customer AS {a} ON p.customer_id = {a}.id "
    "WHERE {a}.city = 'city 3' AND p.id > {n}",
)


def make_small(path: Path, rng: random.Random) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SMALL)
        stadiums = [(i, f"stadium {i}", f"city {i % 5}", rng.randrange(10, 90), i) for i in range(40)]
        singers = [(i, f"singer {i}", f"country {i % 6}", f"song {i}", 2000, rng.randrange(18, 70)) for i in range(100)]
        concerts = [(i, f"concert {i}", "free", rng.randrange(40), rng.randrange(2008, 2018)) for i in range(100)]
        connection.executemany("INSERT INTO stadium VALUES (?, ?, ?, ?, ?)", stadiums)
        connection.executemany("INSERT INTO singer VALUES (?, ?, ?, ?, ?, ?)", singers)
        connection.executemany("INSERT INTO concert VALUES (?, ?, ?, ?, ?)", concerts)
        pairs = rng.sample([(c, s) for c in range(100) for s in range(100)], 150)
        connection.executemany("INSERT INTO singer_in_concert VALUES (?, ?)", pairs)
        connection.commit()


def make_large(path: Path, rng: random.Random) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(LARGE)
        customers = [(i, f"customer {i}", f"city {i % 40}") for i in range(2_000)]
        products = [(i, f"product {i}", rng.randrange(100, 9900) / 100) for i in range(200)]
        notes = (
            "by hand, to the back door, after six, or to the shop next to it",
            "a present: no bill in the box, please",
        )
        days = [f"2024-{month:02}-{day:02}" for month in range(1, 13) for day in range(1, 29)]
        purchases = [(i, rng.randrange(2_000), rng.choice(days), rng.choice(notes)) for i in range(50_000)]
        lines = [(rng.randrange(70_000), rng.randrange(200), rng.randrange(1, 9)) for _ in range(40_000)]
        connection.executemany("INSERT INTO customer VALUES (?, ?, ?)", customers)
        connection.executemany("INSERT INTO product VALUES (?, ?, ?)", products)
        connection.executemany("INSERT INTO purchase VALUES (?, ?, ?, ?)", purchases)
        connection.executemany("INSERT INTO line VALUES (?, ?, ?)", lines)
        connection.commit()


def make_items(db: Path, golds: tuple[str, ...], draws: int, *, rng: random.Random, start: int = 0) -> Items:
    """Completions in groups of one gold query; each names its tables its own way, every second asks something else."""
    items = []
    for number, gold in enumerate(golds):
        right = 25 + number
        for draw in range(draws):
            sql = gold.format(a=f"t{start + draw}", n=right if draw % 2 else rng.randrange(20, 60))
            text = f"The tables hold what is asked for.\n```sql\n{sql}\n```\nThis answers the question."
            items.append({"gold": gold.format(a="t", n=right), "db": str(db), "completion": text, "sql": sql})
    return items


def limit(items: Items) -> None:
    with closing(sqlite3.connect(items[0]["db"], cached_statements=0)) as connection:
        for item in items:
            with closing(connection.execute(item["sql"])) as cursor:
                cursor.fetchall()


def released(items: Items) -> int:
    right = 0
    for item in items:
        with closing(sqlite3.connect(item["db"])) as connection:
            connection.text_factory = lambda data: data.decode(errors="ignore")
            cursor = connection.cursor()
            rows = cursor.execute(item["sql"]).fetchall()
            gold = cursor.execute(item["gold"]).fetchall()
            right += Counter(rows) == Counter(gold)
    return right


def ours(items: Items) -> int:
    return sum(verdict.correct for verdict in verify_sql(items, workers=1))


def cpu_seconds() -> float:
    """Of this process and of the running workers."""
    pids = [*pool_of(QUERY_WORKER).pids, *pool_of(GOLD_WORKER).pids]
    return time.process_time() + sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def rates(rounds: int, make: Callable[[int], Items]) -> dict[str, float]:
    """Completions per CPU second of each way; `make` gives the batch of a round."""
    seconds: dict[str, list[float]] = {"ours": [], "limit": [], "released": []}
    ours(make(-1))  # starts the worker and meets the golds
    count = 0
    for number in range(rounds):
        batch = make(number)
        count = len(batch)
        for way in (limit, ours, released):
            began = cpu_seconds()
            way(batch)
            seconds[way.__name__].append(cpu_seconds() - began)
    return {way: count / min(times) for way, times in seconds.items()}


def main() -> None:
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, "small.sqlite"), Path(folder, "large.sqlite")
        make_small(small, rng)
        make_large(large, rng)
        megabytes = large.stat().st_size / 1e6
        of_small = rates(SMALL_ROUNDS, lambda r: make_items(small, SMALL_GOLDS, DRAWS, rng=rng, start=10_000 * r))
        of_large = rates(ROUNDS, lambda r: make_items(large, LARGE_GOLDS, DRAWS // 4, rng=rng, start=10_000 * r))
        of_copies = rates(
            ROUNDS, lambda r: COPIES * make_items(large, LARGE_GOLDS, DRAWS // (4 * COPIES), rng=rng, start=10_000 * r)
        )
        pool_of(QUERY_WORKER).close()
        pool_of(GOLD_WORKER).close()
    figures = {
        "small_over_limit": of_small["ours"] / of_small["limit"],
        "joins_over_limit": of_large["ours"] / of_large["limit"],
        "small_over_released": of_small["ours"] / of_small["released"],
        "joins_over_released": of_large["ours"] / of_large["released"],
        "deduplicated_over_limit": of_copies["ours"] / of_copies["limit"],
    }
    per_second = {f"small_{way}": of_small[way] for way in of_small} | {
        f"joins_{way}": of_large[way] for way in of_large
    }
    print(
        json.dumps(
            {name: round(value, 3) for name, value in figures.items()}
            | {f"{name}_per_second": round(value) for name, value in per_second.items()}
            | {"joins_megabytes": round(megabytes, 1), "sqlite": sqlite3.sqlite_version}
        )
    )


if __name__ == "__main__":
    main()
