"""What an answer is made of: values with their units, names, lists, brackets, matrices. Text only; nothing is evaluated.

`read` cuts an answer at the signs that no bracket encloses, until what is left is one formula each, for the parser.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from dphrl.verifiers.math.cutting import bracketed, comma_groups, cut, environment, join_thousands
from dphrl.verifiers.math.typeface import plain_typeface
from dphrl.verifiers.math.units import UNITS, Unit, read_unit
from dphrl.verifiers.math.words import LABELS, OPERATORS, QUALIFIER, SAYINGS, SCALES


@dataclass(frozen=True, slots=True)
class Value:
    """One formula, and what stands beside it."""

    latex: str
    unit: Unit = ()
    nouns: tuple[str, ...] = ()
    """Words behind the number that are in no list of units."""
    percent: bool = False
    base: str = ""
    """Of a numeral, as digits; '' when none is written."""
    modulus: str = ""


@dataclass(frozen=True, slots=True)
class Named:
    """A name and what it is: x = 5."""

    name: str
    value: Reading


@dataclass(frozen=True, slots=True)
class Equation:
    """Two sides of which neither is a name."""

    sides: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Group:
    """Several readings: `list` and `set` in any order, as are `cup` and `cap`; by place a pair of brackets, `compound`
    (5 feet 6 inches), `matrix`, `cases`, `row`."""

    kind: str
    items: tuple[Reading, ...]
    latex: str


@dataclass(frozen=True, slots=True)
class Words:
    """Words, or what is not understood: compared as text."""

    text: str


Reading = Value | Named | Equation | Group | Words

ANY_ORDER = frozenset({"list", "set", "cup", "cap"})
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
_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|ll|gg|subset|subseteq|notin|not|propto|sim|perp|parallel|to|iff|implies)(?![A-Za-z])")
_SYMBOL = r"(?:[A-Za-z]|\\(?:[Aa]lpha|[Bb]eta|[Gg]amma|[Dd]elta|epsilon|varepsilon|zeta|eta|[Tt]heta|iota|kappa|[Ll]ambda|mu|nu|[Xx]i|rho|[Ss]igma|tau|[Pp]hi|varphi|chi|[Pp]si|[Oo]mega|ell|hbar)(?![A-Za-z])|\\(?:hat|bar|tilde|dot|overline|widehat)\s*\{?\s*\\?[A-Za-z]+\s*\}?)"
_INDEX = r"(?:_(?:\{(?:[^{}]|\{[^{}]*\})*\}|\\?\w|\\[A-Za-z]+)|'|\^\s*\{\s*(?:-\s*1|'+|\([a-z\d]\)|\*)\s*\}|\^\*)*"
_NAME = re.compile(
    rf"\s*(?:{_SYMBOL}\s*{_INDEX}\s*(?:\((?:[^()]|\([^()]*\))*\))?|[A-Z]{{2,3}}{_INDEX}|\\(?:angle|triangle|det)\s*[A-Z]{{1,3}}|\|[A-Z]{{1,2}}\|"
    rf"|\\frac\s*\{{\s*(?:d|\\partial)[^{{}}]*\}}\s*\{{\s*(?:d|\\partial)[^{{}}]*\}}|\[\s*{_SYMBOL}\s*\]{_INDEX}|\\text\{{[^{{}}]*\}}(?:\([^()]*\))?)\s*"
)
_BASE = re.compile(r"\(?\s*([0-9A-Fa-f]*[0-9][0-9A-Fa-f]*|[A-F]{2,})\s*\)?\s*_\s*\{?\s*(?:\\text\{)?\s*(\d+|[a-z]+)\s*\}*")
_BASES = {word: str(n) for n, word in enumerate("two three four five six seven eight nine ten eleven twelve".split(), 2)}
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\{(?:percent|percentage|pct)\}|\\text\{per\}\s*\\text\{cent\})\s*$")
_CURRENCY = re.compile(r"\s*([-+]?)\s*(?:(?:US|U\.S\.)?\\\$|\\text\{(euro|pound|USD|EUR|Rs|yen)\})\s*([-+]?)(?=\s*[\d.\\])")
_MODULUS = re.compile(r"[\s,]*\(?\s*(?:\\p?[bp]?mod|\\text\{mod(?:ulo)?\})\s*\{?\s*([^{}()]+?)\s*\}?\s*\)?\s*$")
_CLOCK = re.compile(r"(\d{1,2}\s*:\s*\d{2}(?::\d{2})?)\s*(?:\\text\{([ap])\.?m\.?\})?", re.IGNORECASE)
_TAIL = re.compile(r"\\text\{|\^\s*\{?\s*\\circ|\\mu\s*\\text")
_LETTER_UNIT = re.compile(r"(.*[\d})])(\s*)((?:[A-Za-zµ]{1,3}(?:\s*\^\s*\{?-?\d\}?)?\s*/?\s*)+)", re.DOTALL)
_ORDINAL = re.compile(r"(\d+)\s*\^?\s*\{?\s*(?:\\text\{(?:st|nd|rd|th)\}|(?:st|nd|rd|th))\s*\}?")
_NEXT_NUMBER = re.compile(r"(?<![\d^{_.])(?:\d|\\frac|\\sqrt)")
_CONSTANT = re.compile(r"(?:\\(?:frac|sqrt|pi|cdot|binom|ln|log|text\{\})(?![A-Za-z])|[\d\s.,+*/^{}()\[\]\\!-]|\bi\b|\be\b)*")
_IDLE = (
    re.compile(r"[^:,]*(?:[<>]|\\[lg]e(?![a-z]))[^:,]*:\s*([(\[].+)", re.DOTALL),
    re.compile(r"\\\{\s*[a-z]\s*(?:\||:)\s*((?:(?!\\[{}]).)+?)\s*\\\}", re.DOTALL),
)
"""The inequality before an interval that says the same; the braces of {x | x > 0}."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the gold answer says about how an answer is to be read."""

    variables: frozenset[str] | None = None
    """Its letters that are variables, no units; None = of all letters (the gold answer itself)."""
    units: frozenset[str] = frozenset()
    """Names of its units, which an answer may write as bare letters."""


