"""`dphrl watch`: the report of runs that still go on, as far as it can be made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dphrl.errors import DphrlError
from dphrl.report.page.serve import PageServer
from dphrl.report.page.write_page import waiting_page
from dphrl.runs.eval_dir import is_evaldir
from dphrl.stages.compare.compared_runs import ComparedRun, open_compared_runs
from dphrl.stages.report.write_report import training_logs, write_report

REFRESH_S = 10
"""How often the browser asks again while something is missing, in seconds."""

WATCHED = (
    "config.yaml",
    "evaluation.json",
    "presample/partition.json",
    "anchors/manifest.json",
    "train/metrics.jsonl",
    "train/final/config.json",
    "eval/*/summary.json",
)
"""Files of a run that the page depends on."""

STEPS: dict[str, str] = {
    "presample/partition.json": "presamples",
    "train/metrics.jsonl": "the first log line of training",
    "train/final/config.json": "the trained model",
    "eval/final/summary.json": "the evaluation of the trained model",
}
"""Files that a run makes, in their order -> what the page calls those that are missing."""


def server(runs: Sequence[Path], out: Path | None, *, port: int = 0, base_dir: Path = Path()) -> PageServer:
    """A server of the report of these runs on 127.0.0.1; `serve_forever` starts it.

    Args:
        runs, out, base_dir: as for `report`.
        port: 0 takes a free one.
    Raises:
        ConfigError: the port cannot be used.
    """
    paths = [Path(run) for run in runs]
    return PageServer(port, lambda: page(paths, out, base_dir=base_dir), lambda: _stamp(paths))


def page(runs: Sequence[Path], out: Path | None, *, base_dir: Path = Path()) -> str:
    """The whole report where every run is evaluated; else the training curves, and what is still missing.

    No model is loaded: a run that goes on needs the memory.
    """
    missing = [line for run in runs for line in _missing(run)]
    try:
        if not missing:
            return write_report(runs, out, base_dir=base_dir, drift=False).read_text(encoding="utf-8")
        begun = open_compared_runs([run for run in runs if (run / "config.yaml").is_file() or is_evaldir(run)])
        return waiting_page(_title(begun), training_logs(begun, running=True), missing, refresh=REFRESH_S)
    except DphrlError as error:
        return waiting_page("Waiting", {}, [str(error)], refresh=REFRESH_S)


def _title(runs: Sequence[ComparedRun]) -> str:
    return ", ".join(dict.fromkeys(run.entry.name for run in runs)) or "Waiting"


def _missing(run: Path) -> list[str]:
    """What the report of a run still lacks, a line each; empty where it is evaluated."""
    if is_evaldir(run):
        return [] if any((run / "eval").glob("*/summary.json")) else [f"{run.name}: the first model measured"]
    if any((run / "eval").glob("*/summary.json")) and ((run / "eval/final/summary.json").is_file() or _base_only(run)):
        return []
    if not (run / "config.yaml").is_file():
        return [f"{run} has not begun"]
    lines = [f"{run.name}: {name}" for file, name in STEPS.items() if not (run / file).is_file()]
    return lines if (run / "presample").exists() else [line for line in lines if not line.endswith("presamples")]


def _base_only(run: Path) -> bool:
    """A run that was never trained, such as one that others name as their base_run."""
    return not (run / "train").exists()


def _stamp(runs: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    files = [path for run in runs for pattern in WATCHED for path in sorted(run.glob(pattern))]
    return tuple((str(path), (at := path.stat()).st_mtime_ns, at.st_size) for path in files)
