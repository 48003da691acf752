"""What an answer is made of: values with units, names, lists, brackets, matrices. Text only; nothing is evaluated.

`read` cuts an answer at the signs that no bracket encloses, until what is left is one formula each, for the parser.
"""

from __future__ import annotations

import re
from dataclasses import replace

from dphrl.verifiers.math.cutting import bracketed, comma_groups, cut, environment, join_thousands, without_braces
from dphrl.verifiers.math.quantity import opaque, quantity
from dphrl.verifiers.math.records import AS_GOLD, Asked, Equation, Group, Named, Reading, Value, Words
from dphrl.verifiers.math.typeface import plain_typeface
from dphrl.verifiers.math.words import LABELS, OPERATORS, QUALIFIER, SAYINGS

_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_ONLY_WORDS = re.compile(r"(?:\\text\{[^{}]*\}|[\s.,;:!?()'\"-])+")
_LABEL = re.compile(r"\s*(?:\\text\{([^{}]*)\}|\\(?:approx|therefore|implies|Rightarrow|simeq|to)(?![A-Za-z])|[=:])\s*")
_WORD_NAME = re.compile(r"((?:\\text\{[^{}]*\}\s*)+)[=:]\s*(.+)", re.DOTALL)
_QUALIFIER = re.compile(QUALIFIER, re.DOTALL)
_PARAMETER = re.compile(r"\s*\(?[A-Za-z,\s]+?\\in\s*\\mathbb\s*\{?[A-Z]\}?(?:[\^_]\{?[+*-]\}?)?\)?\s*")
_ANY = re.compile(
    r"(?<![A-Za-z\\])([A-Za-z])\s*\$?\s*(?:\\in\s*\\(?:mathbb|mathbf|Bbb)|(?:\\text\s*\{)?\s*is an?y? )|"
    r"(?:integer|constant)s?\s*\}?\s*\$?\s*([A-Za-z])(?![A-Za-z])"
)
_OPERATORS = tuple(
    (re.compile(r"\s*" + re.sub(r"(?<![\\(?:=])\b([a-z]{2,})\b", r"\\\\text\\{\1\\}", words) + r"\s*"), sign)
    for words, sign in OPERATORS
)
_CONDITION = re.compile(r"^\\text\{(?:if|for|when|where)\}\s*(?=[^\s])|,$")
"""What a line of a piecewise formula may have about its condition."""
_IN_BRACKETS = re.compile(r"(?<=[\d} ])\(\s*((?:\\text\{[^{}]*\}\s*)+)\)$")
_ALL_BUT = re.compile(r"\\mathbb\s*\{?R\}?\s*(?:\\setminus|-)\s*\\\{([^{}]*)\\\}")
_RELATIONS = (
    "<", ">", r"\le", r"\ge", r"\ne", r"\ll", r"\gg", r"\subset", r"\subseteq", r"\notin", r"\not", r"\propto", r"\sim",
    r"\perp", r"\parallel", r"\to", r"\iff", r"\implies", "<=", ">=", "!=",
)  # fmt: skip
_GREEK = (
    "[Aa]lpha|[Bb]eta|[Gg]amma|[Dd]elta|epsilon|varepsilon|zeta|eta|[Tt]heta|iota|kappa|[Ll]ambda|mu|nu|[Xx]i|rho|"
    "[Ss]igma|tau|[Pp]hi|varphi|chi|[Pp]si|[Oo]mega|ell|hbar"
)
_SYMBOL = (
    rf"(?:[A-Za-z]|\\(?:{_GREEK})(?![A-Za-z])"
    r"|\\(?:hat|bar|tilde|dot|overline|widehat)\s*\{?\s*\\?[A-Za-z]+\s*\}?)"
)
_INDEX = r"(?:_(?:\{(?:[^{}]|\{[^{}]*\})*\}|\\?\w|\\[A-Za-z]+)|'|\^\s*\{\s*(?:-\s*1|'+|\([a-z\d]\)|\*)\s*\}|\^\*)*"
_CALLED = r"(?:\((?:[^()]|\([^()]*\))*\))?"
_NAME = re.compile(
    rf"\s*(?:{_SYMBOL}\s*{_INDEX}\s*{_CALLED}|[A-Z]{{2,3}}{_INDEX}|\\(?:angle|triangle|det)\s*[A-Z]{{1,3}}"
    r"|\|[A-Z]{1,2}\||\\frac\s*\{\s*(?:d|\\partial)[^{}]*\}\s*\{\s*(?:d|\\partial)[^{}]*\}"
    rf"|\[\s*{_SYMBOL}\s*\]{_INDEX}|\\text\{{[^{{}}]*\}}(?:\([^()]*\))?)\s*"
)
_MODULUS = re.compile(r"[\s,]*\(?\s*(?:\\p?[bp]?mod|\\text\{mod(?:ulo)?\})\s*\{?\s*([^{}()]+?)\s*\}?\s*\)?\s*$")
_CLOCK = re.compile(r"(\d{1,2}\s*:\s*\d{2}(?::\d{2})?)\s*(?:\\text\{([ap])\.?m\.?\})?", re.IGNORECASE)
_IDLE = (
    re.compile(r"[^:,]*(?:[<>]|\\[lg]e(?![a-z]))[^:,]*:\s*([(\[].+)", re.DOTALL),
    re.compile(r"\\\{\s*[a-z]\s*(?:\||:)\s*((?:(?!\\[{}]).)+?)\s*\\\}", re.DOTALL),
)
"""The inequality before an interval that says the same; the braces of {x | x > 0}."""


