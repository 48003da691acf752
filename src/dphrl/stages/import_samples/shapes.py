"""Which shapes of records can be read, by the names they have: one entry a tool."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dphrl.errors import DataError
from dphrl.stages.import_samples import benchmark_logs as bench
from dphrl.stages.import_samples import training_dumps as dumps
from dphrl.stages.import_samples.own_lines import NAMES, described, proposed, read_own, renamed
from dphrl.stages.import_samples.sample import Row, Sample, Scale

Placed = tuple[str, Row]


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape: by which names a record is known, and how it becomes samples."""

    names: frozenset[str]
    read: Callable[[Row, Scale], Iterator[Sample]]
    note: str = ""
    """What its files do not say, for whoever reads the numbers."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A record that holds others: by which names it is known, and how it is opened."""

    names: frozenset[str]
    open: Callable[[Row], Iterator[Row]]


@dataclass(frozen=True, slots=True)
class Understood:
    """What reads the records of a file."""

    name: str
    shape: Shape
    columns: Mapping[str, str] = field(default_factory=dict)
    """Of --columns; empty = the shape's own names."""

    def samples(self, row: Row, scale: Scale) -> Iterator[Sample]:
        """A record's samples. Raises DataError."""
        ours = renamed(row, self.columns, judged=scale.verifier is None) if self.columns else row
        return self.shape.read(ours, scale)


def _names(*names: str) -> frozenset[str]:
    return frozenset(names)


def _table_rows(table: Row) -> Iterator[Row]:
    """A table of wandb: the names of its columns, and lists of values."""
    for values in table["data"]:
        if len(values) != len(table["columns"]):
            raise DataError(f"is a table of {len(table['columns'])} columns with a row of {len(values)} values")
        yield dict(zip(table["columns"], values, strict=True))


ENVELOPES = (
    Envelope(_names("eval", "samples", "version"), bench.samples_of_log),
    Envelope(_names("eval", "hash"), bench.solutions_of),
    Envelope(_names("convos", "htmls"), bench.talks_of),
    Envelope(_names("traces", "task"), dumps.traces_of),
    Envelope(_names("columns", "data"), _table_rows),
)
"""The first that fits counts."""

OWN = Shape(_names("prompt_id", "completion"), read_own)
VERL_NOTE = (
    "verl does not write which validation set a line is of; if there were several, they are pooled here. --task "
    "NAME=PATTERN takes the prompts that a regular expression finds as a task of their own"
)

SHAPES: dict[str, Shape] = {
    "lines of one's own": OWN,
    "lines of one's own, several completions": Shape(_names("prompt_id", "completions"), read_own),
    "verifiers and prime-rl traces": Shape(_names("nodes", "rewards", "task", "ok"), dumps.read_trace),
    "prime-rl rollouts": Shape(_names("example_id", "prompt", "completion", "reward"), dumps.read_rollout),
    "verl": Shape(_names("input", "output", "score", "step"), dumps.read_verl, VERL_NOTE),
    "TRL": Shape(_names("step", "prompt", "completion", "advantage"), dumps.read_trl),
    "SkyRL": Shape(_names("input_prompt", "output_response", "score"), dumps.read_skyrl),
    "NeMo-RL": Shape(_names("content", "rewards", "idx"), dumps.read_nemo),
    "rllm": Shape(_names("task_hash", "is_correct", "trajectories"), dumps.read_rllm),
    "lm-evaluation-harness": Shape(_names("doc_id", "resps", "filtered_resps"), bench.read_lm_eval),
    "inspect_ai": Shape(_names("id", "epoch", "input", "target"), bench.read_inspect),
    "lighteval": Shape(_names("doc", "metric", "model_response"), bench.read_lighteval),
    "lighteval before 0.10": Shape(_names("full_prompt", "predictions", "metrics"), bench.read_lighteval_before),
    "evalplus": Shape(_names("task_id", "solution", "base_status"), bench.read_evalplus),
    "HumanEval": Shape(_names("task_id", "completion", "passed"), bench.read_human_eval),
    "a prompt, a completion and a verdict": Shape(_names("prompt", "completion", "correct"), read_own),
}
"""Name -> shape; the first that fits counts."""


def understood(row: Row, columns: Mapping[str, str]) -> Understood:
    """How a record is read, by its names or by --columns.

    Raises:
        DataError: they fit no shape; shows the record's names and types, and the --columns line to try.
    """
    if columns:
        return Understood("--columns", OWN, columns)
    for name, shape in SHAPES.items():
        if shape.names <= row.keys():
            return Understood(name, shape)
    name = max(SHAPES, key=lambda one: len(SHAPES[one].names & row.keys()) / len(SHAPES[one].names))
    if len(SHAPES[name].names & row.keys()) * 2 < len(SHAPES[name].names):
        name = next(iter(SHAPES))
    missing = SHAPES[name].names - row.keys()
    line = proposed(row)
    way = " No column looks like a verdict: leave it out, and --verifier math judges." if "correct: ?" in line else ""
    raise DataError(
        f"is of no shape that is known. It has: {described(row)}. The nearest is {name}, which also needs "
        f"{', '.join(sorted(missing))}. Say which column is what, e.g. {line} (names of ours: "
        f"{', '.join(NAMES)}; paths may have dots).{way}"
    )


def opened(rows: Iterable[Placed]) -> Iterator[Placed]:
    """The records with what holds several of them opened: logs of one document, episodes, tables, events.

    Raises:
        DataError: names the place.
    """
    rows = iter(rows)
    for place, row in rows:
        if bench.is_event(row):
            yield from bench.joined_events([(place, row), *rows])
            return
        envelope = next((one for one in ENVELOPES if one.names <= row.keys()), None)
        if envelope is None:
            yield place, row
            continue
        try:
            for number, inner in enumerate(envelope.open(row), start=1):
                yield f"{place}, sample {number}", inner
        except DataError as error:
            raise DataError(f"{place} {error}") from None


def unreadable(error: Exception) -> DataError:
    """An error for a record that has a shape's names but not its contents."""
    detail: Any = f"{type(error).__name__}: {error}"
    return DataError(
        f"has the names of a shape that can be read, but not its contents ({detail}); see "
        "`dphrl docs other-tools`, or say with --columns which column is what"
    )
