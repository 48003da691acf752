"""`dphrl export`: the prompts of a run for other trainers."""

from __future__ import annotations

from pathlib import Path

import click
from click import option

from dphrl.cli.settings_command import PATH, SettingsCommand, config_file, read_config


@click.group()
def export() -> None:
    """Write the prompts of a run for another trainer."""


@export.command(cls=SettingsCommand)
@config_file
@option("--run", type=PATH, help="The run [`out` of the settings file].")
@option("--out", type=PATH, required=True, help="Folder to write: a new one, or an older export.")
def verl(config: Path | None, overrides: dict[str, str], run: Path | None, out: Path) -> None:
    """Write DIR/train.parquet and DIR/EVALTASK.parquet, and print the settings with which verl reads them.

    The training file holds the prompts that `dphrl train` would train on: the exploration set, where the method has
    anchors. Each row names its verifier, and is checked: verl reads it by the tokens that were pre-sampled with.

    A run that is new is begun with the settings; one that is there needs no settings file, whose folder then is where
    relative paths begin.
    """
    from dphrl.progress import shown
    from dphrl.runs.run_dir import RunDir, open_run
    from dphrl.stages.export_verl.export_verl import export_text, export_verl

    base_dir = Path() if config is None else config.parent
    is_there = run is not None and RunDir(run).config.exists()
    if run is None or overrides or (config is not None and not is_there):
        named = {} if run is None else {"out": str(run)}
        settings, base_dir = read_config(config, overrides | named)
        run = open_run(settings).root
    with shown() as progress:
        written = export_verl(run, out, base_dir=base_dir, progress=progress)
    click.echo(export_text(written))
