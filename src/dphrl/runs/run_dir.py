"""The run directory: where each stage's files lie, and the check that a directory belongs to this config."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dphrl.config.load import flat, read_stored_config, to_dict, write_stored_config
from dphrl.config.root import Config
from dphrl.errors import ConfigError, RunDirError
from dphrl.files import damage_refused, read_json, write_json

Sections = Mapping[str, Any]
"""Sections of a config by name, as JSON has them: what is compared and shown, never used."""

FREE_KEYS = frozenset(
    {
        "out",
        "threads",
        "model.device",
        "anchor.batch_size",
        "eval.drift",
        "sampling.batch_size",
        "sampling.gpu_memory_utilization",
        "sampling.tensor_parallel",
        "sampling.served_model",
        "sampling.served_final",
        "sampling.base_url",
        "sampling.api_key_env",
        "sampling.concurrency",
        "sampling.timeout_s",
        "sampling.retries",
        "train.save_every",
        "train.max_bad_steps",
    }
)
"""Settings that change no result, so they may differ when a run goes on."""

_OF_STAGE = {
    "presample": ("seed", "model", "task", "sampling"),
    "train": ("seed", "method", "base_run", "model", "lora", "task", "sampling", "anchor", "objective", "train"),
    "eval": ("seed", "model", "eval_tasks", "sampling", "eval"),
}
"""Sections of the config that what a stage drew or trained depends on. Presamples do not depend on `anchor`: when it
changes, `presample` makes partition and anchors again, from the draws there are and those that are missing."""

TRAINED_FROM = _OF_STAGE["train"]

_FIXED = ("model.", "lora.", "policy.weights", "policy.tokenizer", "policy.dtype", "train.updates", "train.trl.optim")
"""Beginnings of the settings and fingerprints with which a checkpoint of another value cannot go on: other weights,
another count of steps, another optimiser."""

ALLOW = ", or --allow-change to go on all the same; the change is recorded in train/changes.jsonl"

OF_EVAL = _OF_STAGE["eval"]
"""What samples depend on, in an evaluation directory too."""

_SHARED = (*_OF_STAGE["presample"], "anchor")
"""Sections in which a run must agree with its `base_run`."""


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths of one run; see docs/architecture.md."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def versions(self) -> Path:
        """Package -> version, of what made the run."""
        return self.root / "versions.json"

    @property
    def presample(self) -> Path:
        return self.root / "presample"

    @property
    def partition(self) -> Path:
        return self.presample / "partition.json"

    @property
    def shard(self) -> Path:
        """Made by `dphrl presample --shard`: which share of the prompts this run holds."""
        return self.presample / "shard.json"

    def draws(self, label: str) -> Path:
        """Folder of the presamples of the task, or of a keep set by its name."""
        return self.presample if label == "task" else self.presample / f"also-{label}"

    @property
    def anchors(self) -> Path:
        return self.root / "anchors"

    @property
    def train(self) -> Path:
        return self.root / "train"

    @property
    def metrics(self) -> Path:
        return self.train / "metrics.jsonl"

    @property
    def warnings(self) -> Path:
        """Signs of collapse and steps that were left out, a line each."""
        return self.train / "warnings.jsonl"

    @property
    def started(self) -> Path:
        """What the training was begun with, or went on with last."""
        return self.train / "started.json"

    @property
    def changes(self) -> Path:
        """The changes made before the training went on from a checkpoint, a line each time."""
        return self.train / "changes.jsonl"

    @property
    def final(self) -> Path:
        return self.train / "final"

    @property
    def is_trained(self) -> bool:
        """Whether its training has ended with a model."""
        return (self.final / "config.json").exists()

    @property
    def adapter(self) -> Path:
        """The LoRA adapter that RUN/train/final is merged from; only with `lora.r`."""
        return self.train / "adapter"

    def eval(self, model: str) -> Path:
        return self.root / "eval" / model

    def samples(self, model: str, dataset: str) -> Path:
        return self.eval(model) / f"{dataset}.parquet"

    def eval_summary(self, model: str) -> Path:
        return self.eval(model) / "summary.json"

    def stage(self, name: str) -> Path:
        return self.root / name

    def holds(self, stage: str) -> bool:
        """Whether there are results that belong to a config; a training without a checkpoint has none yet."""
        if stage == "train":
            return self.final.exists() or any(self.train.glob("checkpoint-*"))
        return self.stage(stage).exists()


def open_run(config: Config, *, allow_change: bool = False) -> RunDir:
    """The run directory of a config, made if it is new.

    Args:
        allow_change: let a training that is not finished go on with other settings, if its checkpoints can.
    Raises:
        ConfigError: no `out`. RunDirError: the directory holds results of another config (names the settings).
    """
    run = run_dir_of(config)
    if run.config.exists():
        _check_same(run, config, allow_change=allow_change)
    with cannot_be_made(run):
        run.root.mkdir(parents=True, exist_ok=True)
        write_stored_config(run.config, config)
        if not run.versions.exists():
            write_json(run.versions, installed_versions())
    return run


@contextmanager
def cannot_be_made(run: RunDir) -> Iterator[None]:
    """Around the making of a run directory.

    Raises:
        RunDirError: the system refuses it.
    """
    try:
        yield
    except OSError as error:
        raise RunDirError(
            f"out={str(run.root)!r} cannot be made or written: {error}; give another --out, or make room and mend the "
            "rights of the folder"
        ) from None


def run_dir_of(config: Config) -> RunDir:
    """The run directory that a config names; nothing is made.

    Raises:
        ConfigError: no `out`. RunDirError: a file, or a folder that holds something else.
    """
    if not config.out:
        raise ConfigError("out is empty; name the run directory, e.g. --out runs/first")
    run = RunDir(Path(config.out))
    try:
        run.config.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL; a folder that may not be entered
        raise RunDirError(f"out={config.out!r} cannot be looked into: {error}; give another --out") from None
    made = next(path for path in (run.root, *run.root.absolute().parents) if os.path.lexists(path))
    if not made.is_dir():
        raise RunDirError(f"{made} is {'no folder' if made.is_symlink() else 'a file'}; give another --out")
    if not os.access(made, os.R_OK | os.W_OK | os.X_OK):
        why = os.strerror(errno.EROFS if os.statvfs(made).f_flag & os.ST_RDONLY else errno.EACCES)
        raise RunDirError(f"{made} cannot be written ({why}), so {run.root} cannot be made; give another --out")
    leftover = made == run.root and any(not p.name.endswith(".tmp") for p in run.root.iterdir())  # a kill leaves .tmp
    if leftover and not run.config.exists():
        raise RunDirError(f"{run.root} is not empty and holds no config.yaml; give another --out")
    return run


def read_run(root: Path) -> tuple[RunDir, Config]:
    """An existing run and its config.

    Raises:
        RunDirError: the folder is missing or no run directory.
    """
    run = RunDir(root)
    if not run.config.exists():
        raise RunDirError(f"{root} is no run directory: it has no config.yaml")
    return run, read_stored_config(run.config)


def installed_versions() -> dict[str, str]:
    """Versions of what makes a run, as far as it is installed: TRL and accelerate are needed by training alone."""
    names = ("dphrl", "torch", "transformers", "trl", "accelerate", "datasets", "numpy", "pyarrow", "math-verify")
    installed: dict[str, str] = {}
    for name in names:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


def read_versions(run: RunDir) -> dict[str, str]:
    """Versions of the packages that made a run; empty if the run does not hold them.

    Raises:
        RunDirError: the file is damaged.
    """
    if not run.versions.exists():
        return {}
    with damage_refused(run.versions, "delete it"):
        return {str(name): str(version) for name, version in read_json(run.versions).items()}


def base_of(config: Config, run: RunDir) -> RunDir:
    """The run that holds the presamples, anchors and base evaluation: `base_run`, or the run itself.

    Raises:
        RunDirError: `base_run` is missing, or differs in model, task, seed, sampling or anchor settings.
    """
    if config.base_run is None:
        return run
    base, base_config = read_run(Path(config.base_run))
    changed = changed_settings(to_dict(base_config), to_dict(config), _SHARED)
    if changed:
        raise RunDirError(
            f"base_run={config.base_run} is of another config:\n"
            + "\n".join(changed)
            + "\ngive the values from there, or a base_run made with these: `dphrl presample`, then "
            "`dphrl eval --model base`, with them and an --out of its own"
        )
    return base


def _check_same(run: RunDir, config: Config, *, allow_change: bool) -> None:
    saved = to_dict(read_run(run.root)[1])  # settings that are newer than the run have their defaults
    for stage, sections in _OF_STAGE.items():
        changed = changed_settings(saved, to_dict(config), sections)
        may_change = stage == "train" and not run.final.exists()
        if may_change and allow_change:
            changed = [line for line in changed if is_fixed(line.strip().partition(":")[0])]
        if changed and run.holds(stage):
            why = ", with which no checkpoint can go on" if may_change and allow_change else ""
            raise RunDirError(
                f"{run.root} holds {stage} results of another config{why}:\n"
                + "\n".join(changed)
                + f"\ngive another --out, the old settings, or delete {run.stage(stage)}"
                + (ALLOW if may_change and not allow_change else "")
            )


def is_fixed(key: str) -> bool:
    """Whether a setting or fingerprint must stay as it was for a checkpoint to be of use."""
    return key.startswith(_FIXED)


def changed_settings(old: Sections, new: Sections, sections: Iterable[str]) -> list[str]:
    """One line for each setting of these sections that differs and matters, with both values."""
    names = tuple(sections)
    before, now = (flat({name: values.get(name) for name in names}) for values in (old, new))
    keys = [key for key in sorted({*before, *now}) if key not in FREE_KEYS and before.get(key) != now.get(key)]
    return [f"  {key}: there {before.get(key)!r}, now {now.get(key)!r}" for key in keys]
