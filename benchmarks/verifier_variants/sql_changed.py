"""Programs that write a query which looks like the gold; running both tells whether it means something else."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

from sqlglot import exp

from verifier_variants.sql_same import SqlRewrite, written
from verifier_variants.sql_world import SqlGold, parsed, tables


def _copy(gold: SqlGold) -> exp.Expression | None:
    tree = parsed(gold.sql)
    return None if tree is None else tree.copy()


def literal_changed(rng: random.Random, gold: SqlGold) -> Iterable[str]:
    if (tree := _copy(gold)) is None:
        return
    found = list(tree.find_all(exp.Literal))
    if found:
        node = rng.choice(found)
        text = node.this
        other = (
            exp.Literal.string(f"{text}x")
            if node.is_string
            else exp.Literal.number(str(int(float(text)) + rng.randint(1, 3)))
        )
        node.replace(other)
        yield written(tree)


def distinct_changed(_: random.Random, gold: SqlGold) -> Iterable[str]:
    if re.search(r"\bdistinct\b", gold.sql, re.I):
        yield re.sub(r"\bdistinct\b", "", gold.sql, flags=re.I)
    elif isinstance(tree := _copy(gold), exp.Select):
        yield written(tree.distinct())


def count_distinct(_: random.Random, gold: SqlGold) -> Iterable[str]:
    if match := re.search(r"\bcount\s*\(\s*([\w.]+)\s*\)", gold.sql, re.I):
        yield f"{gold.sql[: match.start()]}count(DISTINCT {match[1]}){gold.sql[match.end() :]}"


def order_changed(_: random.Random, gold: SqlGold) -> Iterable[str]:
    tree = _copy(gold)
    if tree is None or tree.args.get("order") is None:
        return
    for key in tree.args["order"].expressions:
        key.set("desc", not key.args.get("desc"))
        key.set("nulls_first", None)
    yield written(tree)
    tree.set("order", None)
    yield written(tree)


def limit_changed(_: random.Random, gold: SqlGold) -> Iterable[str]:
    if match := re.search(r"\blimit\s+(\d+)\s*$", gold.sql, re.I):
        yield gold.sql[: match.start()]
        yield f"{gold.sql[: match.start()]}LIMIT {int(match[1]) + 1}"
        yield f"{gold.sql} OFFSET 1"


def column_changed(rng: random.Random, gold: SqlGold) -> Iterable[str]:
    """Another column of a table of the query in the result, or one less, or one more."""
    tree = _copy(gold)
    found = {table.name.lower() for table in tree.find_all(exp.Table)} if tree else set()
    others = [column for name, columns in tables(gold.db).items() if name.lower() in found for column, _ in columns]
    if not isinstance(tree, exp.Select) or not others:
        return
    columns = [column.copy() for column in tree.expressions]
    other = exp.column(exp.to_identifier(rng.choice(others), quoted=True))
    if len(columns) > 1:
        yield written(tree.copy().select(*columns[1:], append=False))
    yield written(tree.copy().select(*columns, other, append=False))
    yield written(tree.copy().select(other, *columns[1:], append=False))


def comparison_changed(rng: random.Random, gold: SqlGold) -> Iterable[str]:
    if (tree := _copy(gold)) is None:
        return
    other = {exp.EQ: exp.NEQ, exp.NEQ: exp.EQ, exp.GT: exp.LT, exp.LT: exp.GT, exp.GTE: exp.GT, exp.LTE: exp.LT}
    found = [node for node in tree.find_all(*other) if not node.find_ancestor(exp.Join)]
    if found:
        node = rng.choice(found)
        node.replace(other[type(node)](this=node.this.copy(), expression=node.expression.copy()))
        yield written(tree)


def connective_changed(_: random.Random, gold: SqlGold) -> Iterable[str]:
    for old, new in (
        ("and", "OR"),
        ("or", "AND"),
        ("not in", "IN"),
        ("union", "INTERSECT"),
        ("intersect", "UNION"),
        ("except", "UNION"),
    ):
        if re.search(rf"\b{old}\b", gold.sql, re.I):
            yield re.sub(rf"\b{old}\b", new, gold.sql, count=1, flags=re.I)


def aggregate_changed(_: random.Random, gold: SqlGold) -> Iterable[str]:
    for old, new in (("max", "min"), ("min", "max"), ("avg", "sum"), ("sum", "avg"), ("count", "max")):
        if re.search(rf"\b{old}\s*\(\s*[\w.]+\s*\)", gold.sql, re.I):
            yield re.sub(rf"\b{old}\s*(?=\(\s*[\w.]+\s*\))", new, gold.sql, count=1, flags=re.I)


def clause_dropped(_: random.Random, gold: SqlGold) -> Iterable[str]:
    for clause in ("where", "having", "group"):
        tree = _copy(gold)
        if isinstance(tree, exp.Select) and tree.args.get(clause) is not None:
            tree.set(clause, None)
            yield written(tree)


def join_changed(_: random.Random, gold: SqlGold) -> Iterable[str]:
    if re.search(r"(?<!left )\bjoin\b", gold.sql, re.I):
        yield re.sub(r"\bjoin\b", "LEFT JOIN", gold.sql, flags=re.I)
        tree = _copy(gold)
        if tree and len(joins := list(tree.find_all(exp.Join))) == 1:
            joins[0].set("on", None)
            yield written(tree)


def values_as_text(_: random.Random, gold: SqlGold) -> Iterable[str]:
    tree = _copy(gold)
    if isinstance(tree, exp.Select) and not any(column.find(exp.Star) is column for column in tree.expressions):
        column = tree.expressions[0].unalias().copy()
        cast = exp.Cast(this=column, to=exp.DataType.build("text"))
        yield written(tree.select(cast, *[other.copy() for other in tree.expressions[1:]], append=False))


def numbers_nearly(_: random.Random, gold: SqlGold) -> Iterable[str]:
    """A mean rounded, and one that is a thousandth off."""
    if match := re.search(r"\bavg\s*\(\s*([\w.]+)\s*\)", gold.sql, re.I):
        for form in ("round(avg({}), 1)", "avg({}) * 1.001", "CAST(avg({}) AS INTEGER)"):
            yield gold.sql[: match.start()] + form.format(match[1]) + gold.sql[match.end() :]


def constant(_: random.Random, gold: SqlGold) -> Iterable[str]:
    return ["SELECT NULL", "SELECT 1", "SELECT ''", "SELECT 0 WHERE 1 = 0", "SELECT count(*) FROM sqlite_master"]


QUERIES_CHANGED: dict[str, SqlRewrite] = {
    name.__name__.replace("_", " "): name
    for name in (
        literal_changed, distinct_changed, count_distinct, order_changed, limit_changed, column_changed,
        comparison_changed, connective_changed, aggregate_changed, clause_dropped, join_changed, values_as_text,
        numbers_nearly, constant,
    )
}  # fmt: skip
"""Class -> its program, which writes queries that are to be run."""


def nothing_of_the_tables(_: random.Random, gold: SqlGold) -> Iterable[str]:
    """For golds whose result is empty: nothing, out of nowhere or out of the catalogue."""
    yield from (
        "SELECT 1 WHERE 0",
        "SELECT name FROM sqlite_master WHERE 0",
        "SELECT NULL LIMIT 0",
        "VALUES (1) LIMIT 0",
    )


def no_query(rng: random.Random, gold: SqlGold) -> Iterable[str]:
    """What SQLite does not run, or is no query, though it is nearly the gold."""
    q = gold.sql
    stray = re.sub(r"^select\s+([\w.]+)\s+from\b", r"SELECT \1 DISTINCT FROM", q, flags=re.I)
    yield from (stray,) if stray != q else ()
    yield from (
        f"EXPLAIN {q}",
        f"CREATE TEMP VIEW v AS {q}",
        f"{q}; SELECT 1",
        f"{q} LIMIT",
        f"SELEC{q[6:]}",
        f"-- {q}",
    )


def taken_back(_: random.Random, gold: SqlGold) -> Iterable[str]:
    """The gold query stands there, and is not the answer."""
    q = gold.sql
    yield f"```sql\n{q}\n```\nNo, that is wrong. Rather:\n```sql\nSELECT 'nothing of this kind'\n```"
    yield f"<think>try\n```sql\n{q}\n```\nno, wrong.</think>\nI give up."
    yield f"<think>\n```sql\n{q}\n```\n</think>\n```sql\nSELECT 'nothing of this kind'\n```"


COMPLETIONS_CHANGED: dict[str, SqlRewrite] = {name.__name__.replace("_", " "): name for name in (no_query, taken_back)}
"""Class -> its program, which writes whole completions that can never be right."""
