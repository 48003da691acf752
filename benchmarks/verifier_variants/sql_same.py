"""Programs that write a gold query another way, or put it into a completion another way."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable

from sqlglot import exp

from verifier_variants.sql_world import SqlGold, parsed, tables, tie_blocks

SqlRewrite = Callable[[random.Random, SqlGold], Iterable[str]]
"""(randomness, gold) -> queries, or whole completions."""
_KEYWORD = re.compile(
    r"'[^']*'|\"[^\"]*\"|\b(?:select|from|where|and|or|group|order|by|join|on|limit|as|in|not|like)\b", re.I
)


def written(tree: exp.Expression) -> str:
    return tree.sql(dialect="sqlite")


def _copy(gold: SqlGold) -> exp.Expression | None:
    tree = parsed(gold.sql)
    return None if tree is None else tree.copy()


def written_anew(_: random.Random, gold: SqlGold) -> Iterable[str]:
    tree = _copy(gold)
    return [] if tree is None else [written(tree), tree.sql(dialect="sqlite", pretty=True)]


def letter_case(_: random.Random, gold: SqlGold) -> Iterable[str]:
    for change in (str.upper, str.lower):
        yield _KEYWORD.sub(lambda m, to=change: m[0] if m[0][0] in "'\"" else to(m[0]), gold.sql)


def layout_and_comments(rng: random.Random, gold: SqlGold) -> Iterable[str]:
    place = gold.sql.find(" ") + 1
    yield f"{gold.sql[:place]}\n    {gold.sql[place:]}"
    yield f"-- the query; it's short\n{gold.sql}"
    yield f"{gold.sql[:place]}/* {rng.choice(('columns', 'ORDER BY', ';'))} */ {gold.sql[place:]}"
    yield f"{gold.sql} -- done"


def semicolons(_: random.Random, gold: SqlGold) -> Iterable[str]:
    return [f"{gold.sql};", f"{gold.sql} ;", f"{gold.sql};;", f"{gold.sql};\n", f"{gold.sql}; -- end", f"{gold.sql}; ;"]


def sides_swapped(_: random.Random, gold: SqlGold) -> Iterable[str]:
    """a = b to b = a, a > b to b < a."""
    if (tree := _copy(gold)) is None:
        return
    other = {exp.EQ: exp.EQ, exp.NEQ: exp.NEQ, exp.GT: exp.LT, exp.LT: exp.GT, exp.GTE: exp.LTE, exp.LTE: exp.GTE}
    found = list(tree.find_all(*other))
    for node in found:
        node.replace(other[type(node)](this=node.expression.copy(), expression=node.this.copy()))
    if found:
        yield written(tree)


def conditions_reordered(_: random.Random, gold: SqlGold) -> Iterable[str]:
    if (tree := _copy(gold)) is None:
        return
    found = list(tree.find_all(exp.And))
    for node in found:
        left, right = node.this.copy(), node.expression.copy()
        node.set("this", right)
        node.set("expression", exp.Paren(this=left) if isinstance(left, exp.Connector) else left)
    if found:
        yield written(tree)


def parentheses(_: random.Random, gold: SqlGold) -> Iterable[str]:
    if (tree := _copy(gold)) is None:
        return
    found = list(tree.find_all(exp.Where, exp.Having))
    for node in found:
        node.set("this", exp.Paren(this=exp.Paren(this=node.this.copy())))
    if found:
        yield written(tree)


def aliases(rng: random.Random, gold: SqlGold) -> Iterable[str]:
    """Names for the columns of the result; a name for a lone table."""
    tree = _copy(gold)
    if isinstance(tree, exp.Select):
        named = [
            column
            if isinstance(column, exp.Star | exp.Alias) or column.find(exp.Star) is column
            else exp.alias_(column, f"c{n}")
            for n, column in enumerate(tree.expressions)
        ]
        tree.set("expressions", named)
        yield written(tree)
    tree = _copy(gold)
    found = list(tree.find_all(exp.Table)) if tree else []
    if len(found) == 1 and not found[0].alias and isinstance(tree, exp.Select):
        name = rng.choice(("t", "x1", "the_table"))
        found[0].replace(exp.alias_(exp.to_table(found[0].sql(dialect="sqlite")), name, table=True))
        for column in tree.find_all(exp.Column):
            column.set("table", exp.to_identifier(name))
        yield written(tree)


def columns_qualified(_: random.Random, gold: SqlGold) -> Iterable[str]:
    tree = _copy(gold)
    found = list(tree.find_all(exp.Table)) if tree else []
    if len(found) == 1 and not found[0].alias:
        for column in tree.find_all(exp.Column):
            column.set("table", exp.to_identifier(found[0].name))
        yield written(tree)


def names_quoted(_: random.Random, gold: SqlGold) -> Iterable[str]:
    if (tree := _copy(gold)) is None:
        return
    quoted = tree.sql(dialect="sqlite", identify=True)
    yield quoted
    if "'" not in quoted and "`" not in quoted:
        yield re.sub(r'"(\w+)"', r"`\1`", quoted)
        yield re.sub(r'"(\w+)"', r"[\1]", quoted)


def operators_written(_: random.Random, gold: SqlGold) -> Iterable[str]:
    """<> for !=, == for =, BETWEEN and IN as comparisons, IS NOT DISTINCT FROM for =."""
    if "<>" in gold.sql or "!=" in gold.sql:
        yield gold.sql.replace("!=", "<>") if "!=" in gold.sql else gold.sql.replace("<>", "!=")
    tree = _copy(gold)
    if tree is None:
        return
    between = list(tree.find_all(exp.Between))
    for node in between:
        low, high = node.args["low"].copy(), node.args["high"].copy()
        both = exp.and_(exp.GTE(this=node.this.copy(), expression=low), exp.LTE(this=node.this.copy(), expression=high))
        node.replace(exp.Paren(this=both))
    if between:
        yield written(tree)
    match = re.search(r"(\w+)\s*=\s*('[^']*'|\d+)(?![\d.])", gold.sql)
    if match and not re.search(r"\bset\b|select\s+$", gold.sql[: match.start()], re.I):
        for operator in ("==", "IS", "IS NOT DISTINCT FROM"):
            yield f"{gold.sql[: match.start()]}{match[1]} {operator} {match[2]}{gold.sql[match.end() :]}"


def counts_written(_: random.Random, gold: SqlGold) -> Iterable[str]:
    if re.search(r"count\s*\(\s*\*\s*\)", gold.sql, re.I):
        yield re.sub(r"count\s*\(\s*\*\s*\)", "count(1)", gold.sql, flags=re.I)
        yield re.sub(r"count\s*\(\s*\*\s*\)", "COUNT ( * )", gold.sql, flags=re.I)


def means_written(_: random.Random, gold: SqlGold) -> Iterable[str]:
    """avg as a quotient, which differs in the last digits."""
    if match := re.search(r"\bavg\s*\(\s*([\w.]+)\s*\)", gold.sql, re.I):
        for quotient in (
            "sum({0}) * 1.0 / count({0})",
            "total({0}) / count({0})",
            "100.0 * avg({0}) / 100",
            "sum({0} / 3.0) / count({0}) * 3",
        ):
            yield gold.sql[: match.start()] + quotient.format(match[1]) + gold.sql[match.end() :]


def columns_reordered(_: random.Random, gold: SqlGold) -> Iterable[str]:
    tree = _copy(gold)
    if (
        isinstance(tree, exp.Select)
        and len(tree.expressions) > 1
        and not re.search(r"(order|group)\s+by\s+\d", gold.sql, re.I)
    ):
        tree.set("expressions", [column.copy() for column in reversed(tree.expressions)])
        yield written(tree)


def joins_written(_: random.Random, gold: SqlGold) -> Iterable[str]:
    if re.search(r"\bjoin\b", gold.sql, re.I):
        yield re.sub(r"(?<!inner )(?<!left )\bjoin\b", "INNER JOIN", gold.sql, flags=re.I)


def wrapped_in_a_query(_: random.Random, gold: SqlGold) -> Iterable[str]:
    if re.search(r"\border\s+by\b", gold.sql, re.I):
        return
    yield f"SELECT * FROM ({gold.sql})"
    yield f"WITH answer AS ({gold.sql}) SELECT * FROM answer"


def order_written(_: random.Random, gold: SqlGold) -> Iterable[str]:
    if re.search(r"\border\s+by\s+[\w.]+\s*$", gold.sql, re.I):
        yield f"{gold.sql} ASC"
    if match := re.search(r"\blimit\s+(\d+)\s*$", gold.sql, re.I):
        yield f"{gold.sql} OFFSET 0"
        yield f"{gold.sql[: match.start()]}LIMIT 0, {match[1]}"


def distinct_as_group(_: random.Random, gold: SqlGold) -> Iterable[str]:
    tree = _copy(gold)
    if not isinstance(tree, exp.Select) or not tree.args.get("distinct"):
        return
    plain = not any(tree.args.get(clause) for clause in ("group", "limit", "order"))
    if plain and all(isinstance(column, exp.Column) for column in tree.expressions):
        tree.set("distinct", None)
        yield written(tree.group_by(*[column.copy() for column in tree.expressions]))


def ties(_: random.Random, gold: SqlGold) -> Iterable[str]:
    """A further key for rows that the gold's ORDER BY leaves equal."""
    blocks = tie_blocks(gold)
    tree = _copy(gold)
    if (
        blocks
        and any(len(set(block)) > 1 for block in blocks)
        and isinstance(tree, exp.Select)
        and not tree.args.get("limit")
    ):
        for way in ("DESC", "ASC"):
            yield re.sub(r"\s*$", f", {tree.expressions[0].unalias().sql(dialect='sqlite')} {way}", gold.sql)


