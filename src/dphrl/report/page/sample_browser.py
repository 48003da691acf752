"""The browser of samples: a bounded number of prompts, chosen by a stated rule, with completions of every method."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Literal

from dphrl.report.comparison import Entry
from dphrl.report.page.cut_text import cut, cut_middle
from dphrl.report.page.prompt_spots import PromptSpots, prompt_spots
from dphrl.runs.samples import HEAVY, DrawKey, draw_key, read_samples
from dphrl.types import GREEDY_DRAW, NO_REWARD, Completion

State = Literal["lost", "found", "kept", "unsolved", "solved", "unjudged"]
"""Against the base in the same draws; `solved` and `unsolved` alone where there is no base; `unjudged` where a draw
without a verdict could have been the right one, as keep and explore leave such prompts out."""

CELLS = 600
"""Most (prompt, method) pairs on the page; each shows two completions at most."""
ROOM = 1_200_000
"""Bytes that all completions, prompts and golds share."""
LEAST, MOST = 160, 4_000
"""Bytes of one text: no less, no more."""

RULE = (
    "For each task, in turn: a prompt that most methods lost, one that most methods found, one of the others, until {} "
    "prompts are shown. Of each method the first right and the first wrong completion; the greedy one comes first."
)

Draws = dict[str, dict[int, str]]
"""Prompt id -> draw -> status."""
Texts = Mapping[DrawKey, Completion]
BASE = Entry("base")
EVALUATE_AGAIN = "delete it and run `dphrl eval` again"


@dataclass(frozen=True, slots=True)
class AskedPrompt:
    """What a model was asked, as far as it is known."""

    prompt: str
    gold: str


AskedPrompts = Mapping[str, Mapping[str, AskedPrompt]]
"""Task -> prompt id -> the prompt."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One completion as the page shows it."""

    draw: str
    status: str
    right: bool
    text: str
    """Its beginning, where letters are left out."""
    left_out: int
    """Letters that are not shown."""
    end: str
    """What follows them; '' where all are shown."""
    detail: str
    cut_off: bool
    """Whether the completion ended at the token limit."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One method on one prompt."""

    entry: Entry
    state: State
    right: int
    drawn: int
    completions: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt with every method's completions."""

    dataset: str
    prompt_id: str
    prompt: str
    gold: str
    left_out: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Browser:
    """The content of the page's browser of samples."""

    cases: tuple[Case, ...]
    rule: str
    spots: tuple[PromptSpots, ...] = ()
    """Every prompt of every trained method against the base; a task a method."""


