"""`dphrl import`: other tools' completions and verdicts become an evaluation directory, and a report."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dphrl.errors import ConfigError, DataError, RunDirError, listed, nearest
from dphrl.files import damage_refused, replaced_dir, write_text
from dphrl.metrics import RESAMPLES
from dphrl.progress import Progress, silent
from dphrl.runs.eval_dir import NAME, EvalDir, Model, add_samples, is_evaldir, read_evaldir, write_evaldir
from dphrl.stages.import_samples.shapes import Row, Sample, Scale, shape_of
from dphrl.types import GREEDY_DRAW, Completion, Verdict

MADE_BY = "dphrl import"
MADE_BY_BEFORE = "dphrl report --samples"
"""What the command was once called; directories that it made are replaced as well."""
TASK = "samples"
"""What a task is called that the lines do not name."""
PROMPTS = "prompts"
"""Folder in the directory with TASK.jsonl: {"id", "prompt", "gold"} a line, as far as the lines say them."""
SHOWN_IDS = 3

_NAMED = re.compile(rf"(?P<name>{NAME.pattern})(?:@(?P<seed>\d+))?=(?P<path>.+)", re.DOTALL)
_ODD = re.compile(r"[^A-Za-z0-9._-]+")

Group = tuple[str, str]
"""Model and task, by the names of their folder and file."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file, and which model its completions are of."""

    path: Path
    name: str = ""
    """Empty = what its lines say, else the file's own name."""
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class _Read:
    """A sample, where it stands, and how its model is called."""

    where: str
    model: Model
    task: str
    sample: Sample


def parse_source(text: str) -> Source:
    """'grpo@1=val/100.jsonl' -> model grpo of training seed 1; 'samples.jsonl' -> as its lines say."""
    found = _NAMED.fullmatch(text)
    if found is None:
        return Source(Path(text))
    return Source(Path(found["path"]), found["name"], None if found["seed"] is None else int(found["seed"]))


