"""`dphrl import`: other tools' completions and verdicts become an evaluation directory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

from dphrl.errors import ConfigError, DataError, RunDirError, nearest
from dphrl.files import replaced_dir
from dphrl.metrics.intervals import RESAMPLES
from dphrl.progress import Progress, silent
from dphrl.report.page.sample_browser import AskedPrompt, AskedPrompts
from dphrl.runs.eval_dir import BASE, EvalDir, Model, add_samples, is_evaldir, read_evaldir, write_evaldir
from dphrl.runs.run_dir import installed_versions
from dphrl.stages.import_samples.asked_prompts import write_asked_prompts
from dphrl.stages.import_samples.drawn_counts import counted_draws, notes_on_prompts
from dphrl.stages.import_samples.judged_samples import judged
from dphrl.stages.import_samples.sample import Sample
from dphrl.stages.import_samples.sample_files import PlacedSample, Reading, Source, read_source
from dphrl.types import GREEDY_DRAW, Completion, Verdict

MADE_BY = "dphrl import"
MADE_BY_BEFORE = "dphrl report --samples"
"""What the command was once called; directories that it made are replaced as well."""

Group = tuple[str, str]
"""Model and task, by the names of their folder and file."""


def import_samples(
    sources: Sequence[Source],
    out: Path,
    *,
    base: str | None = None,
    reading: Reading = Reading(),  # noqa: B008 - frozen
    n: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[EvalDir, tuple[str, ...]]:
    """Make an evaluation directory of files of completions and verdicts; docs/other-tools.md has the shapes.

    The completions of a prompt are numbered in the order in which they come. n is the smallest number of completions
    that a prompt has; what others have beyond it is left out and counted in the notes. With `n` given, a prompt with
    fewer counts its missing completions as not judged: they are in no rate.

    Args:
        sources: files of samples, at least one.
        out: the directory; new, or one that this function made, which is then replaced as a whole.
        base: the model that keep and explore refer to, by the name in the lines or of its folder; None = the one called
            "base", else none.
        reading: which number is right or wrong, which column is what, and which task a prompt is of.
        n: draws of a prompt that count; None = the fewest that a prompt has.
        resamples, seed: of the intervals.
    Returns:
        The directory, and what the user should know of the files, in short lines.
    Raises:
        DataError: a file or line that cannot be read (names the line); models on different prompts; steps mixed.
        ConfigError: no such base. RunDirError: `out` holds something else. Nothing is written in any of these cases.
    """
    _check_out(out)
    samples, told = _read(sources, reading, progress)
    models = _models(samples, base)
    groups = _groups(samples)
    measured = {key: _completions(key, of_group, n) for key, of_group in groups.items()}
    completions = {key: found for key, (found, _) in measured.items()}
    notes = tuple(
        dict.fromkeys((*told, *(s.note for s in samples if s.note), *(t for _, of in measured.values() for t in of)))
    )
    with replaced_dir(out) as staging:
        tasks = list(dict.fromkeys(task for _, task in groups))
        write_evaldir(staging, models, tasks, {**_made(sources, reading), "notes": list(notes)})
        for key, base_key in _in_order(models, tasks, groups):
            progress(f"measure {' '.join(key)}", 0, 1)
            add_samples(
                staging,
                *key,
                completions[key],
                base=None if base_key is None else completions.get(base_key),
                resamples=resamples,
                seed=seed,
                facts=_not_known(groups[key]),
            )
            progress(f"measure {' '.join(key)}", 1, 1)
        write_asked_prompts(staging, _asked(samples))
    return read_evaldir(out), notes


def _read(sources: Sequence[Source], reading: Reading, progress: Progress) -> tuple[list[PlacedSample], list[str]]:
    """Every sample of the files, judged where that was asked for, and a note of it."""
    samples = [sample for source in sources for sample in read_source(source, reading, progress)]
    if not samples:
        raise DataError("the files hold no line; there is nothing to report")
    if reading.scale.verifier is None:
        return samples, []
    samples, note = judged(samples, reading.scale.verifier)
    return samples, [note]


def _made(sources: Sequence[Source], reading: Reading) -> dict[str, object]:
    """How the directory came to be, without the notes."""
    scale = reading.scale
    asked = {"reward": scale.reward, "threshold": scale.threshold, "verifier": scale.verifier}
    return {"by": MADE_BY, "files": [s.text for s in sources], **asked, "versions": installed_versions()}


def _in_order(
    models: Sequence[Model], tasks: Sequence[str], groups: Container[Group]
) -> Iterator[tuple[Group, Group | None]]:
    """Every model's tasks, the base's first, each with the base's group that it is measured against."""
    base = next((model for model in models if model.base), None)
    for model in models:
        for task in tasks:
            if (model.name, task) in groups:
                yield (model.name, task), None if base is None or base == model else (base.name, task)


