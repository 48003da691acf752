"""What a query sorts by, so that rows can be told which its ORDER BY leaves equal.

Read off the tokens. Where it is not clear what a query sorts by, no rows are taken for equal: their order counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dphrl.verifiers.sql.sql_text import tokens

_DIRECTIONS = (("asc",), ("desc",), ("nulls", "first"), ("nulls", "last"))
_SET_OPERATORS = frozenset({"union", "intersect", "except"})


@dataclass(frozen=True, slots=True)
class OrderKeys:
    """The terms of the outermost ORDER BY."""

    columns: tuple[int, ...]
    """Those that are columns of the result, by position."""
    query: str | None
    """The query with the others as further columns; None where there are none."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    """In lower case where it is a word."""
    start: int
    end: int
    depth: int


def order_keys(sql: str, names: Sequence[str]) -> OrderKeys | None:
    """What a query sorts by.

    Args:
        sql: one statement that SQLite has run.
        names: of its columns, as SQLite gave them.
    Returns:
        None where it has no ORDER BY, or where a term cannot be read off a row: an expression in a query that combines
        others (UNION), whose terms SQLite looks for in each of them.
    """
    outer = list(_significant(sql))
    words = [token.text if token.kind == "word" and token.depth == 0 else "" for token in outer]
    begins = [i for i in range(len(words) - 1) if words[i : i + 2] == ["order", "by"]]
    if not begins:
        return None
    columns: list[int] = []
    others: list[str] = []
    for term in _terms(outer[begins[-1] + 2 :]):
        found = _columns_of(term, names)
        columns += found
        if not found:
            others.append(sql[term[0].start : term[-1].end] if term else "")
    if not others:
        return OrderKeys(tuple(columns), None)
    place = _from(outer, words)
    if place is None or _SET_OPERATORS & set(words) or "" in others:
        return None
    further = "".join(f", ({other})" for other in others)
    return OrderKeys(tuple(columns), f"{sql[:place]}{further} {sql[place:]}")


def _significant(sql: str) -> Iterator[_Token]:
    """Tokens but space and comments; a closing parenthesis is as deep as its opening one's inside."""
    at = depth = 0
    for kind, text in tokens(sql):
        end = at + len(text)
        depth += kind == "sign" and text == "("
        if kind != "space":
            yield _Token(kind, text.lower() if kind == "word" else text, at, end, depth)
        depth -= kind == "sign" and text == ")"
        at = end


def _terms(tail: Sequence[_Token]) -> Iterator[list[_Token]]:
    """The terms behind ORDER BY, without their directions."""
    term: list[_Token] = []
    for token in tail:
        if token.depth == 0 and token.text in (",", "limit", ";"):
            yield _without_direction(term)
            term = []
            if token.text != ",":
                return
        else:
            term.append(token)
    yield _without_direction(term)


def _without_direction(term: list[_Token]) -> list[_Token]:
    """A term without ASC, NULLS LAST and COLLATE: equal values are equal under any collation."""
    while True:
        words = [token.text for token in term]
        length = next((len(end) for end in _DIRECTIONS if tuple(words[-len(end) :]) == end), 0)
        if not length and words[-2:-1] == ["collate"]:
            length = 2
        if not length:
            return term
        term = term[:-length]


def _columns_of(term: list[_Token], names: Sequence[str]) -> list[int]:
    """The columns of the result that a term is: by number, or by name, which comes before any column of a table."""
    if len(term) != 1:
        return []
    (token,) = term
    if token.kind == "number" and token.text.isdigit():
        return [int(token.text) - 1] if 0 < int(token.text) <= len(names) else []
    if token.kind == "word":
        name = token.text
    elif token.kind == "name" or token.text.startswith('"'):
        name = token.text[1:-1].lower()
    else:
        return []
    return [i for i, other in enumerate(names) if other.lower() == name]


def _from(outer: Sequence[_Token], words: Sequence[str]) -> int | None:
    """Where the outermost query's FROM stands: not that of IS DISTINCT FROM, nor one in parentheses."""
    select = words.index("select") if "select" in words else len(words)
    for i in range(select + 2, len(words)):
        if words[i] == "from" and not (words[i - 1] == "distinct" and words[i - 2] in ("is", "not")):
            return outer[i].start
    return None
