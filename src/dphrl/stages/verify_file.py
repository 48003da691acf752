"""Verdicts on a file of completions, without a model and without a run: JSON lines in, JSON lines out, in batches."""

from __future__ import annotations

import inspect
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dphrl.errors import ConfigError, DataError, nearest
from dphrl.files import replaced
from dphrl.progress import Progress, silent
from dphrl.types import NO_REWARD, Item, Verdict
from dphrl.verifiers.registry import verifier_of, with_arguments
from dphrl.verifiers.verifier import Arguments, Verifier
from dphrl.verifiers.workers.pool import spent_so_far

BATCH_LINES = 1024
BATCH_BYTES = 32 << 20
"""A batch ends at this many lines or, for long ones, at this many bytes: what is held in memory."""
STDIN = "-"
MAX_SHOWN = 200
"""Characters of a detail in the summary."""
_MAX_NUMBER = 18
"""Digits of the longest id that is read as a number, so that a hostile one costs nothing."""

Write = Callable[[Sequence[Item], Sequence[Verdict]], None]


@dataclass(frozen=True, slots=True)
class Summary:
    """What `verify_file` did."""

    statuses: Mapping[str, int]
    """How often each status came, most frequent first."""
    unjudged: Mapping[str, str]
    """For each status without reward that came: id and detail of its first completion."""
    seconds: float
    timeout_share: float = 0.0
    """Share of the workers' CPU time that went into completions that were given up, 0..1."""

    def text(self) -> str:
        """Counts per status and the rate, a line each; nothing in it can move a terminal's cursor."""
        total = sum(self.statuses.values())
        lines = []
        for status, count in self.statuses.items():
            first = f"  first: {self.unjudged[status]}" if status in self.unjudged else ""
            lines.append(f"{status:<14} {count:>9} {100 * count / total:>6.1f} %{first}")
        rate = total / max(self.seconds, 1e-9)
        given_up = f"; {100 * self.timeout_share:.0f} % of the CPU time on timeouts" if self.timeout_share else ""
        return "\n".join([*lines, f"{total} completions in {self.seconds:.2f} s, {rate:.4g} completions/s{given_up}"])


def verify_file(
    task: str, file: str, *, arguments: Sequence[str] = (), out: Path | None = None, progress: Progress = silent
) -> Summary:
    """Judge the completions of a file.

    Every line is a JSON object: `completion` (text), what the verifier needs (`gold`, `db`, `mode`, ...) and an `id`
    (text or whole number; where it is missing, the number of the line, from 1). All keys reach the verifier; a reward
    function gets them as columns. Empty lines are skipped. A file is checked as a whole before the first verdict.
    Memory: one batch, and the ids that do not just count up.

    Args:
        task: a verifier's name or module:function, see `registry.verifier_of`.
        file: path, or "-" for standard input. A relative `db` in it is looked up in db_dir, else in the current
            directory (`database_file.database_path`); where the file lies plays no part.
        arguments: "name=value" for the verifier, values read as YAML.
        out: where to write {"id", "correct", "reward", "status", "detail"}, a line for each completion, in order;
            whole or not at all.
        progress: told how far it is; of a stream that can be read only once, the total is what has been read so far.
    Returns:
        Counts and time.
    Raises:
        DataError: the file cannot be read, holds no line or a bad one, a doubled id, or `out` cannot be written.
        ConfigError: an argument that is no name=value or has the wrong type, a db_dir that is no folder.
        VerifierError: an unknown task or argument, or what the verifier itself refuses.
    """
    verifier = verifier_of(task)
    args = verifier_arguments(verifier, arguments)
    verify = with_arguments(verifier, args)
    _check_folder(args.get("db_dir"))
    target = None if out is None else _writable(out, file)
    statuses: Counter[str] = Counter()
    unjudged: dict[str, str] = {}
    with _opened(file) as stream:
        total = _count(stream, file)
        began, spent = time.monotonic(), spent_so_far()
        with _writer(target) as write:
            done = 0
            for batch in _batches(stream, file):
                known = done + len(batch) if total is None else total
                progress("verify", done, known, note="read so far" if total is None else "")
                verdicts = verify(batch)
                write(batch, verdicts)
                statuses.update(verdict.status for verdict in verdicts)
                _keep_first(unjudged, batch, verdicts)
                done += len(batch)
            if not done:
                raise DataError(f"{_name(file)} holds no line; give one JSON object a line, with a 'completion'")
        progress("verify", done, done)
    return Summary(
        dict(statuses.most_common()), unjudged, time.monotonic() - began, (spent_so_far() - spent).timeout_share
    )


def verifier_arguments(verifier: Verifier, words: Sequence[str]) -> Arguments:
    """["mode=bird", "deadline_s=2"] -> {"mode": "bird", "deadline_s": 2.0}.

    Args:
        verifier: its signature gives the types; names it does not have are left to `with_arguments`.
        words: a value is read as YAML; where that has the wrong type (a folder called 2024), as the text it is.
    Returns:
        Keyword arguments for the verifier.
    Raises:
        ConfigError: no name=value, a name given twice, a value of the wrong type.
    """
    values = {}
    for word in words:
        name, equals, raw = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"--arg {word!r} is no NAME=VALUE, e.g. --arg deadline_s=2")
        if name in values:
            raise ConfigError(f"--arg {name} is given twice; give it once")
        values[name] = _value(verifier, name, raw)
    return values


