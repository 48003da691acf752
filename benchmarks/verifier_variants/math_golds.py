"""Gold answers of the data sets of mathematics, and what kind of answer each is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from verifier_variants.variant import MathGold

NUMBERS = ("whole", "decimal", "fraction")
VALUES = (*NUMBERS, "root", "expression")
"""Kinds that are one value."""
LONGEST = 160
"""Characters of the longest gold that is rewritten; longer ones are prose."""

_ITEM = r"-?(?:\d+(?:\.\d+)?|\\frac\{-?\d+\}\{\d+\}|\d*\\sqrt\{\d+\}|\d*\\pi|\d*[a-z](?:\^\{?\d\}?)?)"
_KINDS: tuple[tuple[str, str], ...] = (
    ("whole", r"(-?\d+)|(-?\d{1,3}(?:,\d{3})+)"),
    ("decimal", r"(-?\d*\.\d+)"),
    ("fraction", r"(-?)(?:\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}|\s*(\d+)\s*/\s*(\d+))"),
    ("scientific", r"(-?\d+(?:\.\d+)?)e([-+]?\d+)"),
    ("root", r"(-?\d*)\s*\\sqrt\{(\d+)\}"),
    ("percent", r"(-?\d+(?:\.\d+)?)\s*\\?%"),
    ("degrees", r"(-?\d+(?:\.\d+)?)\s*\^\s*\{?\\circ\s*\}?"),
    ("money", r"\\?\$\s*(\d+(?:\.\d+)?)"),
    ("letter", r"(?:\\text\{)?\(?([A-E])\)?\}?"),
    ("word", r"(?:\\text\s*\{\s*)?([A-Za-z]{3,}(?: [A-Za-z]+){0,3})\s*\}?\.?"),
    ("quantity", r"(-?\d+(?:\.\d+)?)\s*(?:\\[,;:! ]|~)*\s*\\(?:text|mathrm)\s*\{[~\s]*([a-z]+)\s*\}"),
    ("quantity", r"(-?\d+(?:\.\d+)?) ([a-z]{3,})"),
    ("plus-minus", r"([^,=]*?)\\pm\s*([^,=]+)"),
    ("matrix", r"\\begin\{pmatrix\}(.+)\\end\{pmatrix\}"),
)


def read_gold(source: str, text: object, prompt: str = "") -> MathGold | None:
    """A gold answer and its kind; None where it is prose, or several lines long."""
    answer = unwrapped(str(text))
    if not answer or len(answer) > LONGEST or "\n" in answer or "$" in answer.replace("\\$", ""):
        return None
    for kind, pattern in _KINDS:
        if match := re.fullmatch(pattern, answer):
            parts = tuple(part for part in match.groups() if part is not None)
            if kind == "plus-minus" and "\\pm" in parts[1]:
                continue
            return MathGold(source=source, text=answer, kind=kind, parts=parts, prompt=prompt)
    kind, parts = _kind_by_brackets(answer)
    return MathGold(source=source, text=answer, kind=kind, parts=parts, prompt=prompt)


def unwrapped(text: str) -> str:
    """Without spaces, dollars and a period around it."""
    text = text.strip().removesuffix(".").strip()
    if len(text) > 2 and text[0] == text[-1] == "$" and "$" not in text[1:-1].replace("\\$", ""):
        text = text[1:-1].strip()
    return text.removesuffix(".").strip()


def split_top(text: str, mark: str = ",") -> list[str]:
    """Pieces between the marks that stand in no bracket; an interval's brackets count, whichever they are."""
    pieces, depth, start = [], 0, 0
    for place, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if not depth and text.startswith(mark, place):
            pieces.append(text[start:place])
            start = place + len(mark)
    return [piece.strip() for piece in [*pieces, text[start:]]]