def read(answer: str, thousands: bool = True, asked: Asked = Asked()) -> Reading:
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
    for pattern, sign in _OPERATORS if r"\text" in text else ():
        text = pattern.sub(lambda match, sign=sign: f" {match.expand(sign)} ", text)
    return text


def _read(text: str, asked: Asked) -> Reading:
    text = text.strip().strip(";,").strip()
    while text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip()
    clock = _CLOCK.fullmatch(text)
    if clock:
        return Words(clock[1].replace(" ", "") + (f" {clock[2].lower()}m" if clock[2] else ""))
    if _ONLY_WORDS.fullmatch(text):
        words = _plain_words(text)
        return _read(SAYINGS[words], asked) if words in SAYINGS else Words(words)
    text = _without_label(text)
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
    if r"\text{or}" in text and all(_RELATION.search(item) for item in qualified):
        return Group("cup", tuple(readings), text)
    first = readings[0]
    if isinstance(first, Named) and not any(isinstance(item, Named) for item in readings[1:]):
        return Named(first.name, Group("list", (first.value, *readings[1:]), text))  # x = 1, 2
    names = {item.name for item in readings if isinstance(item, Named)}
    if len(names) == 1 and all(isinstance(item, Named) for item in readings):
        return Named(names.pop(), Group("list", tuple(item.value for item in readings if isinstance(item, Named)), text))
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
    if item.count(r"\pm") != 1 or r"\mp" in item or re.search(r"(?:[(\[]|\\\{).*,.*\\pm|\\pm.*,.*[)\]}]", item, re.DOTALL):
        return (item,)
    return tuple(re.sub(r"(^|=)\s*\+", r"\1", item.replace(r"\pm", sign).strip()) for sign in "+-")


def _single(text: str, asked: Asked) -> Reading:
    """A reading of what has no list outside of its brackets."""
    text = _unqualified(text)
    modulus = _MODULUS.search(text)
    if modulus and modulus.start():
        inner = _single(text[: modulus.start()].replace(r"\equiv", "="), asked)
        value = inner.value if isinstance(inner, Named) else inner
        return replace(value, modulus=modulus[1].strip()) if isinstance(value, Value) else Words(_opaque(text))
    signs = _both_signs(text)
    if len(signs) == 2:
        return _list(list(signs), text, asked)
    worded = _WORD_NAME.fullmatch(text)
    if worded:
        return Named(_plain_words(worded[1]), _read(worded[2], asked))
    sides = [side.strip() for side in cut(text, ("=", r"\in"), spare_relations=True)]
    if len(sides) > 1:
        return _equation(sides, text, asked)
    for sign, kind in ((r"\cup", "cup"), (r"\cap", "cap")):
        parts = cut(text, (sign,))
        if len(parts) > 1:
            return Group(kind, tuple(_read(part, asked) for part in parts), text)
    if _RELATION.search(text):
        return Value(text) if not _TEXT.search(text) else Words(_opaque(text))
    return _enclosed(text, asked) or _ratio(text) or _quantity(text, asked)


