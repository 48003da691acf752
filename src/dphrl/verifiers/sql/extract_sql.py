"""The one query that a completion answers with. Every function is linear in the length of the text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from dphrl.verifiers.sql.statements import begins_statement, last_statement

_TAGS = r"(?: final_answer | final_query | answer | solution | sql_query | sql | query )"
_THOUGHT = re.compile(r"<(/?)(?:think|thinking|thoughts?|reasoning)>", re.IGNORECASE)
_MARKS = rf"(?<=`)(?P<fence>``+) | (?<=~)(?P<tildes>~~+) | (?<=<)(?P<close>/?){_TAGS}>"
_MARK = re.compile(rf"[`~<] (?: {_MARKS} )", re.IGNORECASE | re.VERBOSE)
"""A fence or a tag; patterns begin with a set of characters, as that is what Python's `re` finds fast."""
_MARK_IN_SQL = re.compile(
    rf"""
    [`~<'"/-] (?:
        {_MARKS}
      | (?<=-) - (?: [^\n`<] | `(?!``) | <(?!/) )*+
      | (?<=/) \* (?: [^*`<] | \*(?!/) | `(?!``) | <(?!/) )*+ (?:\*/)?+
      | (?<=') [^'\n]*+' | (?<=") [^"\n]*+" | (?<=`) [^`\n]++`
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""The same, or what hides them: a string, a quoted name, a comment; a comment hides neither."""
_INFO = re.compile(
    r"[ \t]*+ \{?+ \.?+ (?P<language> [A-Za-z][\w+\#/.-]*+ )?+ (?P<rest> [^\n`~]*+ ) (?P<newline> \n )?+", re.VERBOSE
)
"""What stands behind a fence that opens."""
_DIALECTS = frozenset({"duckdb", "mariadb", "bigquery", "snowflake", "oracle", "hive", "db2", "trino", "presto"})
_PLAIN = frozenset({"", "text", "txt", "plain", "plaintext", "code", "query"})
"""Languages of blocks that hold a query where their text is one."""
_LANGUAGE = re.compile(r"[A-Za-z][\w+#/.-]*+")
_INLINE = re.compile(r"(?<!`)(`{1,2})(?!`)([^\n]+?)(?<!`)\1(?!`)")
_JSON = re.compile(r'"(?P<key>[\w -]{1,40})" \s*+ : \s*+ (?P<value>"(?:[^"\\]|\\.)*+")', re.VERBOSE | re.DOTALL)
_ANSWERS = re.compile(r"sql|query|answer|solution", re.IGNORECASE)
"""In the name of a value that is an answer."""
_END = re.compile(r"<\|(?:im_end|endoftext|end_of_text|eot_id|eom_id|end)\|>|</s>|<end_of_turn>|<eos>")
"""Tokens that end an answer, where they were left in its text."""
_FROM = re.compile(r"\bfrom\b", re.IGNORECASE)


_USUAL = re.compile(
    r"""
    [^`~<]*+ ```sql\n \s*+
    ( select \s++ [^\s:;.,!?)`~<'"] [^`~;<'"]*+
      (?: (?: <(?!/) | '[^'`~;\n]*+' | "[^"`~;\n]*+" ) [^`~;<'"]*+ )*+ )
    ;? \s*+ ``` (?![A-Za-z]) [^`~<]*+
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""What nearly all completions look like, read at once; `extract_sql` finds the same without."""


def extract_sql(completion: str) -> str:
    """The query that a completion answers with.

    It is the last query in a fenced block (of SQL, or of no language) or in a tag such as <answer>; without any, the
    last one in the text: on lines of its own or behind a label ("SQL: "), else in JSON ({"sql": "..."}), else as inline
    code. Thoughts (<think>) hold no answer; prose behind the query's semicolon does not count.

    Args:
        completion: text of a completion.
    Returns:
        The query, stripped, without its semicolon; '' when there is none: blocks of other languages alone, or a last
        block of SQL that was begun and is empty. A text without blocks and queries is returned as it is, and so is the
        last block of SQL where no block is a query: SQLite will say what is wrong with it.
    """
    usual = _USUAL.fullmatch(completion)
    return usual[1].strip() if usual else _extracted(_spoken(completion))


def _extracted(text: str) -> str:
    """The answer of a text without thoughts."""
    found: str | None = None
    other: str | None = None
    outside = []
    for part in _parts(text):
        if not part.marked:
            outside.append(part.text)
            continue
        query = _query(part.text, closed=part.closed) if part.may_hold else None
        if query is not None:
            found = query
        elif part.is_sql:
            other = part.text.strip()
            if not part.closed and not other:
                found = ""
    if found is not None:
        return found
    rest = "\n".join(outside)
    query = _query(rest, closed=False)
    if query is None and "{" in text:
        query = _in_json(text)
    if query is not None:
        return query
    if other is not None:
        return other
    return text.strip() if len(outside) == 1 and outside[0] == text else ""


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of a completion."""

    text: str
    marked: bool = False
    """Whether it is in a block or a tag."""
    may_hold: bool = False
    """Whether it is of a kind that holds a query."""
    is_sql: bool = False
    """Whether it is said to be SQL."""
    closed: bool = False


def _spoken(completion: str) -> str:
    """The text up to its end, without thoughts; their end without a beginning (the prompt had that) ends what was
    before it."""
    if "<" not in completion:
        return completion
    completion = _END.split(completion, maxsplit=1)[0]
    kept: list[str] = []
    start, thinking = 0, False
    for match in _THOUGHT.finditer(completion):
        closes = bool(match[1])
        if closes and not thinking:
            kept.clear()
        elif not thinking:
            kept.append(completion[start : match.start()])
        start, thinking = match.end(), not closes
    return completion if not start else "".join(kept) + ("" if thinking else completion[start:])


def _parts(text: str) -> Iterator[_Part]:
    """The blocks and tags of a text, and what is around them."""
    if not _MARK.search(text):  # all of it, at once
        yield _Part(text)
        return
    at = before = 0
    while (mark := _next_mark(text, at)) is not None:
        at = mark.end()
        if mark["close"]:
            continue
        yield _Part(text[before : mark.start()])
        if mark["close"] is None:
            part, at = _block(text, mark)
        else:
            following = _next_mark(text, at)
            end = following.start() if following else len(text)
            part, at = _Part(text[at:end], marked=True, may_hold=True), end
        yield part
        before = at
    yield _Part(text[before:])


def _next_mark(text: str, at: int) -> re.Match[str] | None:
    """The next fence or tag; none in a string of SQL, where SQL begins at once or on the mark's line."""
    start = at
    if not begins_statement(text, at):
        mark = _MARK.search(text, at)
        start = max(text.rfind("\n", at, mark.start()) + 1, at) if mark else at
        if mark is None or not begins_statement(text, start):
            return mark
    return next((mark for mark in _MARK_IN_SQL.finditer(text, start) if mark.lastgroup), None)


def _block(text: str, mark: re.Match[str]) -> tuple[_Part, int]:
    """The block that a fence opens, and where the text goes on."""
    info = _INFO.match(text, mark.end())
    assert info is not None  # it matches the empty text
    language = (info["language"] or "").lower()
    if begins_statement(text, mark.end()):
        language, start = "", mark.end()
    elif info["newline"] and not begins_statement(text, info.start("rest")):
        start = info.end()
    else:
        start = info.start("rest")
    kind = "fence" if mark["fence"] else "tildes"
    marks = (one for one in _MARK_IN_SQL.finditer(text, start) if one[kind] or one["close"])
    end = next(marks, None)
    content = text[start : end.start() if end else len(text)]
    reopens = end is not None and (end["close"] or _opens_sql(text, end.end()))
    after = len(text) if end is None else end.start() if reopens else end.end()
    is_sql = _is_sql(language)
    return _Part(_unquoted(content), True, is_sql or language in _PLAIN, is_sql, end is not None), after


def _is_sql(language: str) -> bool:
    return "sql" in language or language in _DIALECTS


def _opens_sql(text: str, at: int) -> bool:
    """Whether SQL's name stands right behind a fence, which so opens a block, even within another."""
    name = _LANGUAGE.match(text, at)
    return name is not None and _is_sql(name[0].lower())


def _unquoted(block: str) -> str:
    """A block without the > of a quotation, where all its lines have one."""
    if not block.lstrip().startswith(">"):
        return block
    lines = [line.lstrip() for line in block.split("\n")]
    return "\n".join(line[1:] for line in lines) if all(line[:1] in ("", ">") for line in lines) else block


def _query(text: str, *, closed: bool) -> str | None:
    """The last query of a text that is a block, or has none: a statement, else inline code that is one."""
    query = last_statement(text, closed=closed)
    if query is None and "`" in text:
        snippets = [match[2].strip() for match in _INLINE.finditer(text)]
        queries = [one for one in (last_statement(snippet, closed=True) for snippet in snippets) if one]
        # a part of a query is quoted too where it is explained
        query = next((one for one in reversed(queries) if _FROM.search(one)), queries[-1] if queries else None)
    return query


def _in_json(text: str) -> str | None:
    """The last query that is a value of JSON."""
    for match in reversed(list(_JSON.finditer(text))):
        try:
            query = last_statement(json.loads(match["value"]), closed=True) if _ANSWERS.search(match["key"]) else None
        except ValueError:
            continue
        if query is not None:
            return query
    return None
