"""Random strings through the math and the SQL verifier: none may break them, and none that is wrong may be paid.

    python benchmarks/fuzz_verifiers.py --strings 100000 --seed 0

Mixtures of random Unicode, LaTeX and SQL fragments, mutated honest answers and queries, boxes and fences. One JSON
line: verdicts a second, counts of statuses, `verifier_error` (exceptions too, and gold errors, as the golds are sound),
and `wrongly_correct`: strings judged correct that cannot be, since they lack the gold's unlikely numbers or end in
another answer. If there are any, they stand on standard error, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import sys
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from dphrl.progress import Progress, shown
from dphrl.types import Item, Verdict, VerifyFn
from dphrl.verifiers import load_verifier

BATCH = 1024
DEADLINE_S = 2.0
"""CPU seconds a string may take."""
MAX_SHOWN = 120

NUMBERS = {"math": ("104729", "611953"), "sql": ("224737", "746773")}
"""Primes that no string holds by accident; every gold needs both of its pair."""
SCHEMA = """
CREATE TABLE t(a INTEGER, b TEXT);
CREATE TABLE u(a INTEGER, c REAL);
INSERT INTO t VALUES (1, 'x'), (2, 'y'), (3, NULL), (3, 'y');
INSERT INTO u VALUES (1, 0.5), (3, 1.5);
"""
MATH_GOLDS = {
    r"\frac{104729}{611953}": (r"\boxed{\frac{104729}{611953}}", r"\boxed{104729/611953}", "#### 104729/611953"),
    "104729x^2+611953": (r"\boxed{611953 + 104729x^{2}}", "The answer is $104729x^2+611953$."),
    r"\sqrt{104729}-611953": (r"$\boxed{-611953+\sqrt{104729}}$",),
    "(104729, 611953)": (r"\boxed{(104729,\ 611953)}", r"\boxed{\left(104729, 611953\right)}"),
    r"[104729, 611953)": (r"\boxed{[104729, 611953)}",),
    "104729.611953": (r"\boxed{104729.611953}", "so it is 104729.611953"),
    r"\begin{pmatrix}104729\\611953\end{pmatrix}": (r"\boxed{\begin{pmatrix} 104729 \\ 611953 \end{pmatrix}}",),
}
SQL_GOLDS = {
    "SELECT a * 224737 + 746773 FROM t": ("```sql\nSELECT 746773 + 224737 * a FROM t\n```",),
    "SELECT b, 224737 FROM t WHERE a + 746773 > 0 UNION ALL SELECT a, 746773 FROM u ORDER BY 1": (
        "```sql\nSELECT b, 224737 FROM t UNION ALL SELECT a, 746773 FROM u ORDER BY 1\n```",
        "SELECT b, 224737 FROM t UNION ALL SELECT a, 746773 FROM u ORDER BY 1",
    ),
    "SELECT count(*) + 224737, max(b) || '746773' FROM t JOIN u USING (a)": (
        "```sql\nWITH j AS (SELECT b FROM t JOIN u USING (a)) SELECT count(*) + 224737, max(b) || '746773' FROM j\n```",
    ),
}
"""Gold -> completions that are right."""

LATEX_PIECES = r"""
\frac \dfrac \sqrt \boxed \text \left \right \begin{pmatrix} \end{pmatrix} \begin{cases} \end{cases} \infty \pi \cup
\in \mathbb{R} \sum_{i=1}^{9} \int_0^1 \lim_{x\to0} \log \sin \cdot \times \div \pm \% \$ \, \; \\ \le \ne \equiv
\pmod \binom \overline \mathrm \operatorname ^{\circ} ^ _ { } ( ) [ ] | ! , ; . = < > + - * / & ~ $ $$ # % ' \{ \} x y
n e i 0 1 2 7 10 .5 1e9 1,000 2^{2^{2}} 9^{9^{9^9}} 99999999999 \ \( \) \[ \] #### answer is and or km
"""
SQL_PIECES = r"""
SELECT FROM WHERE GROUP BY ORDER HAVING LIMIT JOIN ON USING UNION ALL EXCEPT INTERSECT WITH RECURSIVE AS DISTINCT CASE
WHEN THEN END NULL IS NOT IN LIKE GLOB BETWEEN EXISTS VALUES OVER PARTITION INSERT INTO UPDATE SET DELETE DROP TABLE
ATTACH PRAGMA VACUUM EXPLAIN CREATE TEMP VIEW t u a b * ( ) , ; . = < > || + - / % 'x' 'y "a" `b` [a] -- /* */ ? :p @v
$d x'00' 0 1 9223372036854775807 1e999 count(*) max(a) printf('%*c',99999999,'x') randomblob(99) date('now')
json_each('[1,2]') zeroblob(999999999) load_extension('x') sqlite_master pragma_table_info('t') rowid
"""
LATEX, SQL = LATEX_PIECES.split(), SQL_PIECES.split()
RANGES = (
    *((0, 0x7F), (0x20, 0x7E), (0x30, 0x39), (0x80, 0x24F), (0x300, 0x36F), (0x660, 0x669), (0x2000, 0x206F)),
    *((0x2070, 0x22FF), (0x4E00, 0x4FFF), (0xD800, 0xDFFF), (0xFF00, 0xFF5E), (0x1D7CE, 0x1D7FF), (0x10FFF0, 0x10FFFF)),
)
FORMS = ("\\boxed{{{}}}", "```sql\n{}\n```", "#### {}", "the answer is {}", "${}$", "```{}```", "\\text{{{}}}", "({})")


@dataclass(frozen=True, slots=True)
class Case:
    """A string with the golds it is judged by."""

    text: str
    math_gold: str
    sql_gold: str
    mode: str
    decoy: str
    """The verifier for which its last answer is known to be another than the gold."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a verifier made of all strings."""

    per_second: float
    statuses: Counter[str]
    faults: Counter[str]


