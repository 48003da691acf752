"""Files of other tools' samples: which model a file is of, and its lines as samples with their places."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dphrl.errors import DataError
from dphrl.progress import Progress
from dphrl.runs.eval_dir import NAME, NAMED_PATH, Model
from dphrl.stages.import_samples.shapes import Row, Sample, Scale, shape_of

TASK = "samples"
"""What a task is called that the lines do not name."""

_ODD = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Source:
    """One file, and which model its completions are of."""

    path: Path
    name: str = ""
    """Empty = what its lines say, else the file's own name."""
    seed: int | None = None

    @property
    def text(self) -> str:
        """NAME=PATH, or the path alone."""
        return f"{self.name}={self.path}" if self.name else str(self.path)


@dataclass(frozen=True, slots=True)
class PlacedSample:
    """A sample, where it stands, and what its model and task are called."""

    where: str
    model: Model
    task: str
    sample: Sample


def parse_source(text: str) -> Source:
    """'grpo@1=val/100.jsonl' -> model grpo of training seed 1; 'samples.jsonl' -> as its lines say."""
    named = NAMED_PATH.fullmatch(text)
    if named is None:
        return Source(Path(text))
    return Source(Path(named["path"]), named["name"], None if named["seed"] is None else int(named["seed"]))


def read_source(source: Source, scale: Scale, progress: Progress) -> Iterator[PlacedSample]:
    """Every completion of a file.

    Raises:
        DataError: names file, line, what came and what is allowed.
    """
    label, number = f"read {source.path.name}", 0
    for number, row in _rows(source.path):
        where = f"{source.path} line {number}"
        try:
            for sample in shape_of(row)(row, scale):
                yield PlacedSample(where, _model(sample, source), _file_name(sample.task or TASK), sample)
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
    name = source.name or sample.model or source.path.stem
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
