"""Files of samples as records, whatever they are written in: what a file holds decides, not what its name ends in."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dphrl.errors import DataError
from dphrl.stages.import_samples.inspect_log import read_eval_zip

Record = Mapping[str, Any]
Placed = tuple[str, Record]
"""A record and where it stands, e.g. ("line 3", {...})."""

TABLES = {".csv": ",", ".tsv": "\t"}
"""Suffix -> what separates the values; such a file cannot be told from other text by its contents."""
KINDS = "JSON lines, a JSON array, CSV, TSV, Parquet or an .eval log, each of them plain or .gz"


def read_records(path: Path) -> Iterator[Placed]:
    """Every record of a file, with its place.

    JSON lines may have blank lines and a UTF-8 mark; a JSON object is one record. The values of a CSV are texts, empty
    ones null.

    Raises:
        DataError: no file; no text, or none of these kinds; what is no record (names its place).
    """
    if not path.is_file():
        raise DataError(f"{path} is no file; name one or several files of {KINDS}")
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    for mark, read in BINARY.items():
        if content.startswith(mark):
            yield from read(path, content)
            return
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}; samples are {KINDS}") from None
    suffix = next((suffix for suffix in reversed(path.suffixes) if suffix != ".gz"), "").lower()
    if suffix in TABLES:
        yield from _table(path, text, TABLES[suffix])
    else:
        yield from _json(path, text)


def _json(path: Path, text: str) -> Iterator[Placed]:
    """One JSON value, or one a line."""
    try:
        whole = json.loads(text)
    except RecursionError:
        raise DataError(f"{path} is nested too deeply to be read as JSON") from None
    except ValueError:
        yield from _lines(path, text)
        return
    for number, value in enumerate(whole if isinstance(whole, list) else [whole], start=1):
        place = f"record {number}" if isinstance(whole, list) else "line 1"
        yield place, _record(value, f"{path} {place}")


def _lines(path: Path, text: str) -> Iterator[Placed]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path} line {number} is no JSON: {error}; samples are {KINDS} (CSV and TSV by the file's name)"
            ) from None
        yield f"line {number}", _record(value, f"{path} line {number}")


def _record(value: Any, where: str) -> Record:
    if not isinstance(value, dict):
        raise DataError(f"{where} is a JSON {type(value).__name__}; write one object a line")
    return value


def _table(path: Path, text: str, delimiter: str) -> Iterator[Placed]:
    csv.field_size_limit(sys.maxsize)  # completions are longer than the 128 KiB that csv allows
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for number, row in enumerate(reader, start=1):
            if None in row or None in row.values():
                raise DataError(
                    f"{path} row {number} does not have the {len(reader.fieldnames or ())} values of its head; quote "
                    "values that hold the separator"
                )
            yield f"row {number}", {name: value if value != "" else None for name, value in row.items()}
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None


def _parquet(path: Path, content: bytes) -> Iterator[Placed]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(pa.BufferReader(content)).iter_batches(batch_size=4096):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from None


BINARY: dict[bytes, Callable[[Path, bytes], Iterator[Placed]]] = {
    b"PAR1": _parquet,
    b"PK\x03\x04": read_eval_zip,
}
"""How a file that is no text begins, and who reads it."""