def _value(verifier: Verifier, name: str, raw: str) -> Any:
    import yaml
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    known = name in verifier.arguments
    kind = inspect.signature(verifier.judge, eval_str=True).parameters[name].annotation if known else Any
    adapter: TypeAdapter[Any] = TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))
    try:
        return adapter.validate_python(yaml.safe_load(raw))
    except yaml.YAMLError as error:
        problem = str(error).splitlines()[0]
    except ValidationError as error:
        problem = error.errors()[0]["msg"].replace("Input should be", "it must be")
    try:
        return adapter.validate_python(raw)
    except ValidationError:
        raise ConfigError(f"--arg {name}={raw!r} does not fit verifier {verifier.name!r}: {problem}") from None


def _check_folder(db_dir: Any) -> None:
    if db_dir is not None and not Path(db_dir).is_dir():
        raise ConfigError(f"--arg db_dir={db_dir!r} is no folder; name the one that holds NAME/NAME.sqlite")


def _name(file: str) -> str:
    return "standard input" if file == STDIN else file


def _opened(file: str) -> AbstractContextManager[BinaryIO]:
    if file == STDIN:
        if sys.stdin is None:  # closed by the caller
            raise DataError("standard input is closed; name a file in --file")
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(file).open("rb")
    except FileNotFoundError:
        raise DataError(f"{file} does not exist; --file names a file of JSON lines, or - for standard input") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{file!r} cannot be read: {error}") from None


def _count(stream: BinaryIO, file: str) -> int | None:
    """How many completions there are, each line checked; None for a stream that can be read only once."""
    if not stream.seekable():
        return None
    start = stream.tell()
    total = sum(len(batch) for batch in _batches(stream, file))
    stream.seek(start)
    return total


def _batches(stream: BinaryIO, file: str) -> Iterator[list[Item]]:
    """The lines as items, checked, in order."""
    ids = _Ids()
    batch: list[Item] = []
    size = 0
    for number, line in enumerate(_lines(stream, file), start=1):
        if not line.strip():
            continue
        where = f"{_name(file)} line {number}"
        item = _item(line, number, where)
        if not ids.add(str(item["id"])):
            raise DataError(f"{where}: id {item['id']!r} came before; ids must be unique, everything joins by id")
        batch.append(item)
        size += len(line)
        if len(batch) == BATCH_LINES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _lines(stream: BinaryIO, file: str) -> Iterator[bytes]:
    try:
        yield from stream
    except OSError as error:
        raise DataError(f"{_name(file)} cannot be read: {error}") from None


def _item(line: bytes, number: int, where: str) -> Item:
    try:
        item = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not valid JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, a number too long, nested too deep
        raise DataError(f"{where} is not valid JSON: {error}") from None
    if not isinstance(item, dict):
        raise DataError(f"{where} holds a {type(item).__name__}; each line must be an object with a 'completion'")
    if "completion" not in item:
        have = ", ".join(map(repr, item)) or "nothing"
        raise DataError(f"{where} has no 'completion'{nearest('completion', item)}; it has {have}")
    if not isinstance(item["completion"], str):
        raise DataError(f"{where} has a completion of type {type(item['completion']).__name__}; it must be text")
    key = item.setdefault("id", number)
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise DataError(
            f"{where} has an id of type {type(key).__name__}; it must be text or a whole number, or left out"
        )
    return item


class _Ids:
    """The ids seen so far. A run of numbers takes no memory: files without ids, or numbered, may be of any length."""

    def __init__(self) -> None:
        self._run = range(0)
        self._others: set[str] = set()

    def add(self, key: str) -> bool:
        """Remember an id; False where it was known already."""
        number = int(key) if len(key) <= _MAX_NUMBER and key.isascii() and key.isdigit() else None
        if number is not None and str(number) == key:
            if number in self._run:
                return False
            if not self._run or number == self._run.stop:
                self._run = range(self._run.start if self._run else number, number + 1)
                return key not in self._others
        known = len(self._others)
        self._others.add(key)
        return len(self._others) > known


def _keep_first(unjudged: dict[str, str], batch: Sequence[Item], verdicts: Sequence[Verdict]) -> None:
    for item, verdict in zip(batch, verdicts, strict=True):
        if verdict.status in NO_REWARD and verdict.status not in unjudged:
            # ascii(): a terminal must not obey what a model wrote
            detail = ascii(verdict.detail)[1:-1]
            cut = f"{detail[:MAX_SHOWN]}..." if len(detail) > MAX_SHOWN else detail
            unjudged[verdict.status] = f"id {ascii(item['id'])[:MAX_SHOWN]}: {cut}"


def _writable(out: Path, file: str) -> Path:
    """Where `out` really lies, if a file may be put there."""
    target = out.resolve()
    if not target.parent.is_dir():
        raise DataError(f"the folder {target.parent} of --out does not exist; make it, or choose another")
    if target.exists() and not target.is_file():
        raise DataError(f"--out {out} is there and is no regular file; choose another name")
    if file != STDIN and target == Path(file).resolve():
        raise DataError(f"--out {out} is the file the completions come from; choose another name")
    return target


@contextmanager
def _writer(target: Path | None) -> Iterator[Write]:
    """Yields a function that writes verdicts; the file appears when the block ends well."""
    if target is None:
        yield lambda batch, verdicts: None
        return
    with replaced(target) as staging:
        try:
            file = staging.open("w", encoding="ascii")
        except OSError as error:
            raise DataError(f"{target} cannot be written: {error}") from None

        def write(batch: Sequence[Item], verdicts: Sequence[Verdict]) -> None:
            try:
                file.writelines(_line(item, verdict) for item, verdict in zip(batch, verdicts, strict=True))
                file.flush()
            except OSError as error:
                with suppress(OSError):  # it would try to write what is left
                    file.close()
                raise DataError(f"{target} cannot be written: {error}") from None

        with file:
            yield write


def _line(item: Item, verdict: Verdict) -> str:
    return json.dumps({"id": item["id"], **asdict(verdict)}, allow_nan=False) + "\n"
