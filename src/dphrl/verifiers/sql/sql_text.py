"""What is read off the text of SQL without a database. Every function is linear in the length of the text.

A tokenizer of SQLite's lexical rules, no parser: enough to skip strings and comments and to follow parentheses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_SQL = 100_000
"""Characters of the longest query that is run."""
QUERIES = frozenset({"select", "with", "values"})
"""First words of statements that can be a query."""

# Possessive quantifiers (+ after * or ?) never give back what they took: no backtracking, hence linear.
_LETTER = r"a-zA-Z_\x80-\U0010ffff"
"""In names, SQLite takes every character beyond ASCII for a letter, typographic quotes and spaces too."""
_SPACE = r"[ \t\n\f\r\ufeff]++ | --[^\n]*+ | /\*.*?(?:\*/|\Z)"
_TEXT = r"""'[^']*+(?:''[^']*+)*+'?+ | "[^"]*+(?:""[^"]*+)*+"?+"""
_NAME = r"`[^`]*+(?:``[^`]*+)*+`?+ | \[[^\]]*+\]?+"
_PLAIN_START = re.compile(rf"[ \t\n\f\r]*+([a-zA-Z]++)(?![{_LETTER}0-9$])")
_TOKEN = re.compile(
    rf"""
      (?P<space> {_SPACE} )
    | (?P<text> {_TEXT} )
    | (?P<name> {_NAME} )
    | (?P<number> [0-9]++(?:\.[0-9]*+)?+ )
    | (?P<word> [{_LETTER}][{_LETTER}0-9$]*+ )
    | (?P<sign> [@:\#$][{_LETTER}0-9$]++ | . )
    """,
    re.DOTALL | re.VERBOSE,
)
_REPAIRED = re.compile(
    rf"""
      (?P<kept> {_SPACE} | {_TEXT} | {_NAME} | [{_LETTER}][{_LETTER}0-9$]*+ (?<! year ) )
    | (?P<operator> [<>!] )[ ]=
    | (?P<year> (?<![{_LETTER}0-9$]) year ) (?:{_SPACE})*+ \( (?:{_SPACE})*+ curdate (?:{_SPACE})*+
      \( (?:{_SPACE})*+ \) (?:{_SPACE})*+ \)
    """,
    re.DOTALL | re.VERBOSE | re.IGNORECASE,
)
_MOMENT = re.compile(
    r"""
      \b(?: now | current_date | current_time | current_timestamp | random | randomblob )\b
    | \b(?: date | time | datetime | julianday | unixepoch ) \s*+ \( \s*+ \)
    | \b strftime \s*+ \( \s*+ '[^']*+' \s*+ \)
    """,
    re.IGNORECASE | re.VERBOSE,
)


def tokens(sql: str, start: int = 0) -> Iterator[tuple[str, str]]:
    """(kind, text) of every token from `start` on: space (comments too), text (quoted), name, number, word, sign."""
    return ((match.lastgroup or "", match.group()) for match in _TOKEN.finditer(sql, start))


def first_word(sql: str) -> str:
    """Lower-case first token that is neither space nor comment; '' when there is none."""
    if match := _PLAIN_START.match(sql):  # nearly always; a tenth of the time
        return match[1].lower()
    return next((text.lower() for kind, text in tokens(sql) if kind != "space"), "")


def orders_rows(sql: str) -> bool:
    """Whether the outermost query has ORDER BY, so that the order of its rows is part of the answer.

    An ORDER BY within parentheses (subquery, CTE, window) does not fix the order of the result.
    """
    depth, previous = 0, ""
    for kind, text in tokens(sql):
        if kind == "space":
            continue
        depth += {"(": 1, ")": -1}.get(text, 0) if kind == "sign" else 0
        word = text.lower() if kind == "word" and depth == 0 else ""
        if (previous, word) == ("order", "by"):
            return True
        previous = word
    return False


def one_statement(sql: str) -> str:
    """The query without semicolons, comments and space behind it; as it is where a semicolon stands within it."""
    end, at = None, 0
    for kind, text in tokens(sql) if ";" in sql else ():
        if text == ";":
            end = at if end is None else end
        elif kind != "space" and end is not None:
            return sql
        at += len(text)
    return sql[:end]


def without_distinct(sql: str) -> str:
    """The query with every DISTINCT taken out, count(DISTINCT x) included, as the Spider test-suite script does; but
    IS [NOT] DISTINCT FROM is an operator, and stays."""
    if "distinct" not in sql.lower():
        return sql
    kept, before, last = [], "", ""
    for kind, text in tokens(sql):
        word = text.lower() if kind != "space" else ""
        operator = last == "is" or (before, last) == ("is", "not")
        kept.append(" " if word == "distinct" and not operator else text)  # a space, so that its neighbours stay two
        if word:
            before, last = last, word
    return "".join(kept)


def spider_rewrites(sql: str) -> str:
    """Repairs the Spider test-suite script makes in both queries: split operators, MySQL's current year (2020)."""
    if "> =" not in sql and "< =" not in sql and "! =" not in sql and "curdate" not in sql.lower():
        return sql
    return _REPAIRED.sub(_repair, sql)


def _repair(match: re.Match[str]) -> str:
    if match["year"]:
        return "(2020)"
    return f"{match['operator']}=" if match["operator"] else match["kept"]


def asks_the_moment(sql: str) -> bool:
    """Whether a query may return something else when it is run again later: it asks for the time, or for chance.

    Wrong only in one direction: a column called "now" counts, too.
    """
    return _MOMENT.search(sql) is not None


def canonical_sql(sql: str) -> str:
    """The query with space, comments, letter case outside quotes and trailing semicolons made equal.

    Two queries with the same form differ in writing only; "..." keeps its case, as SQLite may read it as a string.
    """
    parts = [text if kind == "text" else text.lower() for kind, text in tokens(sql) if kind != "space"]
    while parts and parts[-1] == ";":
        parts.pop()
    return " ".join(parts)
