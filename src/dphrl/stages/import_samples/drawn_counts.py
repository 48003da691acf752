"""How many draws of a prompt count, and which: what a file has too many or too few of is left out and said. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dphrl.errors import ConfigError, DataError, listed
from dphrl.stages.import_samples.sample import Sample


@dataclass(frozen=True, slots=True)
class Draws:
    """The samples of one model on one task that count, by prompt."""

    n: int
    by_prompt: Mapping[str, Sequence[Sample]]
    """At most n of each."""
    notes: tuple[str, ...]


def counted_draws(name: str, drawn: Mapping[str, Sequence[Sample]], n: int | None) -> Draws:
    """The same number of draws for every prompt: `n`, else the smallest number that a prompt has.

    Which draws of a prompt are left out depends on their texts and verdicts alone, by a digest, and never on their
    order in the file.

    Args:
        name: of model and task, for the notes.
        drawn: prompt -> its samples, at least one each.
        n: --n; prompts with fewer keep what they have.
    """
    counts = Counter(map(len, drawn.values()))
    chosen = n or min(counts)
    if max(counts) < chosen:
        raise ConfigError(f"--n {chosen}: {name} has no prompt with more than {max(counts)} completions")
    kept = {key: list(samples) if len(samples) <= chosen else _some(samples, chosen) for key, samples in drawn.items()}
    told = ", ".join(f"{prompts} with {count}" for count, prompts in sorted(counts.items()))
    notes = []
    left_out = sum(map(len, drawn.values())) - sum(map(len, kept.values()))
    if left_out:
        more = [f"{key}: {len(samples)}" for key, samples in drawn.items() if len(samples) > chosen]
        usual = counts.most_common(1)[0][0]
        doubled = sum(1 for samples in drawn.values() if len(samples) >= 2 * usual and len(samples) % usual == 0)
        why = "--n" if n else "the fewest of any prompt"
        notes.append(
            f"{name}: n = {chosen}, {why} (prompts: {told}). {left_out} completions are left out, of {len(more)} "
            f"prompts ({listed(sorted(more))})."
            + (f" {doubled} prompts have a multiple of {usual}: a question that stands there twice?" if doubled else "")
            + (
                ""
                if n or max(counts) == chosen
                else f" --n {usual} takes {usual} where they are there."
                if usual != chosen
                else ""
            )
        )
    short = sorted(f"{key}: {len(samples)}" for key, samples in kept.items() if len(samples) < chosen)
    if short:
        notes.append(
            f"{name}: {len(short)} of {len(kept)} prompts have fewer than {chosen} completions ({listed(short)}); the "
            f"missing ones count as not judged, and Pass@{chosen}, keep and explore rest on the other prompts."
        )
    return Draws(chosen, kept, tuple(notes))


def notes_on_prompts(name: str, samples: Iterable[Sample]) -> tuple[str, ...]:
    """What the prompts themselves tell: unjudged completions, and one question under several ids.

    Raises:
        DataError: one id for two questions, by prompt and gold: two sets in one file, or ids that are none.
    """
    asked: dict[str, Sample] = {}
    ids: dict[str, set[str]] = {}
    judged: Counter[str] = Counter()
    unjudged: Counter[str] = Counter()
    reworded: set[str] = set()
    for sample in samples:
        key, first = sample.prompt_id, asked.setdefault(sample.prompt_id, sample)
        if sample.prompt != first.prompt:
            if sample.gold != first.gold:
                raise DataError(
                    f"{name}: the id {key!r} stands for two questions, {first.prompt[:60]!r} (gold {first.gold[:20]!r})"
                    f" and {sample.prompt[:60]!r} (gold {sample.gold[:20]!r}): two sets in one file? Tell them apart "
                    "by --task NAME=PATTERN or a column, --columns '{task: COLUMN, ...}'"
                )
            reworded.add(key)
        if sample.prompt:
            ids.setdefault(sample.prompt, set()).add(key)
        (unjudged if sample.right is None else judged)[key] += 1
    notes = []
    if unjudged:
        notes.append(
            f"{name}: {unjudged.total()} of {unjudged.total() + judged.total()} completions were not judged; they "
            f"concern {len(unjudged)} of {len(asked)} prompts, on the others rest Pass@n, keep and explore."
        )
    doubled = sorted(f"{' = '.join(sorted(keys))}" for keys in ids.values() if len(keys) > 1)
    if doubled:
        notes.append(f"{name}: {len(doubled)} questions stand under several ids ({listed(doubled)}); each id counts.")
    if reworded:
        notes.append(
            f"{name}: {len(reworded)} ids come with several wordings of the prompt ({listed(sorted(reworded))})."
        )
    return tuple(notes)


def _some(samples: Sequence[Sample], n: int) -> list[Sample]:
    """n of the samples, in their order: those with the smallest digests."""
    seen: Counter[str] = Counter()
    ranked = []
    for place, sample in enumerate(samples):
        content = f"{sample.right}\0{sample.reward}\0{sample.text}"
        digest = hashlib.blake2b(f"{seen[content]}\0{content}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        seen[content] += 1
        ranked.append((digest, place))
    return [samples[place] for place in sorted(place for _, place in sorted(ranked)[:n])]
