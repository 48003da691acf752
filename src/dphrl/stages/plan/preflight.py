"""What a run would find: prompts and their lengths, databases, the model's folder, the run directory.

Everything that is not there is gathered, not raised: a user mends it all at once. No weights are read, nothing is
written, no network is asked.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from dphrl.config.load import to_dict
from dphrl.config.root import Config
from dphrl.config.sources import ModelConfig, TaskConfig
from dphrl.errors import ConfigError, DataError, DphrlError, ModelError, RunDirError
from dphrl.models.policy import DEMO, Policy, load_policy, model_path
from dphrl.progress import Progress
from dphrl.runs.run_dir import RunDir, base_of, changed_settings, read_run
from dphrl.sampling.encoded_prompts import encode_prompts, pick_ids, task_for_policy
from dphrl.stages.plan.cost import Shape
from dphrl.stages.presample.keep_sets import check_filter
from dphrl.tasks import DEMO_PREFIX, load_task, resolved
from dphrl.tasks.prompts import estimated_tokens
from dphrl.tasks.ready import columns_of, load_rows, ready_task
from dphrl.tasks.rows import READERS
from dphrl.types import Task
from dphrl.verifiers.sql.verifier import database_path

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class TaskFacts:
    """Prompts of one task."""

    label: str
    prompts: int | None
    """None: a `datasets` name without a limit, which is not loaded here."""
    mean: float | None
    """Mean tokens of a prompt; None where no prompt was read."""
    longest: int | None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What is there, what is not, and what cannot be told from here."""

    task: TaskFacts | None
    keep: tuple[TaskFacts, ...]
    eval: tuple[TaskFacts, ...]
    shape: Shape | None
    problems: tuple[str, ...]
    unknown: tuple[str, ...]


def look(config: Config, base_dir: Path, progress: Progress) -> Found:
    """Look for everything that the stages of `dphrl run` need.

    Returns:
        `problems` holds a text for each thing that would stop the run; a task that has one is left out.
    """
    problems: list[str] = []
    unknown: list[str] = []
    _attempt(problems, "out", lambda: _check_run_dir(config, unknown))
    _attempt(problems, "train.exploration_filter", lambda: check_filter(config))
    policy, shape = _model(config, problems, unknown)
    facts = _Tasks(config, base_dir, policy, progress, problems, unknown)
    task = facts.of("task", config.task)
    keep = [facts.of(f"anchor.also {k.label}", k.task, k.prompts) for k in config.anchor.also]
    measured = [facts.of(f"eval_tasks.{name}", cfg) for name, cfg in config.eval_tasks.items()]
    if not config.eval_tasks:
        problems.append("eval_tasks is empty, so there is nothing to measure; name at least one task")
    return Found(
        task=task,
        keep=tuple(f for f in keep if f),
        eval=tuple(f for f in measured if f),
        shape=shape,
        problems=tuple(problems),
        unknown=tuple(unknown),
    )