def unicode_text(rng: random.Random) -> str:
    low, high = rng.choice(RANGES)
    return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(0, 40)))


def fragments(rng: random.Random, words: Sequence[str]) -> str:
    space = rng.choice(("", " ", " "))
    return space.join(rng.choices(words, k=rng.randint(1, 30)))


def mutated(rng: random.Random, text: str) -> str:
    """A few cuts, copies, swaps and foreign pieces."""
    for _ in range(rng.randint(0, 4)):
        start = rng.randint(0, len(text))
        end = min(len(text), start + rng.randint(0, 6))
        piece = text[start:end]
        foreign = rng.choice((rng.choice(LATEX), rng.choice(SQL), unicode_text(rng)[:3], str(rng.randint(0, 99))))
        text = text[:start] + rng.choice(("", piece * 2, piece[::-1], foreign, piece + foreign)) + text[end:]
    return text


def wrapped(rng: random.Random, text: str) -> str:
    for _ in range(rng.randint(0, 4)):
        text = rng.choice(FORMS).format(text)
    return text


def sprayed(rng: random.Random, honest: str) -> str:
    parts = [rng.choice((unicode_text(rng), fragments(rng, LATEX), fragments(rng, SQL), honest)) for _ in range(4)]
    return rng.choice(("\n", " ", "")).join(wrapped(rng, part) for part in parts)


def case(rng: random.Random) -> Case:
    """One string of six kinds; an honest answer in it is that of its own gold."""
    math_gold, sql_gold = rng.choice(list(MATH_GOLDS)), rng.choice(list(SQL_GOLDS))
    math, sql = rng.choice(MATH_GOLDS[math_gold]), rng.choice(SQL_GOLDS[sql_gold])
    kinds: tuple[Callable[[], tuple[str, str]], ...] = (
        lambda: (wrapped(rng, unicode_text(rng)), ""),
        lambda: (wrapped(rng, fragments(rng, rng.choice((LATEX, SQL)))), ""),
        lambda: (mutated(rng, math), ""),
        lambda: (mutated(rng, sql), ""),
        lambda: (sprayed(rng, rng.choice((math, sql))), ""),
        lambda: rng.choice(
            (
                (f"\\boxed{{{math_gold}}} {math}\nno: \\boxed{{{rng.randint(0, 99)}}}", "math"),
                (f"```sql\n{sql_gold}\n```\nno:\n```sql\nSELECT {rng.randint(0, 99)}\n```", "sql"),
            )
        ),
    )
    text, decoy = rng.choice(kinds)()
    return Case(text, math_gold, sql_gold, rng.choice(("spider", "bird")), decoy)


