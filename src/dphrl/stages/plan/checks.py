"""What a run needs, looked for before it starts: prompts, databases, the model's folder, the run directory.

All problems are gathered, so that a user can mend them at once. No weights are read, nothing is written, and no network
is asked.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from dphrl.config.load import to_dict
from dphrl.config.root import Config
from dphrl.config.sources import TaskConfig
from dphrl.errors import DataError, DphrlError, ModelError
from dphrl.models.policy import Policy, load_policy, model_path
from dphrl.progress import Progress
from dphrl.runs.run_dir import base_of, changed_settings, read_run, run_dir_of
from dphrl.sampling.encoded_prompts import encode_prompts, pick_prompts, task_for_policy
from dphrl.tasks.load import load_task
from dphrl.tasks.read_rows import READERS, is_other_file, rows_of_data
from dphrl.tasks.ready import columns_of, ready_task, resolved
from dphrl.tasks.render_prompts import estimated_tokens
from dphrl.types import Task
from dphrl.verifiers.sql.database_file import database_path

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class TaskSize:
    """How many prompts a task has, and how long they are."""

    label: str
    prompts: int | None
    """None: a `datasets` name without a limit, which is not loaded here."""
    mean: float | None = None
    """Mean tokens of a prompt; None where no prompt was read."""
    longest: int | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Checklist:
    """What was looked for before a run: the problems, and what could not be determined."""

    problems: list[str] = dataclasses.field(default_factory=list)
    """Each would stop the run."""
    unknown: list[str] = dataclasses.field(default_factory=list)
    """What cannot be determined on this machine."""

    def attempt(self, what: str, make: Callable[[], T]) -> T | None:
        """What `make` returns; None where it raises a user's mistake, which becomes one of the problems."""
        try:
            return make()
        except DphrlError as error:
            self.problems.append(f"{what}: {error}")
            return None


@dataclasses.dataclass(frozen=True, slots=True)
class TaskChecks:
    """Loads the tasks of one config and measures their prompts."""

    config: Config
    base_dir: Path
    policy: Policy | None
    """Its tokenizer counts; None = three characters are taken for a token."""
    progress: Progress
    checklist: Checklist

    def size(self, label: str, cfg: TaskConfig, limit: int | None = None) -> TaskSize | None:
        """The size of one task; None where it cannot be loaded, which is a problem then."""
        size = self.checklist.attempt(label, lambda: self._size(label, cfg, limit))
        self.progress("look for prompts", 1, 1, label)
        return size

    def _size(self, label: str, cfg: TaskConfig, limit: int | None) -> TaskSize:
        if needs_datasets(cfg, self.base_dir):
            data = resolved(cfg).data
            line = f"{label}: task.data={data} is a `datasets` name; it is loaded when the run starts"
            self.checklist.unknown.append(line)
            return TaskSize(label, min((n for n in (cfg.limit, limit) if n is not None), default=None))
        lacking = list(_broken_databases(cfg, self.base_dir))
        if lacking:
            raise DataError(f"{len(lacking)} databases are missing or empty: {', '.join(lacking)}")
        lengths, notes = self._estimated(label, cfg, limit) if self.policy is None else self._counted(label, cfg, limit)
        return TaskSize(label, len(lengths), sum(lengths) / len(lengths), max(lengths), notes)

    def _estimated(self, label: str, cfg: TaskConfig, limit: int | None) -> tuple[list[int], tuple[str, ...]]:
        task = self._limited(load_task(label, cfg, base_dir=self.base_dir), limit)
        return [estimated_tokens(prompt) for prompt in task.prompts], task.notes

    def _counted(self, label: str, cfg: TaskConfig, limit: int | None) -> tuple[list[int], tuple[str, ...]]:
        assert self.policy is not None
        task = self._limited(task_for_policy(label, cfg, self.policy, base_dir=self.base_dir), limit)
        prompts = encode_prompts(task, self.policy, self.config, self.progress)
        dropped = f"{len(prompts.dropped):,} prompts leave no room for a completion and are dropped"
        notes = (*task.notes, dropped) if prompts.dropped else task.notes
        return [len(ids) for ids in prompts.encoded.values()], notes

    def _limited(self, task: Task, limit: int | None) -> Task:
        """The prompts that a keep set takes."""
        return task if limit is None else pick_prompts(task, limit, self.config.seed)