def fences(_: random.Random, gold: SqlGold) -> Iterable[str]:
    q = gold.sql
    forms = (
        "sql\n{}",
        "sqlite\n{}",
        "SQL\n{}",
        "sqlite3\n{}",
        "\n{}",
        " sql\n{}",
        'sql title="a.sql"\n{}',
        "{{sql}}\n{}",
        "sql {}",
    )
    for form in forms:
        yield f"```{form.format(q)}\n```"
    yield f"~~~sql\n{q}\n~~~"
    yield f"````sql\n{q}\n````"
    yield f"> ```sql\n> {q}\n> ```"
    yield f"1. So:\n   ```sql\n   {q}\n   ```"


def prose_and_fences(_: random.Random, gold: SqlGold) -> Iterable[str]:
    q = gold.sql
    yield f"We need the rows.\n\n```sql\n{q};\n```\nThis returns what was asked for."
    yield f"```sql\nSELECT 1\n```\nThat was a test. The answer:\n```sql\n{q}\n```"
    yield f"```sql\n{q};\n"
    yield f"```sql\n{q};\n\nThis query lists them."
    yield f"<think>Perhaps\n```sql\nSELECT 2\n```\n</think>\n```sql\n{q}\n```"
    yield f"```sql\n{q}\n```\nIt prints:\n```text\n1 | x\n```"
    yield f"Use `SELECT`:\n```sql\n{q}\n```\nwhere `name` is a column."


