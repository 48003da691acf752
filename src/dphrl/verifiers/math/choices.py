"""Letters of multiple choice, with or without the text of their option."""

from __future__ import annotations

import re

from dphrl.verifiers.math.typeface import plain_typeface

_GOLD = re.compile(r"\(?([A-J])\)?\.?|\(([a-j])\)")
_LETTER = re.compile(
    r"\(?\s*([A-Za-z])\s*\)?\s*\.?|\(\s*([A-Za-z])\s*\)[\s:.,-]*\S.*|([A-Z])\s*(?:[).:]|[-]\s)\s*[^\s=].*", re.DOTALL
)
_OPTION = re.compile(r"\(\s*(?:\\text\{\s*)?([A-J])(?:\s*\})?\s*\)\s+(?:\{\s*\})?(?![-+*/^=_,;<>|)!])(\S.*)", re.DOTALL)
_MARKS = re.compile(r"\\text\{([^{}]*)\}|[{}]")


def chosen(gold: str, answer: str) -> bool | None:
    """Whether an answer chooses the gold answer's option; None where the gold answer is no letter of one.

    Args:
        gold, answer: cleaned.
    Returns:
        For a gold answer C or (c). Case counts unless the letter stands in brackets; text behind it is its option's.
    """
    wanted = _GOLD.fullmatch(_bare(gold))
    if wanted is None:
        return None
    letter = wanted[1] or wanted[2]
    given = _LETTER.fullmatch(_bare(answer).removeprefix("option ").removeprefix("Option "))
    if given is None:
        return None
    said = given[1] or given[2] or given[3]
    loose = "(" in _bare(gold) + _bare(answer)[:1] or ")" in _bare(answer)[:3]
    return said == letter or (loose and said.upper() == letter.upper())


def option(text: str) -> tuple[str, str]:
    """The letter and the text of an option that is written with both, (B) 12; ("", text) where no letter stands there.

    Args:
        text: an answer, cleaned.
    """
    found = _OPTION.fullmatch(plain_typeface(text).strip())
    return ("", text) if found is None else (found[1], found[2])


def _bare(text: str) -> str:
    return " ".join(_MARKS.sub(r"\1", plain_typeface(text)).split())
