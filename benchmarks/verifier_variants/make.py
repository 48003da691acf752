"""From golds to variants: which classes of rewriting are tried on a gold, and what is kept."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sqlglot.errors import SqlglotError

from verifier_variants.math_changed import CHANGED
from verifier_variants.math_same import SAME
from verifier_variants.sql_changed import COMPLETIONS_CHANGED, QUERIES_CHANGED, nothing_of_the_tables
from verifier_variants.sql_same import COMPLETIONS_SAME, QUERIES_SAME, SqlRewrite
from verifier_variants.sql_world import (
    Result,
    SqlGold,
    in_order,
    result,
    same_bag,
    surely_different,
    surely_same,
    tie_blocks,
)
from verifier_variants.variant import MathGold, Variant, fitting

CLASSES_A_GOLD = 3
"""Classes on each side that are tried on a gold; which ones is drawn."""
RARE = 200
"""A class that fits fewer golds than this, and than a tenth of all, or than 20, is tried on each of them."""
_ENDS = ("; -- note", ";;", ";\n/* done */", " -- x", ";")


def math_variants(golds: Sequence[MathGold], seed: int) -> Iterator[Variant]:
    """One completion of each class drawn for a gold, all of a rare class."""
    for same, rules in ((True, SAME), (False, CHANGED)):
        rng = random.Random(f"{seed} {same}")
        written = [fitting(rules, rng, gold) for gold in golds]
        rare = _rare(written)
        for gold, classes in zip(golds, written, strict=True):
            drawn = rng.sample(sorted(classes), min(CLASSES_A_GOLD, len(classes)))
            for rule in sorted({*drawn, *(rare & classes.keys())}):
                for completion in classes[rule] if rule in rare else (rng.choice(classes[rule]),):
                    yield Variant(
                        rule=rule,
                        same=same,
                        gold=gold.text,
                        completion=completion,
                        source=gold.source,
                        prompt=gold.prompt,
                    )


def _rare(written: Iterable[Mapping[str, object]]) -> set[str]:
    counts: dict[str, int] = {}
    total = 0
    for classes in written:
        total += 1
        for rule in classes:
            counts[rule] = counts.get(rule, 0) + 1
    return {rule for rule, count in counts.items() if count < max(20, min(RARE, total // 10))}


def sql_variants(gold: SqlGold, seed: str) -> Iterator[Variant]:
    """Rewritings that were found to mean the same, or something else; none where SQLite does not run the gold query."""
    rng = random.Random(seed)
    if result(gold.db, gold.sql) is not None:
        mode = rng.choice(("spider", "spider", "bird"))
        yield from _same(rng, gold, mode)
        yield from _changed(rng, gold, mode)


def _same(rng: random.Random, gold: SqlGold, mode: str) -> Iterator[Variant]:
    plain, blocks = result(gold.db, gold.sql), tie_blocks(gold)
    assert plain is not None
    ordered = "order by" in " ".join(gold.sql.lower().split())
    for rule, query in _written(QUERIES_SAME, rng, gold):
        rows = result(gold.db, query)
        if rows is None:
            continue
        if rule == "ties":
            holds = blocks is not None and in_order(blocks, rows)
        elif mode == "bird" or ordered:
            holds = surely_same(plain, rows) or (
                rule == "columns reordered" and mode == "spider" and same_bag(plain, rows)
            )
        else:
            holds = same_bag(plain, rows)
        if holds and not (rule == "columns reordered" and mode == "bird"):
            yield _variant(rule, True, gold, _given(rng, query), mode)
    for rule, completion in _written(COMPLETIONS_SAME, rng, gold):
        yield _variant(rule, True, gold, completion, mode)
    end = rng.choice(_ENDS)
    yield _variant("gold with an end", True, gold, _given(rng, gold.sql), mode, end)


def _changed(rng: random.Random, gold: SqlGold, mode: str) -> Iterator[Variant]:
    plain, blocks = result(gold.db, gold.sql), tie_blocks(gold)
    assert plain is not None
    for rule, query in _written(QUERIES_CHANGED, rng, gold):
        rows = result(gold.db, query)
        if rows is None:
            continue
        if surely_different(plain, rows, mode):
            yield _variant(rule, False, gold, _given(rng, query), mode)
        elif mode == "spider" and blocks is not None and _another_order(plain, blocks, rows):
            yield _variant(rule, False, gold, _given(rng, query), mode)
            yield _variant("gold with an end", False, gold, _given(rng, query), mode, rng.choice(_ENDS))
    for rule, completion in _written(COMPLETIONS_CHANGED, rng, gold):
        if plain != (("nothing of this kind",),):
            yield _variant(rule, False, gold, completion, mode)
    if not plain:
        for query in nothing_of_the_tables(rng, gold):
            yield _variant("nothing of the tables", False, gold, _given(rng, query), mode)


def _another_order(plain: Result, blocks: list[Result], rows: Result) -> bool:
    """The gold's rows in an order that it does not allow; of one column, as the order of more may make up for it."""
    return bool(plain) and len(plain[0]) == 1 and same_bag(plain, rows) and not in_order(blocks, rows)


def _written(rules: Mapping[str, SqlRewrite], rng: random.Random, gold: SqlGold) -> Iterator[tuple[str, str]]:
    """One text of each of the classes drawn that fit; what is the gold itself is none."""
    left = 2 * CLASSES_A_GOLD if len(rules) > 2 * CLASSES_A_GOLD else 2
    for rule in rng.sample(sorted(rules), len(rules)):
        try:
            texts = [text for text in rules[rule](rng, gold) if text != gold.sql or rule == "no fence"]
        except (SqlglotError, ValueError, AttributeError):  # a tree of a shape the program was not written for
            continue
        if texts and left:
            left -= 1
            yield rule, rng.choice(texts)


def _given(rng: random.Random, query: str) -> str:
    return rng.choice(("```sql\n{}\n```", "{}", "I join the tables.\n```sql\n{};\n```")).replace("{}", query)


def _variant(rule: str, same: bool, gold: SqlGold, completion: str, mode: str, end: str = "") -> Variant:
    return Variant(
        rule=rule,
        same=same,
        gold=gold.sql + end,
        completion=completion,
        source=gold.source,
        prompt=gold.prompt,
        db=gold.db,
        mode=mode,
    )