def _check_out(out: Path) -> None:
    ours = is_evaldir(out) and read_evaldir(out).made_by in (MADE_BY, MADE_BY_BEFORE)
    if out.exists() and not ours and (not out.is_dir() or any(out.iterdir())):
        raise RunDirError(f"{out} is there and was not made by `{MADE_BY}`; give another --out")


def _models(samples: Iterable[PlacedSample], base: str | None) -> list[Model]:
    """Every model once, the base first."""
    by_name: dict[str, Model] = {}
    for sample in samples:
        first, model = by_name.setdefault(sample.model.name, sample.model), sample.model
        if first != model:
            raise DataError(
                f"{sample.where}: model {model.name!r} is {model.method!r} with seed {model.seed} here and "
                f"{first.method!r} with seed {first.seed} before; give each a model of its own"
            )
    if base is None and BASE not in by_name:
        return list(by_name.values())
    base = base or BASE
    bases = [model for model in by_name.values() if base in (model.name, model.method)]
    if not bases:
        raise ConfigError(
            f"--base {base!r} is none of the models{nearest(base, by_name)}; there are: {', '.join(by_name)}"
        )
    if len(bases) > 1:
        raise ConfigError(f"--base {base!r} means several models; name one of: {', '.join(m.name for m in bases)}")
    first = Model(bases[0].name, method=bases[0].method, seed=bases[0].seed, base=True)
    return [first, *(model for model in by_name.values() if model.name != first.name)]


def _groups(samples: Iterable[PlacedSample]) -> dict[Group, list[PlacedSample]]:
    """The samples of each model on each task; they must be of one policy."""
    groups: dict[Group, list[PlacedSample]] = defaultdict(list)
    for placed in samples:
        group = groups[placed.model.name, placed.task]
        if group and group[0].sample.step != placed.sample.step:
            raise DataError(
                f"{placed.where} is of step {placed.sample.step}, and {group[0].where} of step {group[0].sample.step}: "
                "each step is another policy; name each file apart, e.g. step0=0.jsonl step100=100.jsonl"
            )
        group.append(placed)
    return dict(groups)


def _completions(
    key: Group, samples: Sequence[PlacedSample], n: int | None
) -> tuple[list[Completion], tuple[str, ...]]:
    """The samples of a group as numbered completions, and what is to be known of them.

    Those that only other prompts have are added as not judged.
    """
    drawn: dict[str, list[Sample]] = {}
    greedy: dict[str, PlacedSample] = {}
    for placed in samples:
        prompt_id = placed.sample.prompt_id
        if not placed.sample.greedy:
            drawn.setdefault(prompt_id, []).append(placed.sample)
        elif greedy.setdefault(prompt_id, placed) is not placed:
            raise DataError(
                f"{placed.where}: prompt {prompt_id!r} has a second greedy completion; the first is at "
                f"{greedy[prompt_id].where}"
            )
    name = " on ".join(key)
    bare = sorted(drawn.keys() ^ greedy.keys()) if greedy else []
    if bare:
        raise DataError(
            f"{name}: {len(bare)} prompts have a greedy completion or sampled ones, but not both, e.g. "
            f"{bare[0]!r}; write a greedy one for every prompt or for none"
        )
    draws = counted_draws(name, drawn, n)
    counted = draws.by_prompt
    completions = [
        *(_completion(sample, draw) for of_prompt in counted.values() for draw, sample in enumerate(of_prompt)),
        *(_completion(placed.sample, GREEDY_DRAW) for placed in greedy.values()),
        *(_missing(i, draw, draws.n) for i, of_prompt in counted.items() for draw in range(len(of_prompt), draws.n)),
    ]
    return completions, (*notes_on_prompts(name, (p.sample for p in samples)), *draws.notes)


def _completion(sample: Sample, draw: int) -> Completion:
    if sample.right is None:
        verdict = Verdict(False, None, "verifier_error", "not judged in the file")
    else:
        verdict = Verdict(sample.right, sample.reward, "correct" if sample.right else "wrong")
    text = sample.text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates, which JSON can hold, become ?
    return Completion(sample.prompt_id, draw, (), text, sample.finish or "stop", verdict)


def _missing(prompt_id: str, draw: int, n: int) -> Completion:
    verdict = Verdict(False, None, "verifier_error", f"not in the file, where others have {n}")
    return Completion(prompt_id, draw, (), "", "stop", verdict)


def _not_known(samples: Iterable[PlacedSample]) -> dict[str, None]:
    """Keys of the row that files of verdicts do not tell: null, not 0."""
    ends = all(placed.sample.finish is not None for placed in samples)
    return {"no_answer": None, **({} if ends else {"truncated": None})}


def _asked(samples: Iterable[PlacedSample]) -> AskedPrompts:
    """The prompts that the samples came with; the first sample of a prompt counts."""
    asked: dict[str, dict[str, AskedPrompt]] = defaultdict(dict)
    for placed in samples:
        sample = placed.sample
        if sample.prompt or sample.gold:
            asked[placed.task].setdefault(sample.prompt_id, AskedPrompt(sample.prompt, sample.gold))
    return asked
