"""Where SQL statements begin and end in a text that may hold prose, too. Linear in the length of the text."""

from __future__ import annotations

import re

from dphrl.verifiers.sql.sql_text import tokens

_NAME = r"(?: [\w$]++ | \"[^\"\n]*+\" | `[^`\n]*+` | \[[^\]\n]*+\] )"
_STATEMENT = re.compile(
    rf"""
      select \b \s*+ [^\s:;.,!?)]
    | values \s*+ \(
    | with \s++ (?:recursive \s++)?+ {_NAME} \s*+ (?: \( [^()]*+ \) \s*+ )?+
      as \s*+ (?: (?:not\s++)?materialized \s*+ )?+ \(
    | explain \s++ (?: query \s++ plan \s++ )?+ (?: select | with | values | insert | update | delete ) \b
    | (?: insert | replace ) \s++ (?: or \s++ \w++ \s++ )?+ into \b
    | delete \s++ from \b
    | update \s++ (?: or \s++ \w++ \s++ )?+ {_NAME} \s++ set \b
    | (?: drop | create ) \s++ (?: (?: temp | temporary | unique | virtual ) \s++ )?+
      (?: table | view | index | trigger ) \b
    | alter \s++ table \b
    | (?: attach | detach ) \s++ (?: database \b | ['"] )
    | pragma \s++ \w++ \s*+ (?: = | \( | \. | ; | \Z )
    | vacuum \s*+ (?: into \b | ; | \Z )
    | (?: reindex | analyze | begin | commit | end | rollback ) \s*+ (?: transaction \s*+ )?+ (?: ; | \Z )
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""How a statement begins, told from prose that begins with the same word."""
_FIRST = re.compile(
    r"""
    (?<![\w$.('"`\[])
    (?: select | values | with | explain | insert | replace | delete | update | drop | create | alter | attach | detach
      | pragma | vacuum | reindex | analyze | begin | commit | end | rollback )
    (?![\w$])
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""First words of statements."""
_PREFIX = re.compile(
    r"""
    (?! [^\n]*-- )
    (?: [^\n]*: | [^\n]*\*/ | \s*\w*> | [ \t]*\d+[.)] | [ \t]*sql(?:ite)? )?
    [\s>*_\u2022]* (?: -[ ] )?
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""What may stand before a statement on its line: nothing, a label with a colon, a comment, a prompt, a bullet."""
_MAX_PREFIX = 200
"""Characters before a statement that are looked at."""

_WORDS = """
all and as asc between by case cast collate cross desc distinct else end escape except exists explain filter first
following for from full glob group having in indexed inner intersect is isnull join last left like limit match
materialized natural not notnull null nulls offset on or order outer over partition preceding range recursive regexp
right row rows select then unbounded union using values when where window with
"""
_KEYWORDS = frozenset(_WORDS.split())
_CAN_END = frozenset({"asc", "desc", "end", "null", "isnull", "notnull", "first", "last"})
"""Keywords that a query can end with."""
_PROSE = re.compile(
    r"[A-Z][a-z']++ (?: [ \t]++ [\w(`\"'] | [:,.!] ) | \w++ : (?![:\w]) | \*\* | \#{1,6}[ ] | <[/|a-zA-Z]", re.VERBOSE
)
_PROSE_OF_A_PARAGRAPH = re.compile(r"[A-Za-z']++ [ \t]++ [A-Za-z`] | [-*\u2022>|][ ] | \d++[.)][ ]", re.VERBOSE)
"""How a line of prose begins below a query, and how, after an empty line, a paragraph."""
_NOTHING = re.compile(r"(?: [\s;\ufeff] | --[^\n]*+ | /\*.*?(?:\*/|\Z) )*+", re.VERBOSE | re.DOTALL)
_FIRST_WORD = re.compile(r"[A-Za-z]+")


def last_statement(text: str, *, closed: bool) -> str | None:
    """The last SQL statement of a text.

    Args:
        text: SQL, perhaps with prose before it and behind its semicolon.
        closed: whether all of it was marked as SQL. Else prose may also follow without a semicolon, on a line of its
            own, and a query may follow a query.
    Returns:
        The statement without the semicolon that ends it; None when there is none. Statements with nothing but a
        semicolon between them stay together, and so does what a semicolon tears apart: SQLite will refuse them.
    """
    simple = ";" not in text and (closed or "\n" not in text)
    found = None
    start = _next_start(text, 0)
    while start is not None:
        end = len(text) if simple else _end(text, start, closed=closed)
        found = (start, end)
        start = _next_start(text, end)
    return None if found is None else text[found[0] : found[1]].strip()


def begins_statement(text: str, at: int) -> bool:
    """Whether a statement is the first that stands at a place or behind it, but for space and comments."""
    return _STATEMENT.match(text, _skip(text, at)) is not None


def _next_start(text: str, at: int) -> int | None:
    at = _skip(text, at)
    if _STATEMENT.match(text, at):
        return at
    for match in _FIRST.finditer(text, at):
        start = match.start()
        line = max(text.rfind("\n", max(at, start - _MAX_PREFIX), start) + 1, at, start - _MAX_PREFIX)
        if _PREFIX.fullmatch(text, line, start) and _STATEMENT.match(text, start):
            return start
    return None


def _skip(text: str, at: int) -> int:
    """The next place where there is something: no space, no semicolon, no comment."""
    match = _NOTHING.match(text, at)
    return match.end() if match else at


def _end(text: str, start: int, *, closed: bool) -> int:
    """Where the statement that begins at `start` ends."""
    at, depth, previous = start, 0, ""
    first = text[start : start + 6].lower()
    is_query = first.startswith(("select", "values", "with"))
    complete = not first.startswith("with")  # the query that WITH is for is still to come
    for kind, token in tokens(text, start):
        if token == ";":
            return len(text) if _goes_on(text, _skip(text, at)) else at
        after = at + len(token)
        if kind != "space":
            depth += {"(": 1, ")": -1}.get(token, 0)
            previous = token.lower()
            complete = complete or (not depth and previous in ("select", "values"))
        elif not closed and "\n" in token and not depth and complete and _can_end(previous):
            another = is_query and _STATEMENT.match(text, after)
            if another or _prose_begins(text, after, paragraph=token.count("\n") > 1):
                return at
        at = after
    return len(text)


def _goes_on(text: str, at: int) -> bool:
    """Whether what stands behind a semicolon is SQL."""
    word = _FIRST_WORD.match(text, at)
    in_query = word is not None and word[0].lower() in _KEYWORDS and not word[0].istitle()
    return in_query or _STATEMENT.match(text, at) is not None


def _can_end(token: str) -> bool:
    return (token not in _KEYWORDS or token in _CAN_END) and token not in ",(+-*/%<>=|&~!."


def _prose_begins(text: str, at: int, *, paragraph: bool) -> bool:
    word = _FIRST_WORD.match(text, at)
    if word and word[0].lower() in _KEYWORDS:
        return False
    return bool(_PROSE.match(text, at) or (paragraph and _PROSE_OF_A_PARAGRAPH.match(text, at)))
