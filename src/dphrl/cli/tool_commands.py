"""`dphrl verify`, `tasks`, `anchors`, `recipes`, `docs` and `doctor`: what needs no run."""

from __future__ import annotations

from pathlib import Path

import click
from click import argument, option

import dphrl
from dphrl.cli.settings_command import PATH, SettingsCommand
from dphrl.cli.stage_commands import Overrides
from dphrl.errors import ConfigError, nearest

STORE = argument("folder", metavar="DIR", type=PATH)
NEW_FOLDER = option("--out", type=PATH, required=True, help="Folder to write; it must not exist yet.")


@click.command()
@option("--task", required=True, help="The verifier: sql, math, exact or module:function.")
@option("--file", required=True, help="File of JSON lines; - is standard input.")
@option("--out", type=PATH, help="Write id, correct, reward, status and detail here, as JSON lines.")
@option(
    "--arg", "arguments", multiple=True, metavar="NAME=VALUE", help="For the verifier, e.g. db_dir=dbs; repeatable."
)
def verify(task: str, file: str, out: Path | None, arguments: tuple[str, ...]) -> None:
    """Judge completions in a file, without a model.

    Each line of the file is a JSON object: completion, gold, for SQL also db and perhaps mode, perhaps id; other keys
    reach a verifier of your own as columns. `dphrl docs own-verifier` tells more.
    """
    from dphrl.progress import shown
    from dphrl.stages.verify_file import verify_file

    with shown() as progress:
        summary = verify_file(task, file, arguments=arguments, out=out, progress=progress)
    click.echo(summary.text() if out is None else f"{summary.text()}\nverdicts: {out}")


@click.group(invoke_without_command=True)
@click.pass_context
def tasks(context: click.Context) -> None:
    """List the ready tasks, or show prompts of one."""
    if context.invoked_subcommand is None:
        from rich.console import Console

        from dphrl.stages.show_tasks import list_tasks

        list_tasks(Console())


@tasks.command(cls=SettingsCommand, only="task.")
@argument("name")
@option("--data", help="Its file, folder or `datasets` name [the task's own].")
@option("--split", help="Its split [the task's own].")
@option("--prompt", metavar="ID", help="Show this prompt alone.")
@option("--model", help="Folder or name whose tokenizer counts tokens and renders chats [tokens are estimated].")
def show(
    name: str, data: str | None, split: str | None, prompt: str | None, model: str | None, overrides: Overrides
) -> None:
    """Print three prompts of a task (a ready one, or demo:NAME), their golds, and the verdicts on the golds."""
    from rich.console import Console

    from dphrl.stages.show_tasks import show_task

    show_task(name, Console(), data=data, split=split, prompt=prompt, model=model, overrides=overrides)


@click.group()
def anchors() -> None:
    """Look at, check, join or export stores of anchors."""


@anchors.command()
@STORE
@option("--model", help="Folder or name whose tokenizer decodes the anchors [token ids].")
@option("--show", type=int, default=3, help="Anchors shown, >= 0 [3].")
def inspect(folder: Path, model: str | None, show: int) -> None:
    """Print status, counts, lengths, tasks and a few anchors."""
    from dphrl.stages import inspect_anchors

    click.echo(inspect_anchors.inspect_store(folder, model=model, show=show))


@anchors.command("verify")
@STORE
def verify_store(folder: Path) -> None:
    """Compare every file's checksum, and look for doubled anchors."""
    from dphrl.stages import inspect_anchors

    click.echo(inspect_anchors.verify_store(folder))


@anchors.command("merge")
@argument("folders", metavar="DIR...", nargs=-1, required=True, type=PATH)
@NEW_FOLDER
def join_stores(folders: tuple[Path, ...], out: Path) -> None:
    """Join stores of one policy that were made in one way."""
    from dphrl.stages import inspect_anchors

    click.echo(inspect_anchors.join_stores(folders, out))


@anchors.command()
@STORE
@NEW_FOLDER
def export(folder: Path, out: Path) -> None:
    """Write a folder that datasets.load_from_disk reads."""
    from dphrl.stages import inspect_anchors

    click.echo(inspect_anchors.export_store(folder, out))


@click.command()
@argument("name", required=False)
def recipes(name: str | None) -> None:
    """List the example settings, or print one: `dphrl recipes spider-tiny > my.yaml`."""
    _list_or_print("recipes", name)


@click.command()
@argument("name", metavar="[PAGE]", required=False)
def docs(name: str | None) -> None:
    """List the pages of the documentation, or print one."""
    _list_or_print("docs", name)


def _list_or_print(folder: str, name: str | None) -> None:
    """Each text in a folder that ships with the package, with its first line; or one of them whole.

    Raises:
        ConfigError: there is none of this name; it says the nearest.
    """
    root = Path(dphrl.__path__[0]) / folder
    paths = sorted(path for kind in ("*.md", "*.yaml", "*.py") for path in [*root.glob(kind), *root.glob(f"*/{kind}")])
    texts = {str(path.relative_to(root)).removesuffix(".md").removesuffix(".yaml"): path for path in paths}
    if name is None:
        first = {key: path.read_text(encoding="utf-8").splitlines()[0].lstrip('#" ') for key, path in texts.items()}
        click.echo("\n".join(f"{key:<{max(map(len, texts))}}  {line}" for key, line in first.items()))
    elif name in texts:
        click.echo(texts[name].read_text(encoding="utf-8"), nl=False)
    else:
        raise ConfigError(f"{folder} holds no {name!r}{nearest(name, texts)}; there are: {', '.join(texts)}")


@click.command()
@option("--model", help="Folder or name of a model: load it on the CPU, and say whether it trains.")
def doctor(model: str | None) -> None:
    """Say what is installed, what works, and what to install; or whether a model can be trained."""
    from dphrl.stages.doctor import installation_text
    from dphrl.stages.doctor_model import model_text

    click.echo(installation_text() if model is None else model_text(model))