def no_fence(_: random.Random, gold: SqlGold) -> Iterable[str]:
    q = gold.sql
    yield from (q, f"SQL: {q}", f"`{q}`", f"Answer: {q}", f"{q};\n\nThis query lists them.", f"The query is:\n\n{q};")


def tags(_: random.Random, gold: SqlGold) -> Iterable[str]:
    q = gold.sql
    yield from (
        f"<answer>{q}</answer>",
        f"<think>Let me see.</think>\n<answer>\n{q}\n</answer>",
        f"<solution>{q}</solution>",
    )
    yield from (f"<sql>{q}</sql>", f"<answer>```sql\n{q}\n```</answer>", f"<think>Let me see.</think>\n\n{q}")


def literals_with_marks(_: random.Random, gold: SqlGold) -> Iterable[str]:
    """A string literal of the query holds what a rewriting or an extractor could take for its own."""
    if re.search(r"\bwhere\b", gold.sql, re.I) and not re.search(r"\b(?:union|intersect|except|or)\b", gold.sql, re.I):
        for mark in ("> =", "`", "distinct", "--", ";", "order by"):
            text = f"'x {mark} y'"
            yield re.sub(r"\bwhere\b", lambda m, t=text: f"{m[0]} {t} <> 'z' AND", gold.sql, count=1, flags=re.I)


def an_unused_table(rng: random.Random, gold: SqlGold) -> Iterable[str]:
    """EXISTS over some table with rows."""
    name = rng.choice(sorted(tables(gold.db)))
    if not re.search(r"\b(?:where|group|order|limit|union|intersect|except|having)\b", gold.sql, re.I):
        yield f'{gold.sql} WHERE EXISTS (SELECT 1 FROM "{name}")'


QUERIES_SAME: dict[str, SqlRewrite] = {
    name.__name__.replace("_", " "): name
    for name in (
        written_anew, letter_case, layout_and_comments, semicolons, sides_swapped, conditions_reordered, parentheses,
        aliases, columns_qualified, names_quoted, operators_written, counts_written, means_written, columns_reordered,
        joins_written, wrapped_in_a_query, order_written, distinct_as_group, ties, literals_with_marks,
        an_unused_table,
    )
}  # fmt: skip
"""Class -> its program, which writes queries."""
COMPLETIONS_SAME: dict[str, SqlRewrite] = {
    name.__name__.replace("_", " "): name for name in (fences, prose_and_fences, no_fence, tags)
}
"""Class -> its program, which writes whole completions around the gold query itself."""