def browse(files: Mapping[tuple[Entry, str], Path], asked: AskedPrompts) -> Browser | None:
    """Choose prompts and completions; None where there is nothing to show.

    Args:
        files: (entry, dataset) -> Parquet of its samples; one seed of each entry.
        asked: dataset -> prompt id -> its text and gold, as far as they are known.
    Raises:
        RunDirError: a file that cannot be read.
    """
    datasets = list(dict.fromkeys(dataset for _, dataset in files))
    if not datasets:
        return None
    each = max(1, CELLS // len(files))
    picked: list[tuple[str, str, dict[Entry, Draws]]] = []
    spots: list[PromptSpots] = []
    for dataset in datasets:
        drawn = {entry: _statuses(path) for (entry, d), path in files.items() if d == dataset}
        ids = _chosen(drawn, each)
        picked += [(dataset, i, drawn) for i in ids]
        if (base := drawn.get(BASE)) is not None:
            others = {entry: draws for entry, draws in drawn.items() if entry != BASE}
            spots += [prompt_spots(entry, dataset, base, draws, set(ids)) for entry, draws in others.items()]
    wanted: dict[tuple[Entry, str], set[str]] = {}
    for dataset, i, drawn in picked:
        for entry in drawn:
            wanted.setdefault((entry, dataset), set()).add(i)
    texts = {key: _texts(files[key], ids) for key, ids in wanted.items()}
    room = max(LEAST, min(MOST, ROOM // max(1, sum(2 * len(drawn) + 2 for _, _, drawn in picked))))
    cases = tuple(_case(d, i, drawn, texts, asked.get(d, {}).get(i), room) for d, i, drawn in picked)
    shown = Counter(case.dataset for case in cases)
    return Browser(cases, RULE.format(max(shown.values())), tuple(spots)) if cases else None


def state(base: Mapping[int, str] | None, draws: Mapping[int, str]) -> State:
    """What became of a prompt, the greedy completion aside."""
    now, before = _solved(draws), _solved(base) if base is not None else None
    if now is None or (base is not None and before is None):
        return "unjudged"
    if base is None:
        return "solved" if now else "unsolved"
    if before:
        return "kept" if now else "lost"
    return "found" if now else "unsolved"


def _solved(draws: Mapping[int, str]) -> bool | None:
    """None where nothing is right and something was not judged."""
    sampled = [status for draw, status in draws.items() if draw != GREEDY_DRAW]
    if "correct" in sampled:
        return True
    return None if NO_REWARD & set(sampled) else False


def _chosen(drawn: Mapping[Entry, Draws], limit: int) -> list[str]:
    """Lost, found and other prompts in turn; within each those of most methods first, ties by a hash of the id."""
    base = drawn.get(Entry("base"))
    counts: dict[str, dict[str, int]] = {}
    for entry, draws in drawn.items():
        for i, of_prompt in draws.items():
            mark = state(base.get(i) if base is not None and entry.method != "base" else None, of_prompt)
            tally = counts.setdefault(i, {"lost": 0, "found": 0})
            if mark in tally:
                tally[mark] += 1
    hashed = sorted(counts, key=lambda i: hashlib.blake2b(i.encode(), digest_size=8).digest())
    lost = sorted((i for i in hashed if counts[i]["lost"]), key=lambda i: -counts[i]["lost"])
    found = sorted((i for i in hashed if counts[i]["found"] and i not in set(lost)), key=lambda i: -counts[i]["found"])
    others = [i for i in hashed if not any(counts[i].values())]
    turns: Iterable[str | None] = chain.from_iterable(zip_longest(lost, found, others))
    return [i for i in turns if i is not None][:limit]


def _case(
    dataset: str,
    prompt_id: str,
    drawn: Mapping[Entry, Draws],
    texts: Mapping[tuple[Entry, str], Texts],
    asked: AskedPrompt | None,
    room: int,
) -> Case:
    base = drawn.get(Entry("base"), {}).get(prompt_id)
    cells = []
    for entry, draws in drawn.items():
        of_prompt = draws.get(prompt_id)
        if of_prompt is None:
            continue
        rows = texts[entry, dataset]
        shown = tuple(_shown(rows[prompt_id, draw], room) for draw in _two(of_prompt))
        sampled = [status for draw, status in of_prompt.items() if draw != GREEDY_DRAW]
        against = base if entry.method != "base" else None
        cells.append(Cell(entry, state(against, of_prompt), sampled.count("correct"), len(sampled), shown))
    prompt, left_out = cut(asked.prompt, room, keep_end=True) if asked else ("", 0)
    gold, _ = cut(asked.gold, room) if asked else ("", 0)
    return Case(dataset, prompt_id, prompt, gold, left_out, tuple(cells))


def _two(draws: Mapping[int, str]) -> Iterator[int]:
    """The first right and the first wrong draw; one that could not be judged where there is no other."""
    order = sorted(draws)  # the greedy one is -1
    right = next((d for d in order if draws[d] == "correct"), None)
    wrong = next((d for d in order if draws[d] != "correct" and draws[d] not in NO_REWARD), None)
    yield from sorted(d for d in (right, wrong) if d is not None) or order[:1]


def _shown(completion: Completion, room: int) -> Shown:
    verdict = completion.verdict
    assert verdict is not None  # what is stored was verified
    text, left_out, end = cut_middle(completion.text, room)
    draw = "greedy" if completion.draw == GREEDY_DRAW else f"draw {completion.draw + 1}"
    detail, _ = cut(verdict.detail, LEAST)
    return Shown(
        draw, verdict.status, verdict.correct, text, left_out, end, detail, completion.finish_reason == "length"
    )


def _statuses(path: Path) -> Draws:
    statuses: Draws = {}
    for c in read_samples(path, without=HEAVY, remedy=EVALUATE_AGAIN):
        statuses.setdefault(c.prompt_id, {})[c.draw] = c.verdict.status if c.verdict else ""
    return statuses


def _texts(path: Path, ids: set[str]) -> Texts:
    """The completions of some prompts: the texts of a whole evaluation may be larger than memory."""
    completions = read_samples(path, without=["token_ids"], prompt_ids=ids, remedy=EVALUATE_AGAIN)
    return {draw_key(c): c for c in completions}