def import_samples(
    sources: Sequence[Source],
    out: Path,
    *,
    base: str | None = None,
    scale: Scale = Scale(),  # noqa: B008 - frozen
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[EvalDir, tuple[str, ...]]:
    """Make an evaluation directory of files of completions and verdicts; docs/other-tools.md has the shapes.

    The completions of a prompt are numbered in the order in which they come. Where prompts have different numbers of
    them, the missing ones count as not judged: they are counted and shown, and no estimate is made of them.

    Args:
        sources: JSON lines or Parquet, at least one.
        out: the directory; new, or one that this function made, which is then replaced as a whole.
        base: the model that keep and explore refer to, by the name in the lines or of its folder; None = none.
        scale: which number is right or wrong, and from which value on.
        resamples, seed: of the intervals.
    Returns:
        The directory, and what the user should know of the files, in short lines.
    Raises:
        DataError: a file or line that cannot be read (names the line); models on different prompts; steps mixed.
        ConfigError: no such base. RunDirError: `out` holds something else. Nothing is written in any of these cases.
    """
    _check_out(out)
    read = [one for source in sources for one in _samples(source, scale, progress)]
    if not read:
        raise DataError("the files hold no line; there is nothing to report")
    models = _models(read, base)
    groups = _groups(read)
    completions: dict[Group, list[Completion]] = {}
    notes: list[str] = []
    for key, mine in groups.items():
        completions[key], said = _completions(key, mine)
        notes += said
    made = _made(sources, scale, notes)
    tasks = list(dict.fromkeys(task for _, task in groups))
    with replaced_dir(out) as staging:
        write_evaldir(staging, models, tasks, made)
        for model in models:  # the base first: the others are measured against it
            for task in tasks:
                if (key := (model.name, task)) in groups:
                    progress(f"measure {' '.join(key)}", 0, 1)
                    reference = next((completions.get((m.name, task)) for m in models if m.base and m != model), None)
                    add_samples(
                        staging,
                        *key,
                        completions[key],
                        base=reference,
                        resamples=resamples,
                        seed=seed,
                        facts=_unknown(groups[key]),
                    )
                    progress(f"measure {' '.join(key)}", 1, 1)
        _write_prompts(staging, read)
    return read_evaldir(out), tuple(notes)


def _made(sources: Sequence[Source], scale: Scale, notes: Sequence[str]) -> dict[str, Any]:
    from dphrl.runs.run_dir import installed_versions

    return {
        "by": MADE_BY,
        "files": [f"{s.name}={s.path}" if s.name else str(s.path) for s in sources],
        "reward": scale.reward,
        "threshold": scale.threshold,
        "notes": list(notes),
        "versions": installed_versions(),
    }


def read_prompts(root: Path) -> dict[str, dict[str, tuple[str, str]]]:
    """Task -> prompt id -> prompt and gold, as far as the files said them; none in any other directory.

    Raises:
        RunDirError: a damaged file.
    """
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for path in sorted((root / PROMPTS).glob("*.jsonl")):
        with damage_refused(path, "delete it"):
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            found[path.stem] = {str(row["id"]): (str(row["prompt"]), str(row["gold"])) for row in rows}
    return found


def _check_out(out: Path) -> None:
    ours = is_evaldir(out) and read_evaldir(out).made_by in (MADE_BY, MADE_BY_BEFORE)
    if out.exists() and not ours and (not out.is_dir() or any(out.iterdir())):
        raise RunDirError(f"{out} is there and was not made by `{MADE_BY}`; give another --out")


def _samples(source: Source, scale: Scale, progress: Progress) -> Iterator[_Read]:
    """Every completion of a file.

    Raises:
        DataError: names file, line, what came and what is allowed.
    """
    label, number = f"read {source.path.name}", 0
    for number, row in _rows(source.path):
        where = f"{source.path} line {number}"
        try:
            for sample in shape_of(row)(row, scale):
                yield _Read(where, _model(sample, source), _slug(sample.task or TASK, where), sample)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise DataError(
                f"{where} has the names of a shape that can be read, but not its contents ({type(error).__name__}: "
                f"{error}); see docs/other-tools.md"
            ) from None
        if number % 10_000 == 0:
            progress(label, number, number)
    progress(label, number, number)


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    if not path.is_file():
        raise DataError(f"{path} is no file; name one or several files of JSON lines or Parquet")
    yield from enumerate(_parquet(path) if path.suffix == ".parquet" else _lines(path), start=1)


def _lines(path: Path) -> Iterator[Row]:
    """The objects of a file of JSON lines; a line's number is its place, empty ones counted and allowed at the end."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from None
    for number, line in enumerate(text.rstrip("\n").split("\n"), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path} line {number} is no JSON: {error}; write one object a line") from None
        if not isinstance(row, dict):
            raise DataError(f"{path} line {number} is a JSON {type(row).__name__}; write one object a line")
        yield row


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=4096):
            yield from batch.to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from None


def _model(sample: Sample, source: Source) -> Model:
    """Who drew it: NAME=FILE, else the line, else the file's name. Seeds of one method are models apart."""
    said = source.name or sample.model or source.path.stem
    method = source.name or sample.method or said
    seed = sample.seed if source.seed is None else source.seed
    seeded = source.seed is not None or (sample.seed and said == method)
    return Model(f"{_slug(said)}-s{seed}" if seeded else _slug(said), method=method, seed=seed)


def _models(read: Iterable[_Read], base: str | None) -> list[Model]:
    """Every model once, the base first."""
    found: dict[str, Model] = {}
    for one in read:
        other = found.setdefault(one.model.name, one.model)
        if other != one.model:
            raise DataError(
                f"{one.where}: model {one.model.name!r} is {one.model.method!r} with seed {one.model.seed} here and "
                f"{other.method!r} with seed {other.seed} before; give each a model of its own"
            )
    if base is None:
        return list(found.values())
    chosen = [m for m in found.values() if base in (m.name, m.method)]
    if not chosen:
        names = list(found)
        raise ConfigError(f"--base {base!r} is none of the models{nearest(base, names)}; there are: {', '.join(names)}")
    if len(chosen) > 1:
        raise ConfigError(f"--base {base!r} means several models; name one of: {', '.join(m.name for m in chosen)}")
    first = Model(chosen[0].name, method=chosen[0].method, seed=chosen[0].seed, base=True)
    return [first, *(m for m in found.values() if m.name != first.name)]


def _groups(read: Iterable[_Read]) -> dict[Group, list[_Read]]:
    """The samples of each model on each task; they must be of one policy."""
    found: dict[Group, list[_Read]] = defaultdict(list)
    for one in read:
        mine = found[one.model.name, one.task]
        if mine and mine[0].sample.step != one.sample.step:
            raise DataError(
                f"{one.where} is of step {one.sample.step}, and {mine[0].where} of step {mine[0].sample.step}: each "
                "step is another policy; name each file apart, e.g. step0=0.jsonl step100=100.jsonl"
            )
        mine.append(one)
    return dict(found)


def _completions(key: Group, mine: Sequence[_Read]) -> tuple[list[Completion], list[str]]:
    """The samples as numbered completions, those that other prompts have more of as not judged; and what to know."""
    drawn: dict[str, list[_Read]] = {}
    greedy: dict[str, _Read] = {}
    for one in mine:
        if not one.sample.greedy:
            drawn.setdefault(one.sample.prompt_id, []).append(one)
        elif greedy.setdefault(one.sample.prompt_id, one) is not one:
            raise DataError(
                f"{one.where}: prompt {one.sample.prompt_id!r} has a second greedy completion; the first is at "
                f"{greedy[one.sample.prompt_id].where}"
            )
    bare = sorted(drawn.keys() ^ greedy.keys()) if greedy else []
    if bare:
        raise DataError(
            f"{' on '.join(key)}: {len(bare)} prompts have a greedy completion or sampled ones, but not both, e.g. "
            f"{bare[0]!r}; write a greedy one for every prompt or for none"
        )
    n = max(map(len, drawn.values()))
    found = [_completion(one.sample, draw) for ones in drawn.values() for draw, one in enumerate(ones)]
    found += [_completion(one.sample, GREEDY_DRAW) for one in greedy.values()]
    short = {i: len(ones) for i, ones in drawn.items() if len(ones) < n}
    found += [_missing(i, draw, n) for i, count in short.items() for draw in range(count, n)]
    told = listed((f"{i}: {count}" for i, count in short.items()), SHOWN_IDS)
    note = (
        f"{' on '.join(key)}: {len(short)} of {len(drawn)} prompts have fewer than {n} completions ({told}); the "
        "missing ones count as not judged."
    )
    return found, [note] if short else []


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


def _unknown(mine: Iterable[_Read]) -> dict[str, None]:
    """Keys of the row that files of verdicts do not tell: null, not 0."""
    ends = all(one.sample.finish is not None for one in mine)
    return {"no_answer": None, **({} if ends else {"truncated": None})}


def _write_prompts(root: Path, read: Iterable[_Read]) -> None:
    asked: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for one in read:
        sample = one.sample
        if sample.prompt or sample.gold:
            row = {"id": sample.prompt_id, "prompt": sample.prompt, "gold": sample.gold}
            asked[one.task].setdefault(sample.prompt_id, row)
    for task, rows in asked.items():
        lines = (json.dumps(row, ensure_ascii=True) for row in rows.values())
        write_text(root / PROMPTS / f"{task}.jsonl", "".join(f"{line}\n" for line in lines))


def _slug(name: str, where: str = "") -> str:
    """A name as a file's: 'Qwen/Qwen3-0.6B' -> 'Qwen-Qwen3-0.6B'."""
    found = _ODD.sub("-", name).strip("-._")
    if not NAME.fullmatch(found):
        raise DataError(f"{name!r} is no name of a model or task; use letters and digits")
    return found
