"""`dphrl tasks`: which tasks are ready to use, and what the prompts of one look like."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dphrl.config.load import build_config
from dphrl.config.overrides import with_overrides
from dphrl.config.sources import ModelConfig, TaskConfig
from dphrl.errors import ConfigError, DataError, ModelError, nearest
from dphrl.tasks.load import load_task
from dphrl.tasks.ready import all_ready_tasks, ready_task
from dphrl.tasks.render_prompts import estimated_tokens
from dphrl.types import Prompt, Task, item_of
from dphrl.verifiers.registry import verifier_of
from dphrl.verifiers.verifier import Verifier

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = 3
"""Prompts shown of a task."""
_SECTION = "task."


def list_tasks(console: Console) -> None:
    """Print every ready task: name, verifier, what it is, where its data comes from, what it needs."""
    tasks = dict(all_ready_tasks())
    width = max(map(len, tasks))
    for name, ready in tasks.items():
        _say(console, f"{name:<{width}}  {ready.verifier:<5}  {ready.what}")
        _say(console, f"{'':<{width}}         data: {ready.origin}", "dim")
        if ready.extra:
            _say(console, f"{'':<{width}}         needs: {ready.extra}", "dim")
    _say(console, "\ntask.name picks a task in a config; `dphrl tasks show NAME` prints prompts of it.")


def show_task(
    name: str,
    console: Console,
    *,
    data: str | None = None,
    split: str | None = None,
    prompt: str | None = None,
    model: str | None = None,
    overrides: Mapping[str, str] | None = None,
    base_dir: Path = Path(),
) -> None:
    """Print rendered prompts of a task with their golds, and what the verifier says of the golds.

    Args:
        name: a ready task.
        console: where to print; plain text where it is no terminal.
        data, split: task.data and task.split.
        prompt: id of the one prompt to show; None = the first three.
        model: folder or name whose tokenizer counts the tokens and renders chats; None = the count is estimated.
        overrides: further settings, "task.KEY" -> text as on the command line.
        base_dir: folder that relative paths are looked up in first.
    Raises:
        ConfigError: an unknown task or setting. DataError: the data or the prompt is not there.
    """
    cfg = _settings(name, {"data": data, "split": split}, overrides or {})
    if ready_task(cfg.name).generated and cfg.limit is None and prompt is None:
        cfg = dataclasses.replace(cfg, limit=SHOWN)  # some generators take a second a prompt
    task = load_task(name, cfg, base_dir=base_dir)
    verifier = verifier_of(task.verifier)
    chosen = _chosen(task, prompt)
    _say(console, f"{name}: {len(task.prompts):,} prompts", "bold")
    for note in task.notes:
        _say(console, f"note: {note}")
    tokenizer = None if model is None else _tokenizer(model)
    for one in chosen:
        ids = None if tokenizer is None else _token_ids(tokenizer, one)
        tokens = f"about {estimated_tokens(one):,}" if ids is None else f"{len(ids):,}"
        _say(console, f"\n--- prompt {one.id}, {tokens} tokens", "bold")
        for part in _parts(one) if ids is None else [tokenizer.decode(ids)]:  # type: ignore[union-attr]
            _say(console, part)
        _say(console, f"--- {_gold_line(task, verifier, one)}", "bold")


def _settings(name: str, given: Mapping[str, str | None], overrides: Mapping[str, str]) -> TaskConfig:
    foreign = [key for key in overrides if not key.startswith(_SECTION)]
    if foreign:
        raise ConfigError(f"--{foreign[0]} is no setting of a task; those start with --{_SECTION}")
    values = {key: value for key, value in given.items() if value is not None}
    return build_config(with_overrides({"task": {"name": name, **values}}, overrides)).task


def _chosen(task: Task, prompt: str | None) -> Sequence[Prompt]:
    if prompt is None:
        return task.prompts[:SHOWN]
    of_that_id = [one for one in task.prompts if one.id == prompt]
    if not of_that_id:
        ids = [one.id for one in task.prompts]
        raise DataError(f"task {task.name} has no prompt {prompt!r}{nearest(prompt, ids)}; the first is {ids[0]!r}")
    return of_that_id


def _parts(prompt: Prompt) -> list[str]:
    if isinstance(prompt.prompt, str):
        return [prompt.prompt]
    return [f"[{message['role']}]\n{message['content']}" for message in prompt.prompt]


def _tokenizer(model: str) -> Any:
    from dphrl.models.policy import load_tokenizer  # it imports torch

    return load_tokenizer(ModelConfig(path=model))


def _token_ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    """What a model sees of a prompt, without the weights of one."""
    if isinstance(prompt.prompt, str):
        return list(tokenizer(prompt.prompt)["input_ids"])
    if tokenizer.chat_template is None:
        raise ModelError("the tokenizer has no chat template; set task.chat to false or use an instruct model")
    messages = [dict(message) for message in prompt.prompt]
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    return list(rendered["input_ids"])


def _gold_line(task: Task, verifier: Verifier, prompt: Prompt) -> str:
    if "gold" not in prompt.columns:
        return "no gold"
    gold = prompt.columns["gold"]
    (verdict,) = task.verify([item_of(prompt, verifier.gold_completion(gold))])
    detail = f" ({verdict.detail})" if verdict.detail else ""
    return f"gold: {verifier.read_gold(gold)}\n--- as a completion: {verdict.status}{detail}"


def _say(console: Console, text: str, style: str = "") -> None:
    from rich.text import Text

    console.print(Text(text, style=style), soft_wrap=True)
