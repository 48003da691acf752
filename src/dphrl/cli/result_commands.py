"""`dphrl report`, `watch`, `compare` and `import`: what makes pages and tables of results."""

from __future__ import annotations

from pathlib import Path

import click
from click import argument, option

from dphrl.cli.settings_command import PATH, read_config
from dphrl.cli.stage_commands import JSON
from dphrl.errors import ConfigError

RUNS = argument("runs", metavar="[RUN]...", nargs=-1, type=PATH)
CONFIG = option("--config", type=PATH, help="Settings file of one more run.")
OUT = option("--out", type=PATH, help="Folder of the page [RUN/report of a single run].")


def _all_runs(runs: tuple[Path, ...], config: Path | None) -> tuple[list[Path], Path]:
    """The runs that are named, the one of --config among them, and the folder that relative paths refer to."""
    if config is not None:
        settings, base_dir = read_config(config, {})
        return [*runs, Path(settings.out)], base_dir
    if not runs:
        raise ConfigError("no run is named; give run directories, or --config FILE of one")
    return list(runs), Path()


@click.command()
@RUNS
@CONFIG
@OUT
@option("--no-drift", is_flag=True, help="Load no trained model to look at its anchors.")
def report(runs: tuple[Path, ...], config: Path | None, out: Path | None, no_drift: bool) -> None:
    """Write the page and figures of one or several runs."""
    from dphrl.progress import shown
    from dphrl.report.terminal import show_verdict
    from dphrl.stages.report.write_report import report_comparison, write_report

    paths, base_dir = _all_runs(runs, config)
    with shown() as progress:
        found = report_comparison(paths, out)
        page = write_report(paths, out, comparison=found, base_dir=base_dir, drift=not no_drift, progress=progress)
    show_verdict(found)
    click.echo(f"Page: {page}")


@click.command()
@RUNS
@CONFIG
@OUT
@option("--port", type=int, default=0, help="0 takes a free one [0].")
def watch(runs: tuple[Path, ...], config: Path | None, out: Path | None, port: int) -> None:
    """Serve the page on 127.0.0.1 while runs go on, until Ctrl-C. No model is loaded."""
    from dphrl.stages.report.watch import server

    paths, base_dir = _all_runs(runs, config)
    with server(paths, out, port=port, base_dir=base_dir) as served:
        click.echo(f"{served.url} shows {', '.join(map(str, paths))}; Ctrl-C ends it")
        served.serve_forever()


@click.command()
@RUNS
@CONFIG
@option("--out", type=PATH, required=True, help="Folder for summary.json.")
@option("--baseline", help="Method that differences refer to [grpo, or base].")
@JSON
def compare(runs: tuple[Path, ...], config: Path | None, out: Path, baseline: str | None, as_json: bool) -> None:
    """Join runs and evaluation directories into one table with paired intervals."""
    from dphrl.report.terminal import show_comparison
    from dphrl.stages.compare.compare import compare_runs

    paths, _ = _all_runs(runs, config)
    show_comparison(compare_runs(paths, out, baseline=baseline), as_json=as_json)
    if not as_json:
        click.echo(f"Page: `dphrl report {' '.join(map(str, paths))} --out {out}` makes it")


@click.command("import")
@argument("files", metavar="[NAME=]FILE...", nargs=-1, required=True)
@option("--out", type=PATH, help="Evaluation directory to write; the report lies in it.")
@option("--base", metavar="NAME", help="The model that keep and explore refer to.")
@option("--threshold", type=float, help="Rewards from here on are right [only 0 and 1 are allowed].")
@option("--reward", metavar="NAME", help="The number that says what is right, where a line has several.")
@option("--columns", metavar="MAPPING", help="Our names -> the files': '{prompt_id: id, completion: out.text, ...}'.")
@option("--verifier", metavar="NAME", help="Judge what has no verdict by its gold: math, exact, module:function.")
@option("--task", "tasks", metavar="NAME[=PATTERN]", multiple=True, help="Task of the prompts that PATTERN finds.")
@option("--n", type=click.IntRange(1), help="Completions of a prompt that count [the fewest that one has].")
@option("--show", is_flag=True, help="Print three samples as they were read, and write nothing.")
def import_files(
    files: tuple[str, ...],
    out: Path | None,
    base: str | None,
    threshold: float | None,
    reward: str | None,
    columns: str | None,
    verifier: str | None,
    tasks: tuple[str, ...],
    n: int | None,
    show: bool,
) -> None:
    """Make an evaluation directory and a report of other tools' samples.

    A FILE holds completions and verdicts: JSON, CSV, Parquet or a tool's log; a folder is all its files. NAME is their
    model, NAME@SEED one of several training seeds; without it the lines say it, or the file's name. `dphrl docs
    other-tools` tells more.
    """
    from dphrl.progress import shown
    from dphrl.report.terminal import show_verdict
    from dphrl.stages.import_samples.import_samples import import_samples
    from dphrl.stages.import_samples.own_lines import parse_columns
    from dphrl.stages.import_samples.sample import Scale
    from dphrl.stages.import_samples.sample_files import Reading, parse_source, parse_task
    from dphrl.stages.import_samples.show_samples import shown_samples
    from dphrl.stages.report.write_report import report_comparison, write_report

    sources = [parse_source(text) for text in files]
    scale = Scale(reward, threshold, verifier)
    reading = Reading(scale, parse_columns(columns), [parse_task(text) for text in tasks])
    if show:
        for line in shown_samples(sources, reading):
            click.echo(line)
        return
    if out is None:
        raise ConfigError("Missing option '--out'; name the evaluation directory to write, or --show to write none")
    with shown() as progress:
        directory, notes = import_samples(sources, out, reading=reading, base=base, n=n, progress=progress)
        found = report_comparison(directory.root)
        page = write_report(directory.root, comparison=found, progress=progress)
    for note in notes:
        click.echo(note)
    show_verdict(found)
    click.echo(f"Page: {page}")
