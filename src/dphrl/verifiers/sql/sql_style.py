"""How a completion's query solves its problem, as a text: two right queries with the same text are one solution.

`metrics.diversity` counts these texts. Any text is taken and nothing raises; what cannot be parsed falls back to the
text of the query, so that unreadable solutions count as different rather than as one.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from dphrl.verifiers.sql.extract_sql import extract_sql
from dphrl.verifiers.sql.sql_text import canonical_sql, first_word, tokens

if TYPE_CHECKING:
    from sqlglot import exp

MAX_QUERY = 10_000
"""Characters of the longest query that is parsed."""
MAX_NESTING = 20
"""Parentheses within each other, in a query that is parsed: the parser recurses, and Python's stack is finite."""
SMALL = 20
"""Nodes of the largest expression that stands in for its alias; larger ones could double at every level."""


def sql_style(completion: str) -> str:
    """The skeleton of the completion's query: what it joins, nests, groups and combines, not how it is written.

    Gone are aliases (of tables, columns, common table expressions), qualifiers of columns (so `t.x` is `x`: with an
    alias or without one, it names the same column nearly always), the values of literals, letter case and quotes of
    names, comments, space, needless parentheses, and words that change nothing (ASC, INNER, OUTER). What remains tells
    a join from a subquery, a common table expression or a set operation.

    A name in double quotes on the right of a comparison counts as a literal, as SQLite reads it where there is no
    such column. A query that is no single SELECT, longer than 10,000 characters or nested too deeply has the form
    `canonical_sql`.
    """
    return _skeleton(extract_sql(completion))


@functools.lru_cache(maxsize=4096)
def _skeleton(query: str) -> str:
    if (
        len(query) > MAX_QUERY
        or first_word(query.lstrip("( \n\t")) not in ("select", "with")
        or _nesting(query) > MAX_NESTING
    ):
        return canonical_sql(query)
    try:
        return _parsed(query) or canonical_sql(query)
    except Exception:  # the parser's own errors, RecursionError, and what it stumbles over: a style must not end a run
        return canonical_sql(query)


def _nesting(query: str) -> int:
    depth = deepest = 0
    for kind, text in tokens(query):
        if kind == "sign" and text in "()":
            depth += 1 if text == "(" else -1
            deepest = max(deepest, depth)
    return deepest


def _parsed(query: str) -> str | None:
    import sqlglot
    from sqlglot import ErrorLevel, exp

    trees = [tree for tree in sqlglot.parse(query, dialect="sqlite") if tree is not None]
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        return None
    (tree,) = trees
    for name in list(tree.find_all(exp.Identifier)):
        if not (name.args.get("quoted") and _is_value(name)):
            name.set("this", name.name.lower())
            name.set("quoted", False)
    _drop_literals(tree)
    _drop_table_names(tree)
    _drop_column_names(tree)
    _drop_needless(tree)
    return tree.sql(dialect="sqlite", comments=False, normalize_functions="upper", unsupported_level=ErrorLevel.IGNORE)


def _is_value(name: exp.Identifier) -> bool:
    """Whether a quoted name stands where a value does: alone, on the right of a comparison or within IN."""
    from sqlglot import exp

    column = name.parent
    if not isinstance(column, exp.Column) or column.table:
        return False
    place = column.parent
    if isinstance(place, exp.In | exp.Between):
        return place.this is not column
    return isinstance(place, exp.Predicate) and isinstance(place, exp.Binary) and place.expression is column


def _drop_literals(tree: exp.Expr) -> None:
    from sqlglot import exp

    for name in list(tree.find_all(exp.Identifier)):
        if name.args.get("quoted") and name.parent is not None:
            name.parent.replace(exp.Placeholder())
    for literal in list(tree.find_all(exp.Literal, exp.Boolean, exp.HexString)):
        whole = literal.parent if isinstance(literal.parent, exp.Neg) else literal
        whole.replace(exp.Placeholder())


