"""The math verifier beside math-verify alone (parse the whole completion, verify) on the same completions.

2,000 completions of 4,000 characters for 250 gold answers: numbers, fractions, expressions, tuples, lists, intervals,
half of them right, written as the gold answer is or another way. Both use as many processes as there are cores, warmed
up, three times in turn. One JSON line: completions a second of wall time, ours over math-verify's, and how often both
say the same.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import random
import time

from dphrl.verifiers.math.verify_math import verify_math
from dphrl.verifiers.workers.pool import default_workers

COMPLETIONS = 2_000
GOLDS = 250
LENGTH = 4_000
ROUNDS = 3
BATCH = 500
"""Completions of one call, as a training step has."""

rng = random.Random(0)
Case = tuple[str, list[str], list[str]]
"""Gold answer, right answers, wrong answers."""


def whole() -> Case:
    n = rng.randint(-999, 99_999)
    return str(n), [str(n), f"{n:,}", f"{n}.0", f"x = {n}"], [str(n + 1), str(-n - 1), f"{n}.5"]


def fraction() -> Case:
    a, b = rng.randint(1, 40), rng.choice((2, 4, 5, 8))
    gold = rf"\frac{{{a}}}{{{b}}}"
    return gold, [gold, rf"\dfrac{{{a}}}{{{b}}}", f"{a}/{b}", str(a / b)], [rf"\frac{{{b}}}{{{a + b}}}", str(a / b + 1)]


def root() -> Case:
    a, b = rng.randint(2, 9), rng.choice((2, 3, 5, 7))
    gold = rf"{a}\sqrt{{{b}}}"
    return gold, [gold, rf"\sqrt{{{a * a * b}}}"], [rf"{a + 1}\sqrt{{{b}}}", rf"\sqrt{{{a * b}}}"]


def polynomial() -> Case:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    gold = f"x^2+{a + b}x+{a * b}"
    return (
        gold,
        [gold, f"(x+{a})(x+{b})", f"x^{{2}} + {a + b}x + {a * b}"],
        [f"(x+{a})(x-{b})", f"x^2+{a * b}x+{a + b + 1}"],
    )


def pair() -> Case:
    a, b = rng.randint(-20, 20), rng.randint(21, 40)
    gold = rf"\left({a}, \frac{{{b}}}{{3}}\right)"
    return gold, [gold, rf"({a}, \frac{{{b}}}{{3}})"], [rf"(\frac{{{b}}}{{3}}, {a})", f"({a}, {b})"]


def roots() -> Case:
    a, b = rng.randint(-20, -1), rng.randint(1, 20)
    return f"{a}, {b}", [f"{a}, {b}", f"{b}, {a}", f"{a},{b}"], [f"{a}", f"{a}, {b + 1}"]


def interval() -> Case:
    a, b = rng.randint(-20, 0), rng.randint(1, 20)
    return f"[{a},{b})", [f"[{a},{b})", rf"\left[{a}, {b}\right)"], [f"({a},{b})", f"[{a},{b}]"]


KINDS = (whole, whole, whole, fraction, fraction, root, polynomial, pair, roots, interval)
SENTENCE = "so we then get the term from both sides and since it is even, $a_k = 2k + 1$ holds for all k."
WORDS = SENTENCE.split()


def completion(answer: str) -> str:
    text = " ".join(rng.choices(WORDS, k=LENGTH // 3))[: LENGTH - len(answer) - 30]
    return rf"{text} Thus the answer is $\boxed{{{answer}}}$."


cases = [rng.choice(KINDS)() for _ in range(GOLDS)]
items = []
for index in range(COMPLETIONS):
    gold, right, wrong = cases[index * GOLDS // COMPLETIONS]
    items.append({"gold": gold, "completion": completion(rng.choice(right if rng.random() < 0.5 else wrong))})


def alone(item: dict[str, str]) -> bool:
    from math_verify import parse, verify

    gold = parse(f"\\boxed{{{item['gold']}}}")
    return bool(verify(gold, parse(item["completion"])))


def ours() -> list[bool]:
    return [
        verdict.correct
        for start in range(0, COMPLETIONS, BATCH)
        for verdict in verify_math(items[start : start + BATCH])
    ]


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    workers = default_workers()
    best: dict[str, float] = {"ours": 0.0, "alone": 0.0}
    with multiprocessing.get_context("spawn").Pool(workers) as pool:

        def theirs() -> list[bool]:
            return pool.map(alone, items, chunksize=16)

        said = {"ours": ours(), "alone": theirs()}  # warms both up
        for _ in range(ROUNDS):
            for name, run in (("ours", ours), ("alone", theirs)):
                began = time.perf_counter()
                run()
                best[name] = max(best[name], COMPLETIONS / (time.perf_counter() - began))
    result = {
        "per_second": round(best["ours"]),
        "over_math_verify": round(best["ours"] / best["alone"], 2),
        "math_verify_per_second": round(best["alone"]),
        "agree": round(sum(a == b for a, b in zip(*said.values(), strict=True)) / COMPLETIONS, 4),
        "correct": round(sum(said["ours"]) / COMPLETIONS, 4),
        "completions": COMPLETIONS,
        "workers": workers,
    }
    print(json.dumps(result))
