"""One formula, written so that the parser reads it as it was meant, and parsed. Text first, then sympy's objects."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig

from dphrl.verifiers.math.plain_text import is_euler

_CONFIG = ConversionConfig(interpret_as_mixed_fractions=False, lowercase_symbols=False)
_LATEST = 2_000
"""Formulas that are held parsed."""

_BRACED = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
_TOKEN = rf"(?:{_BRACED}|\\[A-Za-z]+(?:{_BRACED})?|[A-Za-z\d])"
_FRACTION = re.compile(rf"\\(frac|binom)\s*({_TOKEN})\s*({_TOKEN})")
_ROOT = re.compile(rf"\\sqrt\s*(\[[^\[\]]*\])?\s*(?:({_BRACED})|\(([^()]*)\)|(\d+|\\?[A-Za-z]+))")
_MIXED = re.compile(r"(?<![\d.}^_])(\d+)\s*(\\frac\{\d+\}\{\d+\})")
_MIXED_PLAIN = re.compile(r"(?<![\d.}^_/])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])")
_LONE_POINT = re.compile(r"(\d)\.(?!\d)")
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d*)?|\.\d+)\s?[eE](\+|-|)(\d+)(?![\w.])")
_TIMES_TEN = re.compile(r"(\d)\s*[x*]\s*(?=10\s*\^)|(?<=\d)\s+x\s+(?=\d)")
_REPEATING = (
    re.compile(r"(?<![\d.])(\d*)\.(\d*)\\(?:overline|bar)\s*\{?\s*(\d+)\s*\}?"),
    re.compile(r"(?<![\d.])(\d*)\.(\d*)\((\d+)\)"),
    re.compile(r"(?<![\d.])(\d*)\.(\d*)((?:\\dot\s*\{?\s*\d\s*\}?\d*)+)"),
    re.compile(r"(?<![\d.])(\d*)\.(\d*?)(\d+?)\3{2,}\s*(?:\\ldots|\.\.\.)"),
    re.compile(r"(?<![\d.])(\d*)\.(\d*?)(\d{2,}?)\3{1,}\s*(?:\\ldots|\.\.\.)"),
)
_SIDE_BY_SIDE = re.compile(
    rf"(?<![\d^_.{{])\d+(?:\.\d+)?\s+\d|\\(?:frac|binom){_BRACED}{_BRACED}\s*\d|\\sqrt{_BRACED}\s*\d"
)
_PRIMES = re.compile(r"([A-Za-z]|\\[A-Za-z]+)(_\{[^{}]*\}|_\w)?\s*(?:\^\s*\{\s*('+)\s*\}|('+))")
_TRANSPOSED = re.compile(r"(?<!matrix\})\^\s*(?:\{\s*T\s*\}|T)")
_DEGREES = re.compile(r"\s*\^\s*\{?\s*\\circ\s*\}?")
_DEGREES_OF = re.compile(rf"(\d+(?:\.\d+)?|\\pi){_DEGREES.pattern}")
_ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_OVER_LETTER = re.compile(r"\\(?:hat|widehat|vec|mathbf)\s*\{?\s*(\\?[ijk](?:math)?)\s*\}?")
_NAMED_INDEX = re.compile(r"_\s*(?:\{\s*(?:\\text\{([^{}]*)\}|\\([A-Za-z]+))\s*\}|\\text\{([^{}]*)\}|\\([A-Za-z]+))")
_E_INDEXED = re.compile(r"(?<![A-Za-z\\])([eE])\s*_\s*(?:\{([^{}]*)\}|(\w))")
"""The parser knows e and E without an index alone."""
_E_NAMES = {"e": "q", "E": "Q"}
_DETERMINANT = re.compile(
    r"(?:\||\\det\s*\(?)\s*\\begin\{(?:array|matrix|pmatrix|bmatrix)\}(?:\s*\{[^{}]*\})?(.*?)\\end\{(?:array|matrix|pmatrix|bmatrix)\}\s*(?:\||\)?)",
    re.DOTALL,
)
_ARRAY = re.compile(r"[(\[]\s*\\begin\{array\}\s*\{[^{}]*\}(.*?)\\end\{array\}\s*[)\]]", re.DOTALL)
_ORDER = re.compile(r"\\begin\{(?:pmatrix|bmatrix|matrix|vmatrix)\}(.*?)\\end", re.DOTALL)
_UPRIGHT_LETTER = re.compile(r"\\text\{([A-Za-z])\}")
_NATURAL = re.compile(r"\\log\s*_\s*(?:\{\s*e\s*\}|e)")
_FUNCTION_POWER = re.compile(r"\\(sin|cos|tan|cot|sec|csc|ln|log)\s*\^\s*(\{[^{}]*\}|\d)\s*")
_DIFFERENTIAL = re.compile(r"\\i*nt(?![A-Za-z])|\\frac\s*\{\s*d")
_LETTER_D = re.compile(
    r"\\[A-Za-z]+|_\{[^{}]*\}|d(?=\s*(?:[A-Za-z]|\\(?:alpha|beta|gamma|theta|phi|rho|sigma|mu|lambda|omega)))"
)
"""A variable d, not the d of dx."""
_DOUBLE_FACTORIAL = re.compile(r"(?<![\d.\w])(\d{1,2})\s*!\s*!(?!\s*!)")
_UNREAD = re.compile(
    r"(?:\\cdot|[-+*/])\s*$|!\s*!|\\text|\\ldots|\\not|\\equiv|\\forall|\\exists|\\mathbb|'|\?|;|\"|#|&(?!.*\\end)"
)


def formula(latex: str) -> str | None:
    """A formula for the parser, or None where a part of it would be misread."""
    text = _NATURAL.sub(r"\\ln ", latex.replace(r"\cdot", r" \cdot "))
    text = _UPRIGHT_LETTER.sub(r"\1", text)
    for pattern in _REPEATING:
        text = pattern.sub(_repeated, text)
    text = _FRACTION.sub(_two_groups, _FRACTION.sub(_two_groups, text))
    text = _ROOT.sub(_root, _ROOT.sub(_root, text))
    text = _TIMES_TEN.sub(lambda match: f"{match[1] or ''} \\cdot ", text)
    text = _MIXED.sub(r"(\1+\2)", _MIXED_PLAIN.sub(r"(\1+\\frac{\2}{\3})", text))
    text = _SCIENTIFIC.sub(_power_of_ten, text)
    if _ANGLE.search(text):  # inside of a function a degree is a number, elsewhere a unit
        text = _DEGREES_OF.sub(r"(\1 \\cdot \\frac{\\pi}{180})", text)
    if re.fullmatch(r"[^A-Za-z]*(?:\\[A-Za-z]+[^A-Za-z]*)*", text.replace(r"\circ", "")):
        text = _DEGREES.sub("", text)
    if r"\circ" in text or _SIDE_BY_SIDE.search(text):
        return None
    text = _OVER_LETTER.sub(lambda match: match[1].strip("\\")[0], text)
    text = _NAMED_INDEX.sub(lambda match: f"_{{{match[1] or match[2] or match[3] or match[4]}}}", text)
    text = _E_INDEXED.sub(lambda match: f"{_E_NAMES[match[1]]}_{{{match[1]}{match[2] or match[3]}}}", text)
    text = _PRIMES.sub(_primed, text)
    text = _TRANSPOSED.sub("^{1T}", text)
    text = _ARRAY.sub(r"\\begin{pmatrix}\1\\end{pmatrix}", _DETERMINANT.sub(r"\\begin{vmatrix}\1\\end{vmatrix}", text))
    if not _DIFFERENTIAL.search(text):
        text = _LETTER_D.sub(lambda match: match[0] if match[0][0] in "\\_" else "{d}", text)
    text = _DOUBLE_FACTORIAL.sub(lambda match: str(math.prod(range(int(match[1]), 0, -2))), text)
    text = _arguments(text)
    text = _LONE_POINT.sub(r"\1", text)
    return None if _UNREAD.search(text) else text.strip()


@lru_cache(maxsize=_LATEST)
def parsed(latex: str) -> Any:
    """What the parser makes of a formula, its variables without assumptions; None where it cannot be read."""
    text = formula(latex)
    if not text:
        return None
    try:
        value = latex2sympy(text, is_real=None, normalization_config=None, conversion_config=_CONFIG)
    except RecursionError:
        raise
    except Exception:  # the parser raises the bare class, and whatever sympy does
        return None
    return value


def _two_groups(match: re.Match[str]) -> str:
    return rf"\{match[1]}" + "".join(part if part[0] == "{" else f"{{{part}}}" for part in (match[2], match[3]))


def _root(match: re.Match[str]) -> str:
    inner = match[2] or f"{{{match[3] if match[3] is not None else match[4]}}}"
    if match[4] and match[4][0].isalpha() and len(match[4]) > 1:
        inner = f"{{{match[4][0]}}}{match[4][1:]}"
    return rf"\sqrt{match[1] or ''}{inner}"


def _repeated(match: re.Match[str]) -> str:
    r"""0.1\overline{6} as the fraction it is."""
    whole, start, period = match[1], match[2], re.sub(r"\D", "", match[3])
    below = (10 ** len(period) - 1) * 10 ** len(start)
    above = int((whole + start + period) or "0") - int(whole + start or "0")
    return rf"\frac{{{above}}}{{{below}}}"


def _power_of_ten(match: re.Match[str]) -> str:
    """4.5e33 as a product with a power of ten."""
    mantissa, sign, exponent = match.groups()
    if is_euler(mantissa, sign + exponent):
        return match[0]
    return rf"{mantissa} \cdot 10^{{{sign.replace('+', '')}{exponent}}}"


def _primed(match: re.Match[str]) -> str:
    name, index, marks = match[1], (match[2] or "").strip("_{}"), match[3] or match[4]
    return f"{name}_{{{index}{'prime' * len(marks)}}}"


def _arguments(text: str) -> str:
    r"""\sin^2 t \cos t with brackets about what each power of a function is of."""
    pieces, position = [], 0
    while match := _FUNCTION_POWER.search(text, position):
        end = _argument_end(text, match.end())
        argument = text[match.end() : end].strip()
        power = match[2] if match[2][0] == "{" else f"{{{match[2]}}}"
        pieces += [text[position : match.start()], rf"\{match[1]}^{power}"]
        pieces.append(argument if argument[:1] in ("(", "{") or not argument else f"({argument})")
        position = end
    return "".join([*pieces, text[position:]])


def _argument_end(text: str, start: int) -> int:
    """Where the argument of a function written without brackets ends: at a sign, a space behind a letter's factor."""
    if text[start : start + 1] in ("(", "{"):
        depth = 0
        for index in range(start, len(text)):
            depth += (text[index] in "({") - (text[index] in ")}")
            if not depth:
                return index + 1
        return len(text)
    match = re.compile(
        rf"\s*(?:\d+(?:\.\d+)?\s*)?(?:\\frac{_BRACED}{_BRACED}|\\(?!sin|cos|tan|cot|sec|csc|ln|log|cdot|frac)[A-Za-z]+|[A-Za-z](?:_\w|_\{{[^{{}}]*\}})?)*"
    ).match(text, start)
    return match.end() if match else start
