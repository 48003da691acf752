"""Files of other tools' samples: which model a file is of, and its records as samples with their places."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dphrl.errors import ConfigError, DataError
from dphrl.progress import Progress
from dphrl.runs.eval_dir import NAME, NAMED_PATH, Model
from dphrl.stages.import_samples.records import read_records
from dphrl.stages.import_samples.sample import Sample, Scale
from dphrl.stages.import_samples.shapes import opened, understood, unreadable

TASK = "samples"
"""What a task is called that neither the records nor the file's name say."""

_ODD = re.compile(r"[^\w.-]+")
_HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<seed>\d+))?=(?P<path>.+)", re.DOTALL)
"""A model's name at Hugging Face: Qwen/Qwen3-0.6B=FILE."""
_TASK_IN_NAME = re.compile(r"(?:samples|details)_(?P<task>.+)_\d{4}-\d\d-\d\dT[\d.\-:]+\.(?:jsonl|parquet)(?:\.gz)?")
"""How lm-evaluation-harness and lighteval name a file of samples."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file, or a folder of them, and which model its completions are of."""

    path: Path
    name: str = ""
    """Empty = what its lines say, else the file's own name."""
    seed: int | None = None

    @property
    def text(self) -> str:
        """NAME=PATH, or the path alone."""
        return f"{self.name}={self.path}" if self.name else str(self.path)

    @property
    def files(self) -> list[Path]:
        """The file, or those that a folder holds, by name."""
        if not self.path.is_dir():
            return [self.path]
        return sorted(p for p in self.path.rglob("*") if p.is_file() and p.name not in NOT_SAMPLES)


NOT_SAMPLES = frozenset({"batch_summary.json"})
"""Files that a tool writes beside its samples: rllm's summary of a step."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read."""

    scale: Scale = field(default_factory=Scale)
    columns: Mapping[str, str] = field(default_factory=dict)
    """Our names -> the file's; empty = by the file's shape."""
    tasks: Sequence[tuple[str, re.Pattern[str] | None]] = ()
    """Task -> what its prompts contain (None = any); the first that fits counts, before what a record says."""


@dataclass(frozen=True, slots=True)
class PlacedSample:
    """A sample, where it stands, and what its model and task are called."""

    where: str
    model: Model
    task: str
    sample: Sample
    shape: str
    """What its record was read as."""
    note: str = ""
    """What files of this shape do not say."""


def parse_source(text: str) -> Source:
    """'grpo@1=val/100.jsonl' -> model grpo of training seed 1; 'samples.jsonl' -> as its lines say."""
    named = NAMED_PATH.fullmatch(text) or (None if Path(text).exists() else _HUB_NAME.fullmatch(text))
    if named is None:
        return Source(Path(text))
    return Source(Path(named["path"]), named["name"], None if named["seed"] is None else int(named["seed"]))


def parse_task(text: str) -> tuple[str, re.Pattern[str] | None]:
    """'aime=AIME 20\\d\\d' -> task aime, of the prompts in which that is found; 'aime' -> of all.

    Raises:
        ConfigError: no regular expression.
    """
    name, sign, pattern = text.partition("=")
    try:
        return name, re.compile(pattern) if sign else None
    except re.error as error:
        raise ConfigError(f"--task {text!r}: {pattern!r} is no regular expression ({error})") from None


def read_source(source: Source, reading: Reading, progress: Progress) -> Iterator[PlacedSample]:
    """Every completion of a file or folder.

    Raises:
        DataError: names file, place, what came and what is allowed.
    """
    files = source.files
    if not files:
        raise DataError(f"{source.path} is an empty folder; name files of samples")
    for path in files:
        yield from _read_file(path, source, reading, progress)


def _read_file(path: Path, source: Source, reading: Reading, progress: Progress) -> Iterator[PlacedSample]:
    label, number = f"read {path.name}", 0
    of_file = _TASK_IN_NAME.fullmatch(path.name)
    records = opened(read_records(path))
    while True:
        try:
            place, row = next(records)
        except StopIteration:
            break
        except DataError as error:
            raise DataError(str(error) if str(path) in str(error) else f"{path} {error}") from None
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise DataError(f"{path} {unreadable(error)}") from None
        where, number = f"{path} {place}", number + 1
        try:
            how = understood(row, reading.columns)
            row = {"task": of_file["task"], **row} if of_file and not reading.columns else row
            for sample in how.samples(row, reading.scale):
                yield _placed(where, sample, source, reading, how.name, how.shape.note)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise DataError(f"{where} {unreadable(error)}") from None
        if number % 10_000 == 0:
            progress(label, number, number)
    progress(label, number, number)


def _placed(where: str, sample: Sample, source: Source, reading: Reading, shape: str, note: str) -> PlacedSample:
    chosen = next((name for name, found in reading.tasks if found is None or found.search(sample.prompt)), "")
    task = chosen or sample.task
    return PlacedSample(where, _model(sample, source), _file_name(task or TASK), sample, shape, "" if task else note)


def _model(sample: Sample, source: Source) -> Model:
    """Who drew it: NAME=FILE, else the line, else the file's name. Seeds of one method are models apart."""
    name = source.name or sample.model or Path(source.path.name.removesuffix(".gz")).stem
    method = source.name or sample.method or name
    seed = sample.seed if source.seed is None else source.seed
    seeded = source.seed is not None or (sample.seed and name == method)
    return Model(f"{_file_name(name)}-s{seed}" if seeded else _file_name(name), method=method, seed=seed)


def _file_name(name: str) -> str:
    """A name as a file's: 'Qwen/Qwen3-0.6B' -> 'Qwen-Qwen3-0.6B'."""
    cleaned = _ODD.sub("-", name).strip("-._")
    if not NAME.fullmatch(cleaned):
        raise DataError(f"{name!r} is no name of a model or task; use letters and digits")
    return cleaned
