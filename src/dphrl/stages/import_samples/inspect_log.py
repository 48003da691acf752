"""The .eval logs of inspect_ai: a zip of header.json and one file a sample."""

from __future__ import annotations

import importlib.util
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dphrl.errors import DataError


def read_eval_zip(path: Path, content: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The whole log as one record, as its .json form has it: by inspect_ai's own reader where it is installed.

    Raises:
        DataError: a zip that is no such log, or one whose compression needs inspect_ai.
    """
    if importlib.util.find_spec("inspect_ai") and path.suffix == ".eval":
        yield "the log", _by_its_reader(path)
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if "header.json" not in names:
                raise DataError(f"{path} is a zip without header.json, so no log of inspect_ai; unpack other archives")
            header = json.loads(archive.read("header.json"))
            samples = [json.loads(archive.read(n)) for n in names if n.startswith("samples/") and n.endswith(".json")]
    except NotImplementedError as error:
        raise DataError(f"{path} is compressed in a way that needs its own reader: pip install inspect-ai") from error
    except (zipfile.BadZipFile, ValueError) as error:
        raise DataError(f"{path} cannot be read as a log of inspect_ai: {error}") from None
    yield "the log", {**header, "samples": samples}


def _by_its_reader(path: Path) -> Mapping[str, Any]:
    from inspect_ai.log import read_eval_log

    try:
        log = read_eval_log(str(path), resolve_attachments=True)
    except Exception as error:  # its reader raises what zip, JSON and pydantic raise
        raise DataError(f"{path} cannot be read by inspect_ai ({type(error).__name__}: {error})") from error
    return log.model_dump(mode="json")  # type: ignore[no-any-return]
