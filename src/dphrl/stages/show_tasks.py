"""`dphrl tasks`: which tasks are ready to use, and what the prompts of one look like."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dphrl.config.load import build_config, with_overrides
from dphrl.config.sources import TaskConfig
from dphrl.demo.task import DEMO_TASKS
from dphrl.errors import ConfigError, DataError, nearest
from dphrl.tasks import DEMO_PREFIX, READY, gym, load_task, resolved
from dphrl.types import Prompt, Task, item_of
from dphrl.verifiers.math.extract import extract_gold

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = 3
"""Prompts shown of a task."""
_SECTION = "task."


def list_tasks(console: Console) -> None:
    """Print every ready task: name, verifier, what it is, where its data comes from, what it needs."""
    width = max(map(len, READY))
    for name, ready in READY.items():
        _say(console, f"{name:<{width}}  {ready.verifier:<4}  {ready.what}")
        _say(console, f"{'':<{width}}        data: {ready.origin}", "dim")
        if ready.extra:
            _say(console, f"{'':<{width}}        needs: {ready.extra}", "dim")
    _say(
        console, f"\nAlso {', '.join(f'{DEMO_PREFIX}{name}' for name in DEMO_TASKS)} as task.data: the built-in world."
    )
    _say(console, "task.name picks a task in a config; `dphrl tasks show NAME` prints prompts of it.")


def show_task(
    name: str,
    console: Console,
    *,
    data: str | None = None,
    split: str | None = None,
    prompt: str | None = None,
    overrides: Mapping[str, str] | None = None,
    base_dir: Path = Path(),
) -> None:
    """Print rendered prompts of a task with their golds, and what the verifier says of the golds.

    Args:
        name: a ready task, or demo:NAME.
        console: where to print; plain text where it is no terminal.
        data, split: task.data and task.split.
        prompt: id of the one prompt to show; None = the first three.
        overrides: further settings, "task.KEY" -> text as on the command line.
        base_dir: folder that relative paths are looked up in first.
    Raises:
        ConfigError: an unknown task or setting. DataError: the data or the prompt is not there.
    """
    cfg = _settings(name, {"data": data, "split": split}, overrides or {})
    if cfg.name.startswith(gym.PREFIX) and cfg.limit is None and prompt is None:
        cfg = dataclasses.replace(cfg, limit=SHOWN)  # some generators take a second a prompt
    task = load_task(name, cfg, base_dir=base_dir)
    verifier = "exact" if cfg.data.startswith(DEMO_PREFIX) else resolved(cfg).verifier
    chosen = _chosen(task, prompt)
    _say(console, f"{name}: {len(task.prompts):,} prompts", "bold")
    for note in task.notes:
        _say(console, f"note: {note}")
    for one in chosen:
        _say(console, f"\n--- prompt {one.id}", "bold")
        for part in _parts(one):
            _say(console, part)
        _say(console, f"--- {_gold_line(task, verifier, one)}", "bold")


def gold_completion(verifier: str, gold: Any) -> str:
    """A gold answer as a completion that gives it, so that the verifier can be asked about the gold itself.

    Args:
        verifier: as in task.verifier; of a function of the user's own the completion is the gold as it stands.
        gold: value of the gold column.
    """
    return _COMPLETIONS.get(verifier, str)(gold)


_COMPLETIONS: dict[str, Callable[[Any], str]] = {
    "math": lambda gold: f"\\boxed{{{extract_gold(gold)}}}",
    "sql": lambda gold: f"```sql\n{gold}\n```",
    gym.VERIFIER: lambda gold: f"<answer>{gold}</answer>",
}


def _settings(name: str, given: Mapping[str, str | None], overrides: Mapping[str, str]) -> TaskConfig:
    foreign = [key for key in overrides if not key.startswith(_SECTION)]
    if foreign:
        raise ConfigError(f"--{foreign[0]} is no setting of a task; those start with --{_SECTION}")
    values = {key: value for key, value in given.items() if value is not None}
    own = {"data": name} if name.startswith(DEMO_PREFIX) else {"name": name}
    return build_config(with_overrides({"task": {**own, **values}}, overrides)).task


def _chosen(task: Task, prompt: str | None) -> Sequence[Prompt]:
    if prompt is None:
        return task.prompts[:SHOWN]
    found = [one for one in task.prompts if one.id == prompt]
    if not found:
        ids = [one.id for one in task.prompts]
        raise DataError(f"task {task.name} has no prompt {prompt!r}{nearest(prompt, ids)}; the first is {ids[0]!r}")
    return found


def _parts(prompt: Prompt) -> list[str]:
    if isinstance(prompt.prompt, str):
        return [prompt.prompt]
    return [f"[{message['role']}]\n{message['content']}" for message in prompt.prompt]


def _gold_line(task: Task, verifier: str, prompt: Prompt) -> str:
    if "gold" not in prompt.columns:
        return "no gold"
    gold = prompt.columns["gold"]
    (verdict,) = task.verify([item_of(prompt, gold_completion(verifier, gold))])
    shown = extract_gold(gold) if verifier == "math" else gold
    return f"gold: {shown}\n--- as a completion: {verdict.status}{f' ({verdict.detail})' if verdict.detail else ''}"


def _say(console: Console, text: str, style: str = "") -> None:
    from rich.text import Text

    console.print(Text(text, style=style), soft_wrap=True)