def _kind_by_brackets(answer: str) -> tuple[str, tuple[str, ...]]:
    plain = answer.replace("\\left", "").replace("\\right", "")
    if len(unions := split_top(plain, r"\cup")) > 1 and all(_is_interval(piece, open_too=True) for piece in unions):
        return "union", tuple(unions)
    if _is_interval(plain, open_too=False):
        return "interval", (plain[0], *split_top(plain[1:-1]), plain[-1])
    if match := re.fullmatch(r"\((.+)\)", plain):
        items = split_top(match[1])
        if len(items) > 1 and all(re.fullmatch(_ITEM, item) for item in items):
            return "tuple", tuple(items)
    if match := re.fullmatch(r"\\\{(.+?)\\\}", plain):
        items = split_top(match[1])
        if len(items) > 1 and all(re.fullmatch(_ITEM, item) for item in items):
            return "set", tuple(items)
    items = split_top(plain)
    if len(items) > 1:
        pairs = [re.fullmatch(rf"([a-zA-Z])\s*=\s*({_ITEM})", item) for item in items]
        if all(pairs) and len({pair[1] for pair in pairs if pair}) == len(items):
            return "assignments", tuple(items)
        if all(re.fullmatch(_ITEM, item) for item in items) and not re.fullmatch(r"-?\d{1,3}(,\d{3})+", plain):
            return "list", tuple(items)
        return "other", ()
    if match := re.fullmatch(r"([a-zA-Z](?:\([a-z]\))?)\s*=\s*([^=<>]+)", answer):
        return "equation", (match[1], match[2].strip())
    return ("expression", ()) if is_expression(answer) else ("other", ())


def _is_interval(text: str, *, open_too: bool) -> bool:
    match = re.fullmatch(r"([\[(])(.+)([\])])", text.strip())
    if not match or len(ends := split_top(match[2])) != 2:
        return False
    end = rf"{_ITEM}|[-+]?\\infty"
    certain = (match[1], match[3]) != ("(", ")") and (match[1], match[3]) != ("[", "]")
    return all(re.fullmatch(end, piece) for piece in ends) and (open_too or certain or "\\infty" in text)


def is_expression(text: str) -> bool:
    """Whether it is one value written with plain signs, letters, powers, fractions and roots."""
    bare = re.sub(r"\\(?:[dt]?frac|sqrt|pi|cdot|left|right|sin|cos|tan|ln|log)(?![a-z])", "", text)
    return bool(re.fullmatch(r"[-+*/^(){}\d\sa-z.]+", bare)) and not re.search(r"[a-z]{4,}", bare) and "()" not in bare


def value(gold: MathGold) -> Fraction | None:
    """The exact value of a number."""
    if gold.kind in ("whole", "decimal"):
        return Fraction(gold.parts[0].replace(",", ""))
    if gold.kind == "fraction" and int(gold.parts[2]):
        return Fraction(int(gold.parts[1]), int(gold.parts[2])) * (-1 if gold.parts[0] else 1)
    return None


def data_golds(folder: Path) -> Iterator[MathGold]:
    """The golds of the data sets that are there, each text once in its set."""
    for name, read in (("gsm8k", _gsm8k), *((name, _benchmark) for name in _BENCHMARKS)):
        seen = set()
        for text, prompt in read(folder, name):
            gold = read_gold(name, text, prompt)
            if gold and gold.text not in seen:
                seen.add(gold.text)
                yield gold


_BENCHMARKS = ("aime24", "amc23", "math500", "college_math", "olympiadbench", "minerva_math")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _gsm8k(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    for split in ("test", "train"):
        for row in _rows(folder / name / f"{split}.jsonl"):
            yield row["answer"].rpartition("####")[2].replace(",", ""), row["question"]


def _benchmark(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    for row in _rows(folder / "math" / f"{name}.jsonl"):
        answer = row.get("answer", row.get("final_answer"))
        if name == "minerva_math":
            answer = _last_box(row["solution"])
        if isinstance(answer, list):
            answer = answer[0] if len(answer) == 1 else ""
        yield str(answer), str(row.get("problem") or row.get("question") or "")


def _last_box(solution: str) -> str:
    depth, start = 1, solution.rfind(r"\boxed{") + len(r"\boxed{")
    for place in range(start, len(solution)):
        depth += (solution[place] == "{") - (solution[place] == "}")
        if not depth:
            return solution[start:place]
    return ""
