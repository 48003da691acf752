"""Prompts of an evaluation that training has seen: the same text, or nearly. Pure: records in, records out."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dphrl.errors import listed
from dphrl.metrics.summary import SeenInTraining
from dphrl.types import Prompt

GRAM = 8
"""Words of an n-gram."""
SHARE = 0.7
"""Share of a prompt's n-grams that must stand in one training prompt: the rule of PaLM, arXiv:2204.02311, section 8."""
BOILERPLATE = 10
"""An n-gram that stands in more training prompts than this is a turn of phrase (as NeMo Curator's max_matches). Words
that all of more than so many prompts begin or end with are their template, and left out."""
SHOWN_IDS = 3

_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d]+|[-+*/%<=>^|≤≥≠±√]")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_HYPHEN = re.compile(r"(?<=[^\W\d])-(?=[^\W\d]{2})")
_SIGNS = str.maketrans("−–—×·÷", "---**/")

Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """A prompt of an evaluation and the training prompt it stands in."""

    prompt_id: str
    trained_id: str
    share: float
    """Of its n-grams that the training prompt holds, in SHARE .. 1; 1 where the texts are the same."""
    exact: bool
    """The same words throughout."""


def words(text: str) -> Words:
    """What texts are compared by: NFKC, case folded, white space and punctuation dropped; numbers and the signs of
    arithmetic stay, since x+1 and x-1 are two problems. '1,000' is 1000; 'well-known' is two words."""
    folded = unicodedata.normalize("NFKC", text).translate(_SIGNS).casefold()
    return tuple(_WORD.findall(_HYPHEN.sub(" ", _THOUSANDS.sub("", folded))))


def contaminated(measured: Sequence[Prompt], trained: Sequence[Prompt]) -> tuple[Match, ...]:
    """The prompts of an evaluation that also stand in training.

    A prompt counts where all its words are those of a training prompt, with or without the words that all prompts of
    its set begin and end with (a template), or where at least SHARE of its word n-grams stand in one training prompt;
    n-grams in more than BOILERPLATE training prompts do not count as shared. A prompt of fewer than GRAM words can only
    match exactly. Two prompts on databases of different names are never the same; a schema in the text is left out.
    Paraphrases and translations are not found.

    Args:
        measured, trained: prompts as the tasks give them; ids are unique within each.
    Returns:
        At most one match for each measured prompt, the closest, in the order of `measured`.
    Source: PaLM (arXiv:2204.02311, section 8) for the share of 8-grams, there of all training data. Any shared 13-gram,
        as GPT-3 has it (arXiv:2005.14165, appendix C), found turns of phrase alone; docs/decisions/0025-bridges.md.
    """
    measured_texts, trained_texts = [_Text.of(p) for p in measured], [_Text.of(p) for p in trained]
    measured_bare, trained_bare = _bare(measured_texts), _bare(trained_texts)
    same = {text: p.id for text, p in reversed([*zip(trained_texts, trained, strict=True)])}
    same_bare = {text: p.id for text, p in reversed([*zip(trained_bare, trained, strict=True)])}
    nearest = _nearest(measured_bare, trained_texts)
    matches = []
    for prompt, whole, bare, (place, share) in zip(measured, measured_texts, measured_bare, nearest, strict=True):
        exact = (same.get(whole) if whole.words else None) or (same_bare.get(bare) if bare.words else None)
        if exact is not None:
            matches.append(Match(prompt.id, exact, 1.0, True))
        elif share >= SHARE:
            matches.append(Match(prompt.id, trained[place].id, share, False))
    return tuple(matches)


def contamination_note(dataset: str, seen: SeenInTraining | None, who: str = "training") -> str:
    """'gsm8k: 3 prompts also stand in training (2 word for word): a, b, c'; '' where there is none.

    Args:
        seen: the dataset's prompts that stand in training; None = not known.
        who: whose training.
    """
    if seen is None or not seen.prompts:
        return ""
    ids, count = list(seen.ids), seen.prompts
    these = "a prompt also stands" if count == 1 else f"{count} prompts also stand"
    return f"{dataset}: {these} in {who} ({seen.exact} word for word): {listed(ids, SHOWN_IDS)}"


@dataclass(frozen=True, slots=True)
class _Text:
    """What is compared of one prompt."""

    words: Words
    scope: str
    """Name of its database; empty where it has none."""

    @classmethod
    def of(cls, prompt: Prompt) -> _Text:
        text = prompt.prompt if isinstance(prompt.prompt, str) else "\n".join(m["content"] for m in prompt.prompt)
        schema = prompt.columns.get("schema")
        database = os.path.basename(str(prompt.columns.get("db") or ""))  # noqa: PTH119 - a name, no file is asked for
        return cls(words(text.replace(schema, " ") if isinstance(schema, str) and schema else text), database)

    def grams(self) -> set[tuple[Words, str]]:
        """Its n-grams, told apart by database."""
        return {(self.words[i : i + GRAM], self.scope) for i in range(len(self.words) - GRAM + 1)}


def _bare(texts: Sequence[_Text]) -> list[_Text]:
    """The texts without the words that all of them begin and end with, where there are enough to tell."""
    if len(texts) <= BOILERPLATE:
        return list(texts)
    head = _shared([t.words for t in texts])
    tail = _shared([t.words[head:][::-1] for t in texts])
    return [_Text(t.words[head : len(t.words) - tail], t.scope) for t in texts]


def _shared(texts: Iterable[Words]) -> int:
    """Length of the longest common beginning: that of the first and the last text in order is that of all."""
    ordered = list(texts)
    first, last = min(ordered), max(ordered)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def _nearest(measured: Sequence[_Text], trained: Sequence[_Text]) -> list[tuple[int, float]]:
    """For each measured text the place of the training text that holds most of its n-grams, and their share."""
    grams = [text.grams() for text in measured]
    wanted = set().union(*grams)
    places: dict[tuple[Words, str], list[int]] = defaultdict(list)
    for place, text in enumerate(trained):
        for gram in text.grams() & wanted:
            places[gram].append(place)
    rare = {gram: where for gram, where in places.items() if len(where) <= BOILERPLATE}
    nearest = []
    for own in grams:
        counts = Counter(place for gram in own for place in rare.get(gram, ()))
        place, count = min(counts.items(), key=lambda item: (-item[1], item[0]), default=(0, 0))
        nearest.append((place, count / len(own) if own else 0.0))
    return nearest