def _equation(sides: list[str], text: str, asked: Asked) -> Reading:
    if not all(sides) or any(_RELATION.search(side) for side in sides):
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
    parts = cut(inside[1], (",",)) if inside else cut(side, (":", ))
    return len(parts) > 1 and all(_NAME.fullmatch(part) for part in parts)


def _name(side: str) -> str:
    return re.sub(r"[\s{}]|\\text", "", side)


def _enclosed(text: str, asked: Asked) -> Reading | None:
    """Brackets, braces and environments that hold the whole text."""
    rows = environment(text)
    if rows is not None:
        kind, lines = rows
        cells = [[cell.strip() for cell in cut(line, ("&",))] for line in lines if line.strip()]
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


def _quantity(text: str, asked: Asked) -> Reading:
    """A formula with percent sign, unit, base, or words beside it."""
    based = _BASE.fullmatch(text)
    if based and not re.fullmatch(r"[A-Za-z]", based[1]):
        base = _BASES.get(based[2], based[2])
        if base.isdigit():
            return Value(based[1].lower(), base=base)
    ordinal = _ORDINAL.fullmatch(text)
    if ordinal:
        return Value(ordinal[1])
    shorter = _PERCENT.sub("", text)
    if shorter != text and _PERCENT.search(shorter):
        return Words(_opaque(text))
    if shorter != text:
        return replace(value, percent=True) if isinstance(value := _quantity(shorter, asked), Value) else value
    currency = _CURRENCY.match(text)
    if currency:
        value = _quantity(currency[1] + currency[3] + text[currency.end() :], asked)
        name = UNITS[currency[2] or "dollar"]
        return replace(value, unit=((name, 1),)) if isinstance(value, Value) and not value.unit else value
    tail = next((match for match in _TAIL.finditer(text) if not _inside(text, match.start())), None)
    if tail is None:
        return _letter_unit(text, asked) or Value(text)
    if not tail.start():
        return _bare_letters(text) or Words(_opaque(text))
    return _with_words(text[: tail.start()].strip().rstrip("~-"), text[tail.start() :].strip(), asked) or _bare_letters(text) or Words(_opaque(text))


def _inside(text: str, place: int) -> bool:
    """Whether a place is within brackets, where words are no unit of the whole."""
    before = re.sub(r"\\text\{[^{}]*\}", "", text[:place])
    return any(before.count(left) > before.count(right) for left, right in ("()", "[]", "{}"))


def _with_words(head: str, tail: str, asked: Asked) -> Reading | None:
    """A number and the words behind it; None where they are not understood."""
    constant = _CONSTANT.fullmatch(head) is not None
    word = _TEXT.match(tail)
    scale = SCALES.get(word[1].lower()) if word else None
    if constant and scale and word:
        return _quantity(rf"{head} \cdot {scale} {tail[word.end() :]}".strip(), asked)
    unit = read_unit(tail)
    if unit and (constant or (word and not unit[1])):
        letters = {name for name, _ in unit[0] if len(name) == 1}
        if letters and asked.variables and letters <= asked.variables:
            return None
        return Value(head, unit[0], unit[1])
    rest = _NEXT_NUMBER.search(tail)
    if not constant or rest is None:
        return None
    first = _with_words(head, tail[: rest.start()].strip(), asked)
    second = _quantity(tail[rest.start() :], asked)
    if first is None or isinstance(second, Words):
        return None
    others = second.items if isinstance(second, Group) and second.kind == "compound" else (second,)
    return Group("compound", (first, *others), head + tail)


def _letter_unit(text: str, asked: Asked) -> Value | None:
    """A number, and behind a space bare letters that are a unit and no variable of the gold answer."""
    match = _LETTER_UNIT.fullmatch(text) if asked.variables is not None else None
    if match is None or asked.variables is None or not _CONSTANT.fullmatch(match[1]):
        return None
    names = re.findall(r"[A-Za-zµ]+", match[3])
    unit = read_unit(re.sub(r"([A-Za-zµ]+)", r"\\text{\1}", match[3]))
    if unit is None or unit[1] or not all(name in UNITS for name in names):
        return None
    free = match[2] and all(len(name) == 1 or "/" in match[3] for name in names) and asked.variables.isdisjoint(names)
    return Value(match[1], unit[0]) if free or asked.units.issuperset(name for name, _ in unit[0]) else None


def _bare_letters(text: str) -> Value | None:
    """The formula whose only words are single upright letters, which are variables; None where there are others."""
    words = _TEXT.findall(text)
    return Value(_TEXT.sub(r" \1", text).strip()) if all(len(word) == 1 for word in words) else None


def _opaque(text: str) -> str:
    words = _TEXT.sub(lambda match: f" {match[1].lower()} ", text)
    return re.sub(r"\s*([^\w\s])\s*", r"\1", " ".join(words.split()))