def _drop_table_names(tree: exp.Expr) -> None:
    """Common table expressions are numbered; aliases and databases of tables, and qualifiers of columns, go."""
    from sqlglot import exp

    numbered: dict[str, str] = {}
    for cte in list(tree.find_all(exp.CTE)):
        name = numbered.setdefault(cte.alias, f"cte{len(numbered)}")
        cte.args["alias"].set("this", exp.to_identifier(name))
    for table in list(tree.find_all(exp.Table)):
        if isinstance(table.this, exp.Identifier) and not table.db and table.name in numbered:
            table.this.set("this", numbered[table.name])
        for part in ("alias", "db", "catalog"):
            table.set(part, None)
    for subquery in list(tree.find_all(exp.Subquery)):
        subquery.set("alias", None)
    for column in list(tree.find_all(exp.Column)):
        for part in ("table", "db", "catalog"):
            column.set(part, None)


def _drop_column_names(tree: exp.Expr) -> None:
    """Aliases of results go. Where the same query sorts or groups by one, its expression stands; where a query around
    reads one, a number does."""
    from sqlglot import exp

    exported: dict[str, set[int]] = {}
    for cte in list(tree.find_all(exp.CTE)):
        inside = {id(select) for select in cte.find_all(exp.Select)}
        exported.update({name: set(inside) for name in cte.alias_column_names})
        cte.args["alias"].set("columns", None)
    for select in list(tree.find_all(exp.Select)):
        outputs = {}
        for alias in [one for one in select.expressions if isinstance(one, exp.Alias)]:
            outputs[alias.alias] = alias.this
            alias.replace(alias.this)
        for clause in _clauses_that_see_outputs(select):
            for column in list(clause.find_all(exp.Column)):
                meant = outputs.get(column.name)
                if meant is not None and meant.find_ancestor(exp.Select) is select:
                    small = sum(1 for _ in meant.walk()) <= SMALL
                    column.replace(meant.copy() if small else exp.column("_"))
        if select.find_ancestor(exp.Subquery, exp.CTE):
            for name, meant in outputs.items():
                if not (isinstance(meant, exp.Column) and meant.name == name):
                    exported.setdefault(name, set()).add(id(select))
    numbered: dict[str, str] = {}
    for column in list(tree.find_all(exp.Column)):
        if column.name in exported and id(column.find_ancestor(exp.Select)) not in exported[column.name]:
            number = numbered.setdefault(column.name, f"result{len(numbered)}")
            column.replace(exp.column(number))


def _clauses_that_see_outputs(select: exp.Select) -> list[exp.Expr]:
    """GROUP BY, HAVING and ORDER BY of a query; of a set operation ORDER BY, which sees its first query."""
    from sqlglot import exp

    clauses = [select.args.get(name) for name in ("group", "having", "order")]
    query: exp.Expr = select
    while isinstance(query.parent, exp.SetOperation) and query.parent.this is query:
        query = query.parent
        clauses.append(query.args.get("order"))
    return [clause for clause in clauses if clause is not None]


def _drop_needless(tree: exp.Expr) -> None:
    """Parentheses around what needs none; INNER and OUTER; ASC."""
    from sqlglot import exp

    for paren in list(tree.find_all(exp.Paren)):
        place, inner = paren.parent, paren.this
        inside = isinstance(inner, exp.Binary | exp.Unary | exp.Between | exp.In)
        joined = isinstance(place, exp.Connector) and not isinstance(inner, exp.Connector)
        if not inside or joined or not isinstance(place, exp.Binary | exp.Unary | exp.Between | exp.In):
            paren.replace(inner)
    for join in list(tree.find_all(exp.Join)):
        if join.kind in ("INNER", "OUTER"):
            join.set("kind", None)
    for ordered in list(tree.find_all(exp.Ordered)):
        if not ordered.args.get("desc"):
            ordered.set("desc", None)