def read(answer: str, thousands: bool = True, asked: Asked = AS_GOLD) -> Reading:
    """Read an answer.

    Args:
        answer: cleaned (`plain_text.clean_answer`), of bounded length.
        thousands: whether 1,000 outside of brackets is one number.
        asked: what the gold answer says.
    """
    text = re.sub(r",\s*\\!\s*", "{,}", answer)
    text = plain_typeface(re.sub(r"(?<!\\)\$", " ", text))
    return _read(join_thousands(_operators(text), thousands), asked)


def parameters(answer: str) -> frozenset[str]:
    """The letters of which an answer says that they may be any number of a kind: k in k \\pi, k \\in \\mathbb{Z}."""
    return frozenset(one or other for one, other in _ANY.findall(answer))


def is_ambiguous(answer: str) -> bool:
    """Whether a comma stands between digits so that it may be a thousand's or a list's."""
    return comma_groups(answer)


def _operators(text: str) -> str:
    """Words between numbers as signs; words in brackets as words."""
    text = _IN_BRACKETS.sub(r"\1", text)
    for pattern, sign in _OPERATORS if r"\text" in text else ():
        text = pattern.sub(f" {sign} ", text)
    return text


def _read(text: str, asked: Asked) -> Reading:
    text = without_braces(text.strip().strip(";,"))
    while text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip()
    clock = _CLOCK.fullmatch(text)
    if clock:
        return Words(clock[1].replace(" ", "") + (f" {clock[2].lower()}m" if clock[2] else ""))
    if _ONLY_WORDS.fullmatch(text):
        words = _plain_words(text)
        return _read(SAYINGS[words], asked) if words in SAYINGS else Words(words)
    text = _without_label(text)
    if re.fullmatch(r"\\mathbb\s*\{?R\}?", text):
        return _read(SAYINGS["real numbers"], asked)
    all_but = _ALL_BUT.fullmatch(text)
    text = rf"x \ne {all_but[1]}" if all_but and "," not in all_but[1] else text
    for idle in _IDLE:
        match = idle.fullmatch(text)
        text = match[1] if match else text
    items = [item for item in cut(text, (",", ";", r"\text{and}", r"\text{or}", r"\\")) if item.strip()]
    if len(items) > 1:
        return _list(items, text, asked)
    return _single(items[0].strip() if items else text, asked)


def _plain_words(text: str) -> str:
    words = [word.lower().rstrip(".") for word in _TEXT.findall(text)]
    while len(words) > 1 and words[0] in LABELS and words[0] not in ("no", "there"):
        words = words[1:]
    return " ".join(words)


def _without_label(text: str) -> str:
    """The text behind words that announce a value."""
    position = 0
    while match := _LABEL.match(text, position):
        if match[1] is not None and match[1].lower().rstrip(".:") not in LABELS:
            break
        position = match.end()
    return text[position:] if text[position:].strip() else text


def _list(items: list[str], text: str, asked: Asked) -> Reading:
    qualified = [item for item in items if not _PARAMETER.fullmatch(item) and not _is_qualifier(item)]
    if len(qualified) == 1 or not qualified:
        return _read((qualified or items)[0], asked)
    spelled = [part for item in qualified for part in _both_signs(item)]
    readings = [_read(item, asked) for item in spelled]
    if r"\text{or}" in text and all(map(_is_relation, qualified)):
        return Group("cup", tuple(readings), text)
    first = readings[0]
    if isinstance(first, Named) and not any(isinstance(item, Named) for item in readings[1:]):
        return Named(first.name, Group("list", (first.value, *readings[1:]), text))  # x = 1, 2
    names = {item.name for item in readings if isinstance(item, Named)}
    if len(names) == 1 and all(isinstance(item, Named) for item in readings):
        return Named(
            names.pop(), Group("list", tuple(item.value for item in readings if isinstance(item, Named)), text)
        )
    return Group("list", tuple(readings), text)


def _is_qualifier(item: str) -> bool:
    return _QUALIFIER.fullmatch(" ".join(_TEXT.sub(r" \1 ", item).split())) is not None


def _unqualified(text: str) -> str:
    """The text before words that say for which values it holds."""
    for match in re.finditer(r"\\text\{(?:for|where|with)\}", text):
        if match.start() and _is_qualifier(text[match.start() :]):
            return text[: match.start()].rstrip(" ,(")
    every = re.search(r"\s*\(?\\forall(?![A-Za-z]).*", text, re.DOTALL)
    return text[: every.start()] if every and every.start() else text


