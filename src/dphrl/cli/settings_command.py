"""A command that takes every setting as --dotted.key VALUE, shows them in its help, and completes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from dphrl.errors import ConfigError

if TYPE_CHECKING:
    from dphrl.config.describe import Setting
    from dphrl.config.root import Config


PATH = click.Path(path_type=Path)

MOST_RUNS = "what most runs set"
OUTSIDE = "run"
"""Headings in the help: of the common settings, and of those outside of any section."""


def config_file(function: Callable[..., None]) -> Callable[..., None]:
    """The settings file of a command, as its first argument or as --config."""
    option = click.option("--config", type=PATH, help="YAML file of settings; the first argument may name it too.")
    return click.argument("file", required=False, type=PATH)(option(function))


class SettingsCommand(click.Command):
    """Its function gets `overrides`, {"dotted.key": "text"}: each option that is none of the command's own.

    A `file` argument and a `config` option name the same thing; the function gets one `config`.

    Args:
        only: the settings that the command takes begin with this.
    """

    def __init__(self, *args: Any, only: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._only = only

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from dphrl.config.overrides import parse_overrides

        own, settings = self._split(ctx, args)
        rest = super().parse_args(ctx, own)
        if ctx.resilient_parsing:  # the shell asks for completions
            return rest
        if file := ctx.params.pop("file", None):
            if ctx.params["config"] is not None:
                raise ConfigError(f"{file} and --config {ctx.params['config']} both name a settings file; give one")
            ctx.params["config"] = file
        ctx.params["overrides"] = parse_overrides(settings)
        return rest

    def _split(self, ctx: click.Context, args: Sequence[str]) -> tuple[list[str], list[str]]:
        """The command's own words, and the settings among them with their values.

        Raises:
            click.NoSuchOption: an option that is neither; it names the nearest.
        """
        options = {name for option in self.get_params(ctx) for name in option.opts}
        own: list[str] = []
        settings: list[str] = []
        rest = iter(args)
        for word in rest:
            name, equals, _ = word.partition("=")
            if not name.startswith("--") or name in options:
                own.append(word)
                continue
            if "." not in name and name not in (keys := self._keys()):
                raise click.NoSuchOption(name, possibilities=[*options, *keys], ctx=ctx)
            settings += [word] if equals else [word, *_next(rest)]
        return own, settings

    def _settings(self) -> Iterator[Setting]:
        from dphrl.config.describe import described_settings

        return (setting for setting in described_settings() if setting.key.startswith(self._only))

    def _keys(self) -> list[str]:
        return [f"--{setting.key}" for setting in self._settings()]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text("Settings, in the YAML file or as --dotted.key VALUE:")
        for title, settings in _groups(self._settings()).items():
            with formatter.section(title):
                formatter.write_dl([(f"--{setting.key}", _described(setting)) for setting in settings], col_max=36)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        keys = self._keys() if incomplete.startswith("-") else []
        settings = [CompletionItem(key) for key in keys if key.startswith(incomplete)]
        return [*super().shell_complete(ctx, incomplete), *settings]


def _groups(settings: Iterable[Setting]) -> dict[str, list[Setting]]:
    """Heading in the help -> its settings: the common ones first, then what is left of each section."""
    groups: dict[str, list[Setting]] = {MOST_RUNS: []}
    for setting in settings:
        title = MOST_RUNS if setting.common else setting.section or OUTSIDE
        groups.setdefault(title, []).append(setting)
    return groups


def _next(words: Iterator[str]) -> list[str]:
    """The next word, if there is one."""
    return [word for word in [next(words, None)] if word is not None]


def _described(setting: Setting) -> str:
    methods = f"method {', '.join(setting.methods)}" if setting.methods else ""
    facts = (methods, setting.unit, setting.range or setting.type, f"default {setting.default}")
    return f"{setting.help} [{'; '.join(fact for fact in facts if fact)}]"


def read_config(config: Path | None, overrides: dict[str, str]) -> tuple[Config, Path]:
    """The settings of a command, and the folder that relative paths in them refer to.

    Raises:
        ConfigError: no file is named, or `load_config` refuses it.
    """
    from dphrl.config.load import load_config

    if config is None:
        raise ConfigError(
            "no settings file is named; give it as --config FILE or as the first argument; `dphrl recipes` lists "
            "examples"
        )
    return load_config(config, overrides, config.parent), config.parent
