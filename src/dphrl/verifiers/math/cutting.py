"""Cutting formulas at signs that no bracket encloses. Text only; every function is linear in the length of the text."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TOKEN = re.compile(r"\\text\{[^{}]*\}|\\[A-Za-z]+|\\.|[<>!]=|=|.", re.DOTALL)
_OPENING = frozenset({"(", "[", r"\{", "{", r"\begin", r"\lfloor", r"\lceil"})
_CLOSING = frozenset({")", "]", r"\}", "}", r"\end", r"\rfloor", r"\rceil"})
_ENVIRONMENT = re.compile(
    r"\s*(?P<left>[(\[|]|\\\{|\\\||)\s*\\begin\s*\{(?P<name>[a-zA-Z]+)\*?\}\s*(?P<columns>\{[^{}]*\}|\[[^\[\]]*\])?"
    r"(?P<body>.*)\\end\s*\{(?P=name)\*?\}\s*(?P<right>[)\]|]|\\\}|\\\||)\s*",
    re.DOTALL,
)
_MATRICES = frozenset(["matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array"])
_EQUATIONS = frozenset(["cases", "rcases", "aligned", "align", "gathered", "split"])
_DIGIT_GROUPS = re.compile(r"(?<![\d.,])\d+(?:,\d+)+(?![\d])", re.ASCII)
_SPACED_GROUPS = re.compile(r"(?<![\d.,])[-+]?\d{1,3}(?:[ ]\d{3})+(?:\.\d+)?(?![\d,])", re.ASCII)
_BRACED_COMMA = re.compile(r"(?<=\d)\{,\}\s*(?=\d)")
_EUROPEAN = re.compile(r"\s*(?P<left>[\[\](])(?P<inside>[^\[\]();]*[,;][^\[\]();]*)(?P<right>[\[\])])\s*")


def cut(text: str, signs: Sequence[str], spare_relations: bool = False) -> list[str]:
    """The pieces of a text between signs outside of all brackets; one piece where there are none.

    Args:
        text: LaTeX.
        signs: single characters and commands.
        spare_relations: an "=" behind <, > or ! is no equals sign.
    """
    pieces, depth, start = [], 0, 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in _OPENING:
            depth += 1
        elif token in _CLOSING:
            depth -= 1
        elif not depth and token in signs and not (spare_relations and token[:1] in "<>!"):
            pieces.append(text[start : match.start()])
            start = match.end()
    return [*pieces, text[start:]]


def bracketed(text: str) -> tuple[str, str, str] | None:
    """Left bracket, content and right bracket of a text that one pair of brackets holds; ]1, 2[ as (1, 2)."""
    european = _EUROPEAN.fullmatch(text)
    if european and (european["left"] == "]" or european["right"] == "["):
        return "[" if european["left"] == "[" else "(", european["inside"], "]" if european["right"] == "]" else ")"
    text = text.strip()
    left = next((sign for sign in ("(", "[", r"\{") if text.startswith(sign)), "")
    right = next((sign for sign in (r"\}", ")", "]") if text.endswith(sign)), "")
    if not left or not right or (left == r"\{") != (right == r"\}"):
        return None
    depth = 0
    for match in _TOKEN.finditer(text):
        depth += (match[0] in _OPENING) - (match[0] in _CLOSING)
        if not depth and match.end() < len(text):
            return None
    return (left, text[len(left) : -len(right)], right) if not depth else None


def without_braces(text: str) -> str:
    """The text without braces that group the whole of it."""
    text = text.strip()
    while text.startswith("{") and text.endswith("}") and not text.endswith(r"\}"):
        depth = 0
        for match in _TOKEN.finditer(text):
            depth += (match[0] == "{") - (match[0] == "}")
            if not depth and match.end() < len(text):
                return text
        text = text[1:-1].strip()
    return text


def environment(text: str) -> tuple[str, list[str]] | None:
    """Kind (`matrix` or `cases`) and lines of a text that one environment holds; None for determinants and others."""
    match = _ENVIRONMENT.fullmatch(text)
    if match is None or rf"\end{{{match['name']}}}" in match["body"]:
        return None
    bars = match["left"] in ("|", r"\|") or match["right"] in ("|", r"\|")
    lines = cut(match["body"], (r"\\", r"\cr"))
    if match["name"] in _EQUATIONS or (match["left"] == r"\{" and not match["right"]):
        return "cases", [line.replace("&", "") if match["name"] != "cases" else line for line in lines]
    return ("matrix", lines) if match["name"] in _MATRICES and not bars else None


def comma_groups(text: str) -> bool:
    """Whether commas stand where they may be a thousand's."""
    return any(_are_thousands(match[0]) for match in _DIGIT_GROUPS.finditer(text))


def join_thousands(text: str, commas: bool) -> str:
    """The text with the digits of a number together.

    Args:
        text: LaTeX.
        commas: whether a comma outside of brackets may stand between thousands. "{,}" always does, or is a decimal
            comma; a space does where the whole text is one number.
    """
    if _SPACED_GROUPS.fullmatch(text):
        return text.replace(" ", "")
    if "," not in text:
        return text
    text = _BRACED_COMMA.sub(",", text) if not _BRACED_COMMA.search(text) else _braced(text)
    if not commas:
        return text
    pieces, depth, start = [], 0, 0
    for match in re.finditer(r"\\[{}]|[()\[\]]|(?<![\d.,])\d+(?:,\d+)+(?!\d)", text):
        token = match[0]
        if token[0].isdigit():
            if not depth and _are_thousands(token):
                pieces += [text[start : match.start()], token.replace(",", "")]
                start = match.end()
        else:
            depth += 1 if token in ("(", "[", r"\{") else -1
    return "".join([*pieces, text[start:]])


def _braced(text: str) -> str:
    def joined(match: re.Match[str]) -> str:
        groups = match[0].replace("{,}", " ").split()
        return "".join(groups) if all(len(group) == 3 for group in groups[1:]) else ".".join(groups[:2])

    return re.sub(r"\d+(?:\{,\}\s*\d+)+", joined, text)


def _are_thousands(digits: str) -> bool:
    first, *others = digits.split(",")
    return len(first) <= 3 and first[0] != "0" and all(len(group) == 3 for group in others)