def _both_signs(item: str) -> tuple[str, ...]:
    r"""2 \pm 1 as 2+1 and 2-1, where there is one such sign, outside of pairs."""
    if (
        item.count(r"\pm") != 1
        or r"\mp" in item
        or re.search(r"(?:[(\[]|\\\{).*,.*\\pm|\\pm.*,.*[)\]}]", item, re.DOTALL)
    ):
        return (item,)
    return tuple(re.sub(r"(^|=)\s*\+", r"\1", item.replace(r"\pm", sign).strip()) for sign in "+-")


def _single(text: str, asked: Asked) -> Reading:
    """A reading of what has no list outside of its brackets."""
    text = _unqualified(text)
    modulus = _MODULUS.search(text)
    if modulus and modulus.start():
        inner = _single(text[: modulus.start()].replace(r"\equiv", "="), asked)
        value = inner.value if isinstance(inner, Named) else inner
        return replace(value, modulus=modulus[1].strip()) if isinstance(value, Value) else Words(opaque(text))
    signs = _both_signs(text)
    if text.count(r"\pm") == 1 and (pair := bracketed(text)) and pair[0] == "(" and cut(pair[1], (",",))[1:]:
        signs = tuple(re.sub(r"([(,]\s*)\+", r"\1", text.replace(r"\pm", sign)) for sign in "+-")
    if len(signs) == 2:
        return _list(list(signs), text, asked)
    worded = _WORD_NAME.fullmatch(text)
    if worded:
        return Named(_plain_words(worded[1]), _read(worded[2], asked))
    sides = [side.strip() for side in cut(text, ("=", r"\in"), spare_relations=True)]
    if len(sides) > 1:
        return _equation(sides, text, asked)
    about = cut(text, (r"\approx", r"\simeq"))
    if len(about) == 2 and all(side.strip() for side in about):
        return Group("about", tuple(_read(side, asked) for side in about), text)
    for sign, kind in ((r"\cup", "cup"), (r"\cap", "cap")):
        parts = cut(text, (sign,))
        if len(parts) > 1:
            return Group(kind, tuple(_read(part, asked) for part in parts), text)
    if _is_relation(text):
        return Value(text) if not _TEXT.search(text) else Words(opaque(text))
    return _enclosed(text, asked) or _ratio(text) or quantity(text, asked)


def _equation(sides: list[str], text: str, asked: Asked) -> Reading:
    if not all(sides) or any(map(_is_relation, sides)):
        return Value(text) if all(sides) else _read(next(filter(None, sides), ""), asked)
    first, last = sides[0], sides[-1]
    if is_name(first):
        return Named(_name(first), _read(last, asked))
    if is_name(last):
        return Named(_name(last), _read(first, asked))
    return Equation((first, last))


def is_name(side: str) -> bool:
    """Whether a side of an equation is a name: a symbol, f(x), dy/dx, (p, q), V_1 : V_2."""
    if _NAME.fullmatch(side):
        return not re.fullmatch(r"\s*(?:[ei]|\\pi)\s*", side)
    inside = bracketed(side)
    parts = cut(inside[1], (",",)) if inside else cut(side, (":",))
    return len(parts) > 1 and all(_NAME.fullmatch(part) for part in parts)


def _name(side: str) -> str:
    return re.sub(r"[\s{}]|\\text", "", side)


def _is_relation(text: str) -> bool:
    return len(cut(text, _RELATIONS)) > 1


def _enclosed(text: str, asked: Asked) -> Reading | None:
    """Brackets, braces and environments that hold the whole text."""
    rows = environment(text)
    if rows is not None:
        kind, lines = rows
        cells = [[cell.strip() for cell in cut(line, ("&",))] for line in lines if line.strip()]
        if kind == "cases":
            cells = [[_CONDITION.sub("", cell) for cell in line] for line in cells]
        if kind == "cases" and all(len(line) == 1 for line in cells):
            return _list([line[0] for line in cells], text, asked)
        grid = tuple(Group("row", tuple(_read(cell, asked) for cell in line), text) for line in cells)
        return Group(kind, grid, text)
    inside = bracketed(text)
    if inside is None:
        return None
    left, content, right = inside
    parts = cut(content, (",", ";"))
    if left == r"\{" and not content.strip():
        return Value(r"\emptyset")
    if left == r"\{":
        spelled = [sign for part in parts if part.strip() for sign in _both_signs(part)]
        return Group("set", tuple(_read(part, asked) for part in spelled), text)
    if len(parts) > 1:
        return Group(left + right, tuple(_read(part, asked) for part in parts), text)
    return _read(content, asked) if left + right == "()" or cut(content, ("=",))[1:] else None


def _ratio(text: str) -> Reading | None:
    parts = cut(text, (":",))
    if len(parts) < 2 or not all(part.strip() for part in parts) or _TEXT.search(text):
        return None
    if len(parts) == 2:
        return Value(rf"\frac{{{parts[0]}}}{{{parts[1]}}}")
    return Group("ratio", tuple(Value(part.strip()) for part in parts), text)
