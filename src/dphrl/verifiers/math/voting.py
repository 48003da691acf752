"""The text by which majority voting counts an answer. Nothing is evaluated: 2x and x+x are two answers."""

from __future__ import annotations

import re

from dphrl.verifiers.math.plain_text import plain_number
from dphrl.verifiers.math.reading import read
from dphrl.verifiers.math.records import ANY_ORDER, Equation, Group, Named, Reading, Value

LONGEST_COUNTED = 1_000
"""Characters of the longest answer that is read; a longer one is counted as it stands."""


def counted(answer: str) -> str:
    """Plain numbers by their value, the rest by their text, without units, names and idle marks.

    Args:
        answer: cleaned (`plain_text.clean_answer`), not empty.
    """
    return _counted(read(answer)) if len(answer) <= LONGEST_COUNTED else answer


def _counted(reading: Reading) -> str:
    if isinstance(reading, Value):
        text = re.sub(r"\s+", "", reading.latex)
        value = plain_number(text)
        marks = ("%" if reading.percent else "", f"_{reading.base}" if reading.base else "")
        return (text if value is None else str(value)) + "".join(marks)
    if isinstance(reading, Named):
        return _counted(reading.value)
    if isinstance(reading, Equation):
        return "=".join(re.sub(r"\s+", "", side) for side in reading.sides)
    if isinstance(reading, Group):
        items = [_counted(item) for item in reading.items]
        return f"{reading.kind}({','.join(sorted(items) if reading.kind in ANY_ORDER else items)})"
    return reading.text
