"""Rows of a data set: files (JSON lines, JSON, Parquet) or a name known to `datasets`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dphrl.config.sources import TaskConfig
from dphrl.errors import DataError

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a task's source gives."""

    rows: list[Row]
    db_dir: str | None = None
    """Folder of NAME/NAME.sqlite for each database name, where the rows have databases."""


def rows_of_data(cfg: TaskConfig, base_dir: Path) -> Loaded:
    """Rows of the file or the `datasets` name in task.data."""
    return Loaded(read_rows(cfg.data, subset=cfg.subset, split=cfg.split, base_dir=base_dir))


def read_rows(data: str, *, subset: str | None, split: str, base_dir: Path) -> list[Row]:
    """All rows of a data set, in its order.

    Args:
        data: a file whose suffix is in `READERS`, or the name of a data set for `datasets.load_dataset`.
        subset, split: of a named data set; a file has neither.
        base_dir: folder that a relative path is looked up in first; the current directory comes second.
    Returns:
        At least one row, each a mapping of column to value.
    Raises:
        DataError: nothing there, unreadable, not a list of objects, or empty.
    """
    suffix = Path(data).suffix.lower()
    if suffix in READERS:
        path = find_path(data, base_dir, "task.data")
        try:
            rows = READERS[suffix](path)
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read: {error}") from None
    else:
        rows = _named(data, subset, split, base_dir)
    if not rows:
        raise DataError(f"task.data={data!r} holds no row")
    return rows


def find_path(name: str, base_dir: Path, setting: str) -> Path:
    """The absolute path of what a setting names: in the config's folder first, then where the command runs.

    Raises:
        DataError: it is in neither.
    """
    candidates = [(folder / name).absolute() for folder in (base_dir, Path())]
    for path in candidates:
        if path.exists():
            return path
    raise DataError(
        f"{setting}={name!r} does not exist; looked for {' and '.join(dict.fromkeys(map(str, candidates)))}"
    )


def _read_jsonl(path: Path) -> list[Row]:
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                rows.append(_object(_parse(line, f"{path} line {number}"), f"{path} line {number}"))
    return rows


def _read_json(path: Path) -> list[Row]:
    values = _parse(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(values, list):
        raise DataError(f"{path} holds a {type(values).__name__}; a .json file must hold a list of objects, one a row")
    return [_object(value, f"{path} row {number}") for number, value in enumerate(values)]


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is no readable Parquet file: {error}") from None
    return rows


READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
"""Suffix -> reader."""
OTHER_KINDS = frozenset(
    {".csv", ".tsv", ".txt", ".xlsx", ".arrow", ".feather", ".avro", ".ndjson", ".yaml", ".yml", ".pkl", ".npz"}
    | {".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz"}
)
"""Suffixes of files of data that we do not read; a name for `datasets` has none of them."""


def is_other_file(data: str, base_dir: Path) -> bool:
    """Whether task.data names a file of a kind that is not read, be it there or not."""
    is_file = Path(base_dir, data).is_file() or Path(data).is_file()
    suffix = Path(data).suffix.lower()
    return suffix not in READERS and (is_file or suffix in OTHER_KINDS)


def _named(name: str, subset: str | None, split: str, base_dir: Path) -> list[Row]:
    if not name or is_other_file(name, base_dir):
        raise DataError(
            f"task.data={name!r} must be a {', '.join(READERS)} file, or the name of a data set; unpack or convert "
            "other files"
        )
    import datasets

    try:
        return list(datasets.load_dataset(name, subset, split=split))
    except Exception as error:  # `datasets` raises what its file systems and loaders raise
        raise DataError(
            f"task.data={name!r} (subset={subset!r}, split={split!r}) cannot be loaded "
            f"({type(error).__name__}: {error}); it needs a network, or let task.data name a local file "
            f"({', '.join(READERS)})"
        ) from error


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where} is not valid JSON: {error}") from None
    except RecursionError:
        raise DataError(f"{where} is nested too deeply to be read as JSON") from None


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{where} holds a {type(value).__name__}; each row must be an object of column: value")
    return value
