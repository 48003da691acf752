"""Write the recipe's question files from Spider: tune, train, in_domain (same databases), cross_domain (unseen ones).

Run: python recipes/spider-smollm2/questions.py --spider ../shared/data/spider --out data/spider-smollm2

All have a short schema and a short gold query. `in_domain` (held out), `train` and `tune` (for the base) share Spider's
training questions, `cross_domain` is of its dev questions. A line holds id, schema, prompt (the schema's lines, the
question, `SQL:`), gold and db_id.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
from collections import defaultdict
from contextlib import closing
from functools import cache
from pathlib import Path

MOST_CHARACTERS_OF_SCHEMA = 500  # short ones, which two cores bear
MOST_CHARACTERS_OF_GOLD = 90
TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
ROWS = {"in_domain": 80, "train": 400, "cross_domain": 60}  # tune takes the rest


@cache
def schema(database: Path) -> str:
    """One line a table: `name(column, column, ...)`."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        lines = []
        for (table,) in connection.execute(TABLES).fetchall():
            columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
            lines.append(f"{table}({', '.join(columns)})\n")
    return "".join(lines)


def read(spider: Path, split: str) -> list[dict[str, str]]:
    """The rows of one of Spider's files whose schema and gold query are short, in the file's order."""
    rows = []
    for number, line in enumerate((spider / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()):
        item = json.loads(line)
        tables = schema(spider / "database" / item["db_id"] / f"{item['db_id']}.sqlite")
        gold = " ".join(item["query"].split())
        if len(tables) < MOST_CHARACTERS_OF_SCHEMA and len(gold) <= MOST_CHARACTERS_OF_GOLD:
            prompt = f"{tables}Question: {item['question']}\nSQL:"
            key = {"id": f"{split}-{number}", "db_id": item["db_id"]}
            rows.append({**key, "schema": tables, "prompt": prompt, "gold": gold})
    return rows


def split(rows: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """The training questions as tune, in_domain and train.

    Spider asks most queries in two wordings: tune takes both, in_domain and train one. No query is in two files.
    """
    by_gold = defaultdict(list)
    for row in rows:
        by_gold[row["db_id"], row["gold"]].append(row)
    groups = list(by_gold.values())
    random.Random(1).shuffle(groups)
    parts: dict[str, list[dict[str, str]]] = {"in_domain": [], "train": [], "tune": []}
    for group in groups:
        name = next(name for name, part in parts.items() if name == "tune" or len(part) < ROWS[name])
        parts[name] += group if name == "tune" else group[:1]
    return parts


def main(spider: Path, out: Path) -> None:
    dev = read(spider, "dev")
    random.Random(2).shuffle(dev)
    files = {**split(read(spider, "train_spider")), "cross_domain": dev[: ROWS["cross_domain"]]}
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        print(f"{name}: {len(rows)} questions of {len({row['db_id'] for row in rows})} databases")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spider", type=Path, required=True, help="folder of Spider: *.jsonl and database/")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    main(arguments.spider, arguments.out)
