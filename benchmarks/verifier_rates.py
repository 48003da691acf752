"""How often the verifiers miss a right answer, and how often they pay a wrong one, by class of rewriting.

    python benchmarks/verifier_rates.py                      every gold of ../shared/data and of the shipped tables
    python benchmarks/verifier_rates.py --limit 30           30 golds of each data set: a look
    python benchmarks/verifier_rates.py --only math --show typeface    what fails in a class, on standard error
    python benchmarks/verifier_rates.py --without-prompt     the verifier does not see the questions

Programs (`verifier_variants/`) write every gold another way without changing what it means, and change it so that it
means something else. A rewriting of SQL counts only if both queries, run by sqlite3 alone, return the same or surely
not the same. Beside ours math-verify alone on the same completions (parse, verify). One JSON line: missed of 1,000
answers that mean the same, falsely paid of 1,000 that do not, and both by class; the same as a table on standard error.
Echoes of the question, which only the question can tell from an answer, are counted apart.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from verifier_variants.make import math_variants, sql_variants
from verifier_variants.math_golds import data_golds
from verifier_variants.math_tables import table_variants
from verifier_variants.sql_world import SqlGold, sql_golds
from verifier_variants.variant import MathGold, Variant

from dphrl.progress import Progress, shown
from dphrl.types import Item, Verdict
from dphrl.verifiers import load_verifier
from dphrl.verifiers.workers.pool import default_workers

DATA = Path(__file__).parents[2] / "shared" / "data"
BATCH = 1024
TABLE_TIMES = 6
"""How often each row of the table is written, with other numbers."""
ECHO = "echo of the question"
MAX_SHOWN = 100
Gold = TypeVar("Gold", MathGold, SqlGold)


@dataclass(slots=True)
class Count:
    """Variants of one class and one side, and those that were judged wrongly."""

    all: int = 0
    ours: int = 0
    theirs: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, other: Count) -> None:
        self.all, self.ours, self.theirs = self.all + other.all, self.ours + other.ours, self.theirs + other.theirs


Counts = dict[tuple[bool, str], Count]
"""(whether it means the same, class) -> count."""


def per_1000(wrong: int, count: int) -> float | None:
    return round(1000 * wrong / count, 2) if count else None


def item_of(variant: Variant, number: int, *, prompt: bool) -> Item:
    item: Item = {"id": str(number), "gold": variant.gold, "completion": variant.completion}
    if prompt and variant.prompt:
        item["prompt"] = variant.prompt
    if variant.db:
        item |= {"db": variant.db, "mode": variant.mode}
    return item


def judge(verifier: str, items: Sequence[Item], progress: Progress) -> list[Verdict]:
    verify = load_verifier(verifier, {})
    verdicts: list[Verdict] = []
    for start in range(0, len(items), BATCH):
        progress(verifier, start, len(items))
        verdicts += verify(items[start : start + BATCH])
    return verdicts


def alone(pair: tuple[str, str]) -> bool:
    """math-verify's own verdict on (gold, completion)."""
    from math_verify import parse, verify

    try:
        return bool(verify(parse(f"\\boxed{{{pair[0]}}}"), parse(pair[1])))
    except Exception:  # of any library below it
        return False


def judged_alone(variants: Sequence[Variant], progress: Progress) -> Iterator[bool]:
    with multiprocessing.get_context("spawn").Pool(default_workers(), initializer=_quiet) as pool:
        pairs = [(variant.gold, variant.completion) for variant in variants]
        for number, correct in enumerate(pool.imap(alone, pairs, chunksize=32)):
            progress("math-verify", number, len(pairs))
            yield correct


def _quiet() -> None:
    logging.disable(logging.CRITICAL)


def counted(variants: Sequence[Variant], verdicts: Sequence[Verdict], theirs: Sequence[bool] | None) -> Counts:
    counts: Counts = defaultdict(Count)
    for number, (variant, verdict) in enumerate(zip(variants, verdicts, strict=True)):
        count = counts[variant.same, variant.rule]
        count.all += 1
        count.theirs += theirs is not None and theirs[number] != variant.same
        if verdict.correct != variant.same:
            count.ours += 1
            asked = f"{variant.source}{f', {variant.mode}' if variant.mode else ''}"
            count.shown.append(f"{verdict.status}: {variant.completion!r} for {variant.gold!r} ({asked})")
    return counts


def total(counts: Counts, same: bool) -> Count:
    """Of one side; echoes of the question apart."""
    whole = Count()
    for (side, rule), count in counts.items():
        if side == same and rule != ECHO:
            whole.add(count)
    return whole


