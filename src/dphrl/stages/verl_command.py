"""`dphrl verl-command`: the command that trains a config on verl, as a script for bash; nothing is run or written."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dphrl.config.root import Config
from dphrl.config.sources import TaskConfig
from dphrl.engines.verl.cluster import SEPARATE, Cluster
from dphrl.engines.verl.config_to_verl import Places, Translation, verl_settings
from dphrl.engines.verl.hydra_words import command_lines, override
from dphrl.engines.verl.prompt_ids import TEXT_TEMPLATE, text_template
from dphrl.errors import ConfigError, DphrlError
from dphrl.models.policy import load_tokenizer, model_path
from dphrl.runs.run_dir import RunDir
from dphrl.stages.presample.training_prompts import needs_presamples
from dphrl.tasks.load import is_chat
from dphrl.tasks.ready import resolved

PROGRAM = ("python", "-m", "verl.trainer.main_ppo")
PORT = 6379
"""Ray's own."""
FIRST_NODE = "FIRST_NODE"
"""Stands for the first node's address in what is printed."""


def verl_command(
    config: Config, cluster: Cluster, *, file: Path, overrides: Mapping[str, str], data: Path | None = None
) -> str:
    """The script: what to run before and what differs, as comments, then verl's command, a setting a line.

    Args:
        file: the settings file, and the settings laid over it; they are named in the commands that come before.
        overrides: dotted setting -> text.
        data: where `dphrl export verl` has written the prompts; None = RUN/verl.
    Raises:
        ConfigError: as `verl_settings`, or no `out`. ModelError: the model's folder cannot be read.
    """
    if not config.out:
        raise ConfigError("out is empty; name the run directory, e.g. --out runs/first")
    run = RunDir(Path(config.out).absolute())
    anchored = RunDir(Path(config.base_run).absolute()) if config.base_run is not None else run
    out = run.root / "verl"
    name = model_path(config.model)
    places = Places(
        data=out if data is None else data.absolute(),
        anchors=anchored.anchors,
        out=out,
        model=str(Path(name).absolute()) if Path(name).is_dir() else name,
    )
    config, unread = _with_kinds(config, file.parent)
    template, unknown = _template(config, name)
    found = verl_settings(config, cluster, places, template=template)
    lines = [*_before(config, run, places, file, overrides), *_nodes(cluster), *_notes(found, unread + unknown, config)]
    words = [override(key, value) for key, value in found.settings.items()]
    return "\n".join(
        ["#!/usr/bin/env bash", *lines, f"mkdir -p {shlex.quote(str(out))}", command_lines(PROGRAM, words)]
    )


def _with_kinds(config: Config, base_dir: Path) -> tuple[Config, list[str]]:
    """The config with `chat` said for every task, as its file has the prompts; a line for files that are not here."""
    unread = []

    def said(label: str, task: TaskConfig) -> TaskConfig:
        try:
            return replace(task, chat=is_chat(task, base_dir))
        except DphrlError:
            unread.append(
                f"whether the prompts of {label} are chat messages: task.data={task.data!r} cannot be read here, and "
                "they are taken for texts; if they are messages, say so by chat: true"
            )
            return task

    task = said("task", config.task)
    measured = {name: said(f"eval_tasks.{name}", one) for name, one in config.eval_tasks.items()}
    return replace(config, task=task, eval_tasks=measured), unread


def _template(config: Config, name: str) -> tuple[str | None, list[str]]:
    """The chat template that verl needs for prompts that are texts, and a line where it cannot be known here."""
    if resolved(config.task).chat:
        return None, []
    if Path(name).is_dir():
        return text_template(load_tokenizer(config.model)), []
    return TEXT_TEMPLATE, [
        f"whether the tokenizer of {name} puts a begin token before a text: it is no folder here. If it does, put "
        "{{ bos_token }} before the text in custom_chat_template, or give model.path as a folder"
    ]


def _before(config: Config, run: RunDir, places: Places, file: Path, overrides: Mapping[str, str]) -> list[str]:
    """What makes the files that the command reads."""
    lines = ["# Before it, where every node sees the files (pip install 'dphrl[verl]' on all of them):"]
    given = {key: value for key, value in overrides.items() if key != "out"}
    settings = ["--config", str(file), *(word for key, value in given.items() for word in (f"--{key}", value))]
    if config.base_run is not None:
        lines.append(f"#   (pre-samples and anchors are those of {config.base_run})")
    elif needs_presamples(config):
        lines.append("#   " + shlex.join(["dphrl", "presample", *settings, "--out", str(run.root)]))
    export = ["dphrl", "export", "verl", *settings, "--run", str(run.root), "--out", str(places.data)]
    return [*lines, "#   " + shlex.join(export)]


def _nodes(cluster: Cluster) -> list[str]:
    if cluster.all_nodes == 1:
        return []
    others = cluster.all_nodes - 1
    what = f"{cluster.nodes} that train and {cluster.rollout_nodes} that draw" if cluster.mode == SEPARATE else ""
    return [
        f"# On the first of {cluster.all_nodes} nodes{f' ({what})' if what else ''}, before this script runs there:",
        f"#   ray start --head --port={PORT} --num-gpus={cluster.gpus}",
        f"# On {'the other one' if others == 1 else f'each of the {others} others'}:",
        f"#   ray start --address={FIRST_NODE}:{PORT} --num-gpus={cluster.gpus}",
    ]


def _notes(found: Translation, unknown: list[str], config: Config) -> list[str]:
    lines = [f"# Differs there: {text}." for text in found.differs]
    lines += [f"# Not known here: {text}." for text in unknown]
    lines += [f"# not carried over: {text}" for text in found.left_out]
    if "+dph.anchors" in found.settings and config.model.dtype != "float32":
        lines.append(
            "# May be added: +dph.rescore=true, if 16-bit kernels leave mean |log u| too large before the first step."
        )
    return lines