def is_wrong(case: Case, verifier: str) -> bool:
    """Whether the string cannot be right: it lacks one of the numbers, even with all but digits taken out."""
    digits = [unicodedata.decimal(char, None) for char in unicodedata.normalize("NFKC", case.text)]
    text = "".join(str(digit) for digit in digits if digit is not None)
    return case.decoy == verifier or not all(number in text for number in NUMBERS[verifier])


def judged(verify: VerifyFn, items: Sequence[Item]) -> list[Verdict]:
    """The verdicts; an exception is one of `verifier_error`."""
    try:
        return verify(items)
    except Exception as error:
        if len(items) == 1:
            return [Verdict(False, None, "verifier_error", f"raised {type(error).__name__}: {error}")]
        return [verdict for item in items for verdict in judged(verify, [item])]


def fault(case: Case, verifier: str, verdict: Verdict) -> str:
    """The key of the report it counts for, or ''."""
    if verdict.reward is None:
        return "verifier_error"
    return "wrongly_correct" if verdict.correct and is_wrong(case, verifier) else ""


def fuzz(verifier: str, cases: Sequence[Case], items: Sequence[Item], progress: Progress) -> Result:
    """Judge all cases; those at fault are shown."""
    verify = load_verifier(verifier, {"deadline_s": DEADLINE_S})
    statuses: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    seconds = 0.0
    for start in range(0, len(cases), BATCH):
        progress(verifier, start, len(cases))
        began = time.perf_counter()
        verdicts = judged(verify, items[start : start + BATCH])
        seconds += time.perf_counter() - began
        statuses.update(verdict.status for verdict in verdicts)
        for case, item, verdict in zip(
            cases[start : start + BATCH], items[start : start + BATCH], verdicts, strict=True
        ):
            if kind := fault(case, verifier, verdict):
                faults[kind] += 1
                parts = [ascii(text)[:MAX_SHOWN] for text in (case.text, item["gold"], verdict.detail)]
                print(f"{verifier} {kind}: {parts[0]} for gold {parts[1]}: {parts[2]}", file=sys.stderr)
    progress(verifier, len(cases), len(cases))
    return Result(len(cases) / seconds, statuses, faults)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strings", type=int, default=100_000, help="how many, >= 1 (default: 100,000)")
    parser.add_argument("--seed", type=int, default=0, help="of all randomness (default: 0)")
    options = parser.parse_args()
    if options.strings < 1:
        parser.error(f"--strings {options.strings} must be at least 1")
    rng = random.Random(options.seed)
    cases = [case(rng) for _ in range(options.strings)]
    with tempfile.TemporaryDirectory() as folder, shown() as progress:
        db = str(Path(folder, "fuzz.sqlite"))
        with closing(sqlite3.connect(db)) as connection:
            connection.executescript(SCHEMA)
        math = fuzz("math", cases, [{"completion": c.text, "gold": c.math_gold} for c in cases], progress)
        sql_items = [{"completion": c.text, "gold": c.sql_gold, "db": db, "mode": c.mode} for c in cases]
        sql = fuzz("sql", cases, sql_items, progress)
    faults = math.faults + sql.faults
    report = {
        "strings": options.strings,
        "math_per_second": round(math.per_second),
        "sql_per_second": round(sql.per_second),
        "math": dict(math.statuses.most_common()),
        "sql": dict(sql.statuses.most_common()),
        "verifier_error": faults["verifier_error"],
        "wrongly_correct": faults["wrongly_correct"],
    }
    print(json.dumps(report))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
