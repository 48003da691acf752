"""What math-verify's parser reads, and the verdicts, under the antlr that this process has; run by test_antlr.py.

A JSON object of {"texts": [...], "pairs": [[gold, answer], ...]} on standard input; {"antlr", "readings", "verdicts"},
a reading for each text and a verdict for each pair, on standard output.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

from sympy import srepr

from dphrl.verifiers.math.formula import parsed
from dphrl.verifiers.math.math_worker import compare_answers
from dphrl.verifiers.math.reading import read
from dphrl.verifiers.math.records import values


def reading(text: str) -> str:
    """All that the parser's values consist of; what it raised, where it raised."""
    try:
        return "; ".join(str(srepr(parsed(value.latex))) for value in values(read(text)))
    except Exception as error:  # the parser's or sympy's: it is to be the same as well
        return f"{type(error).__name__}: {error}"


asked = json.load(sys.stdin)
print(
    json.dumps(
        {
            "antlr": version("antlr4-python3-runtime"),
            "readings": [reading(text) for text in asked["texts"]],
            "verdicts": [compare_answers((gold, answer), None)[0] for gold, answer in asked["pairs"]],
        }
    )
)
