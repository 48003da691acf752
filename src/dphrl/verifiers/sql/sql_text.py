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

_FENCE = "```"
_SQL = re.compile(_FENCE + r"sql\b", re.IGNORECASE)
_CURRENT_YEAR = re.compile(r"year\s*\(\s*curdate\s*\(\s*\)\s*\)\s*", re.IGNORECASE)
_SPLIT_OPERATORS = {"> =": ">=", "< =": "<=", "! =": "!="}

# Possessive quantifiers (+ after * or ?) never give back what they took: no backtracking, hence linear.
_PLAIN_START = re.compile(r"\s*+([a-zA-Z]++)(?![\w$])")
_TOKEN = re.compile(
    r"""
      (?P<space> [\s\ufeff]++ | --[^\n]*+ | /\*.*?(?:\*/|\Z) )
    | (?P<text>  '[^']*+(?:''[^']*+)*+'?+ | "[^"]*+(?:""[^"]*+)*+"?+ )
    | (?P<name>  `[^`]*+(?:``[^`]*+)*+`?+ | \[[^\]]*+\]?+ )
    | (?P<number> \d++(?:\.\d*+)?+ )
    | (?P<word>  [^\W\d][\w$]*+ )
    | (?P<sign>  . )
    """,
    re.DOTALL | re.VERBOSE,
)
_DISTINCT = re.compile(
    r"""
      (?P<kept> --[^\n]*+ | /\*.*?(?:\*/|\Z) | '[^']*+'?+ | "[^"]*+"?+ | `[^`]*+`?+ | \[[^\]]*+\]?+ )
    | (?<![\w$]) distinct (?![\w$])
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


def extract_sql(completion: str) -> str:
    """The query a completion answers with: its last ```sql block, or all of it when there is no fence at all.

    Args:
        completion: text of a completion.
    Returns:
        The query, stripped; '' when there is none. A last block that is not closed (cut at the token limit, or a stop
        text ate the fence) reaches to the end. Fences of other languages alone hold no answer.
    """
    fence = completion.rfind(_FENCE)
    if fence < 0:
        return completion.strip()
    while not _SQL.match(completion, fence):  # nothing else in a run of backticks can stand before a word
        fence = completion.rfind(_FENCE, 0, fence)
        if fence < 0:
            return ""
    start = fence + len(_FENCE) + len("sql")
    end = completion.find(_FENCE, start)
    return completion[start : end if end >= 0 else None].strip()


def tokens(sql: str) -> Iterator[tuple[str, str]]:
    """(kind, text) of every token: space (comments too), text (quoted), name, number, word, sign."""
    return ((match.lastgroup or "", match.group()) for match in _TOKEN.finditer(sql))


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


def without_distinct(sql: str) -> str:
    """The query with every DISTINCT taken out, count(DISTINCT x) included, as the Spider test-suite script does."""
    return _DISTINCT.sub(lambda match: match["kept"] or "", sql) if "distinct" in sql.lower() else sql


def spider_rewrites(sql: str) -> str:
    """Repairs the Spider test-suite script makes in both queries: split operators, MySQL's current year (2020)."""
    for split, operator in _SPLIT_OPERATORS.items():
        sql = sql.replace(split, operator)
    return _CURRENT_YEAR.sub("2020", sql) if "curdate" in sql.lower() else sql


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
