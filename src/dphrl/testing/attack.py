"""One call that attacks a verifier and says what is wrong with it."""

from __future__ import annotations

import contextlib
import math
import random
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dphrl.errors import DataError
from dphrl.testing.hostile import hostile_texts
from dphrl.types import Item, Verdict, VerifyFn

APART = 16
"""Hostile texts between two honest items."""
BATCH = 8
MAX_SHOWN = 60


@dataclass(frozen=True, slots=True)
class _Case:
    """One completion to send, and what a finding calls it."""

    name: str
    item: Item
    place: int
    """Which of the caller's items it belongs to, from 0."""
    honest: bool
    may_be_right: bool


_Findings = dict[str, dict[str, list[int]]]
"""What happened -> what it happened to -> places of the items."""


def check_verifier(verify: VerifyFn, *, items: Sequence[Item], most_reward: float = 0.0, seed: int = 0) -> None:
    """Attack a verifier with about ninety hostile texts for each honest item.

    What must hold: it never raises; there is one verdict per item, in order, the same alone, in batches of any size, in
    any order and each time; the honest items are correct before, between and after the hostile texts; no hostile text
    is correct, earns more than `most_reward`, or could not be judged (reward None), unless it equals the gold; no file
    appears or changes in the current directory. A verifier that never returns is beyond this function.

    Args:
        verify: the verifier. A reward function for TRL becomes one by `load_verifier("module:function", {})`.
        items: honest completions with all that the verifier needs, each of which must be judged correct; at least one.
        most_reward: what a wrong completion may earn at most, for rewards with partial credit.
        seed: of the shuffled order.
    Raises:
        AssertionError: names every text that did harm, and what happened.
        DataError: no items, or one without a completion.
    Example:
        check_verifier(load_verifier("math", {}), items=[{"completion": r"so \\boxed{6}", "gold": "6"}])
    """
    cases = _cases(items)
    findings: _Findings = {}
    files = _files()
    alone = _judge_alone(verify, cases, most_reward, findings)
    for name, batches in _passes(cases, alone, seed):
        for batch in batches:
            _compare(verify, [cases[i] for i in batch], [alone[i] for i in batch], name, findings)
    files_after = _files()
    for file in sorted(files.keys() | files_after.keys()):
        if files.get(file) != files_after.get(file) and file != "__pycache__":
            _note(findings, "made or changed in the current directory", ascii(file))
    if findings:
        faults = [_said_of(what, subjects, len(items)) for what, subjects in findings.items()]
        numbered = "\n".join(f"{number}. {fault}" for number, fault in enumerate(faults, start=1))
        raise AssertionError(f"faults of the verifier: {len(faults)}\n{numbered}")


def _cases(items: Sequence[Item]) -> list[_Case]:
    """Honest items first."""
    if not items:
        raise DataError("check_verifier got no items; give honest completions that must be judged correct")
    for place, item in enumerate(items):
        if not isinstance(item.get("completion"), str):
            raise DataError(f"item {place} has no text 'completion'; it has {', '.join(map(repr, item)) or 'nothing'}")
    honest = [_Case(f"honest completion {_short(i['completion'])}", i, n, True, True) for n, i in enumerate(items)]
    hostile = [
        _Case(f"{name} {_short(text)}", {**item, "completion": text}, place, False, _is_gold(text, item))
        for place, item in enumerate(items)
        for name, text in hostile_texts(item).items()
    ]
    return honest + hostile


def _is_gold(text: str, item: Item) -> bool:
    return text.strip() in (str(item.get("gold")).strip(), item["completion"].strip())


def _judge_alone(
    verify: VerifyFn, cases: Sequence[_Case], most_reward: float, findings: _Findings
) -> dict[int, Verdict]:
    """Number of a case -> its verdict; those that cannot be judged alone are left out of the later passes."""
    judged = {}
    for number, case in enumerate(cases):
        verdicts = _call(verify, [case])
        if isinstance(verdicts, str):
            _note(findings, verdicts, case.name, case.place)
            continue
        judged[number] = verdicts[0]
        for fault in _faults(case, verdicts[0], most_reward):
            _note(findings, fault, case.name, case.place)
    return judged


def _faults(case: _Case, verdict: Verdict, most_reward: float) -> Iterator[str]:
    detail = f" ({_short(verdict.detail, quoted=False)})" if verdict.detail else ""
    if verdict.correct != (verdict.status == "correct"):
        yield f"correct={verdict.correct} does not fit status {verdict.status!r}"
    if case.honest:
        if not verdict.correct:
            yield f"must be judged correct, was {verdict.status}{detail}"
        elif verdict.reward is not None and verdict.reward <= most_reward:
            yield f"correct, yet its reward {verdict.reward:g} is no more than a wrong completion may earn"
    elif verdict.reward is None:
        yield f"could not be judged: {verdict.status}{detail}; a completion's text is never a reason for no reward"
    elif not case.may_be_right and (verdict.correct or verdict.reward > most_reward):
        yield f"rewarded: {verdict.status}, reward {verdict.reward:g}; it is no right answer"


