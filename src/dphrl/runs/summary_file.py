"""EVAL/MODEL/summary.json: what was measured of one model, a row a task; of a run and of an evaluation directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from dphrl.errors import RunDirError
from dphrl.files import checked, damage_refused, read_json, write_json
from dphrl.metrics.summary import TaskSummary, summarise
from dphrl.metrics.voting import Answer
from dphrl.runs.samples import write_samples
from dphrl.types import Completion


def store_evaluation(
    folder: Path,
    task: str,
    completions: Sequence[Completion],
    *,
    base: Sequence[Completion] | None,
    solution: Callable[[str], str],
    answer: Answer | None,
    resamples: int,
    seed: int,
    facts: Mapping[str, object],
) -> TaskSummary:
    """Write FOLDER/TASK.parquet and its row of FOLDER/summary.json, in a run directory or an evaluation directory.

    Returns:
        What `summarise` says, and `facts`.
    """
    summary = summarise(
        completions,
        base=base,
        solution=solution,
        answer=answer,
        rng=np.random.default_rng(seed),
        resamples=resamples,
        dataset=task,
        model=folder.name,
    ).with_facts(facts)
    write_samples(folder / f"{task}.parquet", completions, solution=solution, answer=answer)
    put_summary(folder / "summary.json", summary)
    return summary


def read_summaries(path: Path) -> dict[str, TaskSummary]:
    """Task -> its row of a summary.json, in the order of the file; none where the file is not there.

    Raises:
        RunDirError: damaged.
    """
    if not path.exists():
        return {}
    with damage_refused(path, "delete it and run `dphrl eval` again"):
        rows = [checked(TaskSummary.from_json(row)) for row in read_json(path)["rows"]]
    names = [row.dataset for row in rows]
    odd = [name for name in names if not isinstance(name, str) or Path(name).name != name or names.count(name) > 1]
    if odd:
        raise RunDirError(
            f"{path} has the dataset {odd[0]!r}, which is doubled or no file name; delete it and evaluate again"
        )
    return {row.dataset: row for row in rows}


def put_summary(path: Path, summary: TaskSummary) -> None:
    """Add a row to a summary.json, or replace the row of its task."""
    summaries = {**read_summaries(path), summary.dataset: summary}
    write_json(path, {"rows": [each.to_json() for each in summaries.values()]})