def needs_datasets(cfg: TaskConfig, base_dir: Path = Path()) -> bool:
    """Whether the data is a name for `datasets`, which may need a network; a file of another kind is none."""
    data = resolved(cfg).data
    if ready_task(cfg.name).source is not rows_of_data or not data:
        return False
    return Path(data).suffix.lower() not in READERS and not is_other_file(data, base_dir)


def _broken_databases(cfg: TaskConfig, base_dir: Path) -> Iterator[str]:
    """All databases of the rows used that are missing or empty; loading the task would name the first alone."""
    cfg = resolved(cfg)
    if cfg.verifier != "sql":
        return
    ready = ready_task(cfg.name)
    loaded = ready.source(cfg, base_dir)
    rows = loaded.rows[cfg.offset :][: cfg.limit]
    column = columns_of(cfg, ready, rows[0]).get("db", "db") if rows else "db"
    db_dir = cfg.verifier_args.get("db_dir", loaded.db_dir)
    if db_dir is None or any(column not in row for row in rows):
        return  # loading says what is wrong with that
    folder = next((f for f in (base_dir / db_dir, Path(db_dir)) if f.is_dir()), Path(db_dir))
    for path in sorted({database_path(row[column], str(folder)) for row in rows}):
        if not path.is_file() or path.stat().st_size == 0:
            yield str(path)


def check_run_dir(config: Config, unknown: list[str]) -> None:
    """As `open_run`, but nothing is made, and settings that differ from those of an older call are only told.

    Raises:
        ConfigError, RunDirError: as `open_run` and `base_of`.
    """
    run = run_dir_of(config)
    if run.config.exists():
        values = to_dict(config)
        changed = changed_settings(to_dict(read_run(run.root)[1]), values, values)
        if changed:
            lines = "\n".join(changed)
            unknown.append(f"whether {run.root} can go on, since it was begun with other settings:\n{lines}")
    base_of(config, run)


def check_model(config: Config, checklist: Checklist) -> tuple[Policy | None, int | None]:
    """The tokenizer and the number of parameters of a model that lies on this machine; None for what is not known."""
    folder = checklist.attempt("model", lambda: model_path(config.model))
    if folder is None:
        return None, None
    if not Path(folder).is_dir():
        checklist.unknown.append(
            f"parameters of model.path={config.model.path}, a name and no folder here; three characters of a prompt "
            "are taken for a token; give a folder with --model.path"
        )
        return None, None
    checklist.problems.extend(f"model: {text}" for text in weight_problems(Path(folder)))
    anywhere = dataclasses.replace(config, model=dataclasses.replace(config.model, device="auto"))
    policy = checklist.attempt("model", lambda: load_policy(anywhere))
    try:
        return policy, parameters_of(folder, config.model.trust_remote_code)
    except ModelError as error:
        checklist.unknown.append(f"room for weights and checkpoints: {error}")
        return policy, None


def parameters_of(folder: str, trust_remote_code: bool = False) -> int:
    """Parameters of the model in a folder, from its config.json alone: it is built without storage.

    Raises:
        ModelError: no config of a causal LM.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder}/config.json is not of a causal language model: {error}") from None
    return sum(parameter.numel() for parameter in model.parameters())


def weight_problems(folder: Path) -> list[str]:
    """What is wrong with the weight files of a model's folder: missing shards, files that were cut short.

    Only the files' own tables are read. Other formats than safetensors are taken as they are.
    """
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    names = [path.name for path in sorted(folder.glob("*.safetensors"))]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            return [f"{index} is no index of weights ({error!r}); fetch it again"]
    elif not names and not any(folder.glob("*.bin")) and not any(folder.glob("*.gguf")):
        return [f"{folder} holds no weights (model.safetensors or its shards); fetch them, or name another folder"]
    problems = []
    for path in (folder / name for name in names):
        if not path.is_file():
            problems.append(f"{path} is missing; fetch the model again")
            continue
        try:
            with safe_open(path, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            problems.append(f"{path} is damaged or cut short ({error}); fetch it again")
    return problems
