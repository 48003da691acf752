"""Golds and answers written by hand (`math_table.txt`), with numbers and letters drawn anew each time."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from verifier_variants.variant import Variant, box

TABLE = Path(__file__).with_name("math_table.txt")
_SPOKEN = ("The answer", "Answer")


def table_variants(rng: random.Random, times: int) -> Iterator[Variant]:
    """The table's rows, each written `times` times."""
    for rule, gold, answers in table_rows():
        for _ in range(times):
            values = drawn_values(rng)
            for same, answer in answers:
                text = _filled(answer, values)
                completion = text if answer.startswith(_SPOKEN) else box(text)
                wanted = _filled(gold, values)
                yield Variant(rule=rule, same=same, gold=wanted, completion=completion, source="shipped")


def table_rows() -> Iterator[tuple[str, str, list[tuple[bool, str]]]]:
    """(class, gold, [(whether it is the same, answer)]), as they are written."""
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    starts = [number for number, line in enumerate(lines) if not line.startswith(" ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        rule, _, gold = lines[start].partition(" :: ")
        yield rule, gold, [(line[2] == "=", line[4:]) for line in lines[start + 1 : end]]


def drawn_values(rng: random.Random) -> dict[str, str]:
    """What the names in angle brackets stand for: different numbers, different letters."""
    n, k, j = rng.sample(range(3, 60), 3)
    d, e, f = rng.sample(range(1, 9), 3)
    h, m = rng.randint(1, 12), rng.randint(10, 29)
    choice, choice2 = rng.sample("ABCD", 2)
    values = {
        "n": n,
        "k": k,
        "j": j,
        "d": d,
        "e": e,
        "f": f,
        "h": h,
        "m": m,
        "h2": h % 12 + 1,
        "m2": m + 1,
        "twelve": 12 * n,
        "hundred": 100 * n,
        "twice": 2 * n,
        "sum": n + k,
        "kn1": k * n + 1,
        "ab_sum": n + k,
        "ab": n * k,
        "def_": d * e * f,
        "p": rng.choice((2, 3, 5, 7, 11)),
        "bits": f"1{rng.randint(0, 1)}{rng.randint(0, 1)}10",
        "choice": choice,
        "choice2": choice2,
        **dict(zip("abc", rng.sample("abnuvwxyz", 3), strict=True)),
    }
    return {name: str(value) for name, value in values.items()}


def _filled(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"<([a-z_0-9]+)>", lambda match: values[match[1]], text)