def report(counts: Counts, *, beside: bool) -> dict[str, object]:
    """What the JSON line says of one verifier; by class [count, ours, math-verify's], both of 1,000."""
    same, changed = total(counts, True), total(counts, False)
    summary: dict[str, object] = {
        "same": same.all,
        "missed_per_1000": per_1000(same.ours, same.all),
        "changed": changed.all,
        "falsely_paid_per_1000": per_1000(changed.ours, changed.all),
    }
    if beside:
        summary |= {
            "math_verify_missed_per_1000": per_1000(same.theirs, same.all),
            "math_verify_falsely_paid_per_1000": per_1000(changed.theirs, changed.all),
            "missed_over_math_verify": round(same.ours / same.theirs, 3) if same.theirs else None,
        }
    for side, name in ((True, "missed"), (False, "falsely_paid")):
        summary[name] = {
            rule: [count.all, per_1000(count.ours, count.all), *([per_1000(count.theirs, count.all)] if beside else [])]
            for (same_side, rule), count in sorted(counts.items())
            if same_side == side
        }
    return summary


def print_table(name: str, counts: Counts, *, beside: bool) -> None:
    for side, title in ((True, "missed"), (False, "falsely paid")):
        rows = sorted((rule, count) for (same, rule), count in counts.items() if same == side)
        rows.sort(key=lambda row: -row[1].ours / row[1].all)
        print(f"\n{name}, {title} per 1,000{'':14}      n    ours{'  math-verify' if beside else ''}", file=sys.stderr)
        for rule, count in [*rows, ("all but echoes", total(counts, side))]:
            if count.all:
                theirs = f"{per_1000(count.theirs, count.all):13.1f}" if beside else ""
                print(f"  {rule:36} {count.all:7,} {per_1000(count.ours, count.all):7.1f}{theirs}", file=sys.stderr)


def show(counts: Counts, rule: str) -> None:
    for (same, name), count in sorted(counts.items()):
        if name == rule:
            print(f"\n{rule}: {'missed' if same else 'falsely paid'} {count.ours} of {count.all}", file=sys.stderr)
            print(*count.shown[:MAX_SHOWN], sep="\n", file=sys.stderr)


def limited(golds: Sequence[Gold], limit: int | None, seed: int) -> list[Gold]:
    """At most `limit` of each source, drawn."""
    by_source: dict[str, list[Gold]] = defaultdict(list)
    for gold in golds:
        by_source[gold.source].append(gold)
    rng = random.Random(seed)
    return [
        gold
        for part in by_source.values()
        for gold in (part if limit is None else rng.sample(part, min(limit, len(part))))
    ]


def measure_math(options: argparse.Namespace, progress: Progress) -> Counts:
    golds: list[MathGold] = limited(list(data_golds(options.data)), options.limit, options.seed)
    times = TABLE_TIMES if options.limit is None else max(1, min(TABLE_TIMES, options.limit // 10))
    table = table_variants(random.Random(options.seed), times)
    variants = [*math_variants(golds, options.seed), *table]
    if options.show:
        variants = [variant for variant in variants if variant.rule == options.show]
    items = [item_of(variant, number, prompt=not options.without_prompt) for number, variant in enumerate(variants)]
    verdicts = judge("math", items, progress)
    theirs = list(judged_alone(variants, progress)) if not options.alone else None
    return counted(variants, verdicts, theirs)


def measure_sql(options: argparse.Namespace, progress: Progress) -> Counts:
    golds = limited(list(sql_golds(options.data)), options.limit, options.seed)
    variants: list[Variant] = []
    for number, gold in enumerate(golds):
        progress("rewritings of SQL", number, len(golds))
        variants += sql_variants(gold, f"{options.seed} {number}")
    if options.show:
        variants = [variant for variant in variants if variant.rule == options.show]
    items = [item_of(variant, number, prompt=not options.without_prompt) for number, variant in enumerate(variants)]
    return counted(variants, judge("sql", items, progress), None)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="golds of each data set, >= 1 (default: all)")
    parser.add_argument("--only", choices=("math", "sql"), help="one verifier")
    parser.add_argument("--show", metavar="CLASS", help="measure this class alone, and print what fails in it")
    parser.add_argument("--seed", type=int, default=0, help="of all randomness (default: 0)")
    parser.add_argument(
        "--data", type=Path, default=DATA, help=f"folder of the data sets (default: {DATA.name} beside)"
    )
    parser.add_argument("--without-prompt", action="store_true", help="do not hand the question to the verifier")
    parser.add_argument("--alone", action="store_true", help="without math-verify beside")
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        parser.error(f"--limit {options.limit} must be at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = options_of(arguments)
    if not options.data.is_dir():
        print(f"{options.data} is not there: the golds are those of the shipped tables alone", file=sys.stderr)
    began = time.perf_counter()
    result: dict[str, object] = {"data": options.data.is_dir(), "seed": options.seed, "limit": options.limit}
    with shown() as progress:
        for name, run in (("math", measure_math), ("sql", measure_sql)):
            if options.only in (None, name):
                counts = run(options, progress)
                beside = name == "math" and not options.alone
                if options.show:
                    show(counts, options.show)
                else:
                    print_table(name, counts, beside=beside)
                result[name] = report(counts, beside=beside)
    result["seconds"] = round(time.perf_counter() - began, 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