def shape_of(folder: str, trust_remote_code: bool = False) -> Shape:
    """The model costs' numbers from a folder's config.json: the model is built without storage, no weights are read.

    Raises:
        ModelError: no config of a causal LM, or one without the numbers of a transformer.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        text = config.get_text_config()
        heads = text.num_attention_heads
        return Shape(
            parameters=sum(p.numel() for p in model.parameters()),
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder}/config.json is not of a transformer that the cost model knows: {error}") from None


@dataclasses.dataclass(frozen=True, slots=True)
class _Tasks:
    """What is shared by all tasks of a config."""

    config: Config
    base_dir: Path
    policy: Policy | None
    progress: Progress
    problems: list[str]
    unknown: list[str]

    def of(self, label: str, cfg: TaskConfig, limit: int | None = None) -> TaskFacts | None:
        """Facts of one task; None where it cannot be loaded, which is a problem then."""
        facts = _attempt(self.problems, label, lambda: self._facts(label, cfg, limit))
        self.progress("look for prompts", 1, 1, label)
        return facts

    def _facts(self, label: str, cfg: TaskConfig, limit: int | None) -> TaskFacts:
        if is_named(cfg):
            data = resolved(cfg).data
            self.unknown.append(f"{label}: task.data={data} is a `datasets` name; it is loaded when the run starts")
            bounds = [n for n in (cfg.limit, limit) if n is not None]
            return TaskFacts(label, min(bounds, default=None), None, None)
        lacking = list(_broken_databases(cfg, self.base_dir))
        if lacking:
            raise DataError(f"{len(lacking)} databases are missing or empty: {', '.join(lacking)}")
        if self.policy is None:
            task = _limited(load_task(label, cfg, base_dir=self.base_dir), limit, self.config.seed)
            lengths = [estimated_tokens(p) for p in task.prompts]
            notes = task.notes
        else:
            loaded = task_for_policy(label, cfg, self.policy, base_dir=self.base_dir)
            prompts = encode_prompts(_limited(loaded, limit, self.config.seed), self.policy, self.config, self.progress)
            lengths = [len(ids) for ids in prompts.encoded.values()]
            dropped = f"{len(prompts.dropped):,} prompts leave no room for a completion and are dropped"
            notes = (*loaded.notes, *([dropped] if prompts.dropped else []))
        return TaskFacts(label, len(lengths), sum(lengths) / len(lengths), max(lengths), tuple(notes))


def is_named(cfg: TaskConfig) -> bool:
    """Whether the data is a name for `datasets`, which may need a network."""
    data = resolved(cfg).data
    reads_rows = ready_task(cfg.name).source is load_rows and not data.startswith(DEMO_PREFIX)
    return reads_rows and bool(data) and Path(data).suffix.lower() not in READERS


def _limited(task: Task, limit: int | None, seed: int) -> Task:
    """The prompts that a keep set takes."""
    if limit is None:
        return task
    some = pick_ids((p.id for p in task.prompts), limit, seed)
    return dataclasses.replace(task, prompts=tuple(p for p in task.prompts if p.id in some))


def _broken_databases(cfg: TaskConfig, base_dir: Path) -> Iterator[str]:
    """Databases of the rows used that are not there or hold no byte: all of them, where loading names the first."""
    cfg = resolved(cfg)
    if cfg.verifier != "sql" or cfg.data.startswith(DEMO_PREFIX):
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


def _model(config: Config, problems: list[str], unknown: list[str]) -> tuple[Policy | None, Shape | None]:
    """The tokenizer and the shape of a model that lies on this machine."""
    path = config.model.path
    folder = _attempt(problems, "model", lambda: model_path(config.model))
    if folder is None:
        return None, None
    if not Path(folder).is_dir():
        unknown.append(
            f"parameters of model.path={path}, a name and no folder here: hours and memory are for each billion "
            "of them, and three characters of a prompt are taken for a token; give a folder with --model.path"
        )
        return None, None
    if path != DEMO:
        problems += [f"model: {text}" for text in weight_problems(Path(folder))]
    shape = _attempt(unknown, "hours and memory", lambda: shape_of(folder, config.model.trust_remote_code))
    return _attempt(problems, "model", lambda: load_policy(_anywhere(config))), shape


def _anywhere(config: Config) -> Config:
    """The same without its GPU: a plan is made on any machine."""
    model: ModelConfig = dataclasses.replace(config.model, device="auto")
    return dataclasses.replace(config, model=model)


def weight_problems(folder: Path) -> list[str]:
    """What is wrong with the weight files of a model's folder: missing shards, files that were cut short.

    Only the files' own tables are read. Other formats than safetensors are taken as they are.
    """
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    names = [p.name for p in sorted(folder.glob("*.safetensors"))]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            return [f"{index} is no index of weights ({error!r}); fetch it again"]
    elif not names and not any(folder.glob("*.bin")) and not any(folder.glob("*.gguf")):
        return [f"{folder} holds no weights (model.safetensors or its shards); fetch them, or name another folder"]
    found = []
    for path in (folder / name for name in names):
        if not path.is_file():
            found.append(f"{path} is missing; fetch the model again")
            continue
        try:
            with safe_open(path, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            found.append(f"{path} is damaged or cut short ({error}); fetch it again")
    return found


def _check_run_dir(config: Config, unknown: list[str]) -> None:
    """As `open_run`, but nothing is made."""
    if not config.out:
        raise ConfigError("out is empty; name the run directory, e.g. --out runs/first")
    run = RunDir(Path(config.out))
    if run.config.exists():
        changed = _changed(config, run)
        if changed:
            unknown.append(
                f"whether {run.root} can go on, since it was begun with other settings:\n" + "\n".join(changed)
            )
    elif run.root.exists() and any(not p.name.endswith(".tmp") for p in run.root.iterdir()):
        raise RunDirError(f"{run.root} is not empty and holds no config.yaml; give another --out")
    base_of(config, run)


def _changed(config: Config, run: RunDir) -> list[str]:
    values: dict[str, Any] = to_dict(config)
    return changed_settings(to_dict(read_run(run.root)[1]), values, values)


def _attempt(problems: list[str], what: str, make: Callable[[], T]) -> T | None:
    """What `make` returns; or None, and the user's mistake among the problems."""
    try:
        return make()
    except DphrlError as error:
        problems.append(f"{what}: {error}")
        return None
