"""`dphrl export`: the prompts of a run for other trainers."""

from __future__ import annotations

from pathlib import Path

import click
from click import option

from dphrl.cli.settings_command import PATH


@click.group()
def export() -> None:
    """Write the prompts of a run for another trainer."""


@export.command()
@option("--run", type=PATH, required=True, help="A run that `dphrl presample` has made.")
@option("--out", type=PATH, required=True, help="Folder to write: a new one, or an older export.")
@option("--config", type=PATH, help="Its folder is where relative paths begin [the current one].")
def verl(run: Path, out: Path, config: Path | None) -> None:
    """Write DIR/train.parquet and DIR/EVALTASK.parquet, and print the settings with which verl reads them.

    The training file holds the prompts that `dphrl train` would train on: the exploration set, where the method has
    anchors. Each row names its verifier, and is checked: verl reads it by the tokens that were pre-sampled with.
    """
    from dphrl.progress import shown
    from dphrl.stages.export_verl.export_verl import export_text, export_verl

    with shown() as progress:
        written = export_verl(run, out, base_dir=Path() if config is None else config.parent, progress=progress)
    click.echo(export_text(written))