def _passes(cases: Sequence[_Case], judged: Iterable[int], seed: int) -> Iterator[tuple[str, list[list[int]]]]:
    """Name -> batches of the cases that can be judged at all: every way of sending them must give the same verdicts."""
    honest = [number for number in judged if cases[number].honest]
    hostile = [number for number in judged if not cases[number].honest]
    mixed = list(honest)
    for start in range(0, len(hostile), APART):
        mixed += [*hostile[start : start + APART], *honest]
    yield "in one batch", [mixed]
    yield "in the same batch again", [mixed]
    yield f"in batches of {BATCH}", [mixed[start : start + BATCH] for start in range(0, len(mixed), BATCH)]
    yield "in a shuffled batch", [random.Random(seed).sample(mixed, len(mixed))]
    yield "alone again, after all else", [[number] for number in mixed]
    yield "in an empty batch", [[]]


def _compare(
    verify: VerifyFn, batch: Sequence[_Case], alone: Sequence[Verdict], name: str, findings: _Findings
) -> None:
    """Note every case whose verdict is another than when it was judged alone; the detail may differ."""
    verdicts = _call(verify, batch)
    if isinstance(verdicts, str):
        subject = batch[0].name if len(batch) == 1 else f"{len(batch)} completions that were judged alone"
        _note(findings, f"{verdicts}, {name}", subject)
        return
    for case, verdict, before in zip(batch, verdicts, alone, strict=True):
        if (verdict.correct, verdict.reward, verdict.status) != (before.correct, before.reward, before.status):
            what = f"{_said(before)} when first judged alone, but {_said(verdict)} {name}"
            _note(findings, what, case.name, case.place)


def _said(verdict: Verdict) -> str:
    return f"{verdict.status} (reward {verdict.reward})"


def _call(verify: VerifyFn, batch: Sequence[_Case]) -> list[Verdict] | str:
    """The verdicts, or what is wrong with the call in words."""
    try:
        answer: Any = verify([dict(case.item) for case in batch])
        verdicts = None if answer is None else list(answer)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a text that ends the program is a finding
        return f"raised {type(error).__name__}: {_short(str(error), quoted=False, most=4 * MAX_SHOWN)}"
    if verdicts is None:
        return "returned None instead of verdicts"
    if len(verdicts) != len(batch):
        return f"{len(verdicts)} verdicts for {len(batch)} completions"
    return next(filter(None, map(_contract_fault, verdicts)), verdicts)


def _contract_fault(verdict: Any) -> str:
    """What makes it no proper verdict, or ''."""
    if not isinstance(verdict, Verdict):
        return (
            f"returned a {type(verdict).__name__} where a Verdict must stand (a reward function for TRL becomes a "
            'verifier by load_verifier("module:function", {}))'
        )
    correct: Any = verdict.correct
    if not isinstance(correct, bool):
        return f"a verdict with correct={correct!r}, which is neither True nor False"
    reward: Any = verdict.reward
    is_number = isinstance(reward, int | float) and not isinstance(reward, bool) and math.isfinite(reward)
    return "" if reward is None or is_number else f"a verdict with reward={reward!r}, which is no finite number"


def _files() -> dict[str, tuple[int, int]]:
    """Name -> size and time of change of what lies in the current directory; a folder only by its name."""
    facts = {}
    for path in Path().iterdir():
        with contextlib.suppress(FileNotFoundError):  # it went away meanwhile
            status = path.lstat()
            facts[path.name] = (0, 0) if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns)
    return facts


def _note(findings: _Findings, what: str, subject: str, *places: int) -> None:
    findings.setdefault(what, {}).setdefault(subject, []).extend(places)


def _said_of(what: str, subjects: Mapping[str, Sequence[int]], items: int) -> str:
    """One fault in words, with all that shows it."""
    names = []
    for subject, places in subjects.items():
        numbers = ", ".join(map(str, sorted(set(places))))
        names.append(f"{subject} (of item {numbers})" if items > 1 and numbers else subject)
    return f"{what}: {names[0]}" if len(names) == 1 else "\n   - ".join([f"{what}:", *names])


def _short(text: str, *, quoted: bool = True, most: int = MAX_SHOWN) -> str:
    """The beginning of a text, all of it printable."""
    shown = ascii(text[:most])
    return (shown if quoted else shown[1:-1]) + ("..." if len(text) > most else "")
