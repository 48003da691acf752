"""The family of tasks reasoning_gym:NAME: prompts of reasoning-gym's generators, which score the answers themselves.

Prompts are made in a process whose hash seed is fixed (`verifiers.gym.generate_rows`), since some generators walk over
sets.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

from dphrl.config.sources import TaskConfig
from dphrl.errors import ConfigError, DataError, nearest
from dphrl.tasks.read_rows import Loaded
from dphrl.tasks.record import ReadyTask, TaskFamily
from dphrl.verifiers.gym.generate_rows import GeneratedRows
from dphrl.verifiers.gym.verify_gym import INSTALL, VERIFIER
from dphrl.verifiers.verifier import Arguments

DEFAULT_ROWS = 500
SEEDS = {"train": 0, "test": 1_000_000_000}
"""Split -> seed. Row i is made with seed + i, so the splits must lie far apart."""
EXCLUDED: dict[str, str] = dict.fromkeys(
    ("boxnet", "game_of_life_halting", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"),
    "its own gold answers are missing or do not score as right",
) | {"composite": "it is a mixture; name one of its parts"}
"""Generator -> why it is no task."""
TAGGED = "{question}\n\nThink step by step, then give the final answer between <answer> and </answer>."
_PACKAGE_ROOT = Path(__file__).parents[2]


def generated_rows(cfg: TaskConfig, base_dir: Path) -> Loaded:
    """Make prompts: rows 0 .. offset + limit (500 without a limit), the same in every process and on every machine.

    Args:
        cfg: `name` holds the generator's, `split` the seed's, `verifier_args` its settings beside the arguments of
            `verify_gym`.
        base_dir: not used.
    Returns:
        Rows with question, gold, and what the verifier needs: gym (generator), gym_settings, entry.
    Raises:
        ConfigError: task.data or an unknown split, generator or setting. DataError: the generator fails.
    """
    name = cfg.name.partition(":")[2]
    if cfg.data or cfg.subset:
        raise ConfigError(f"task.name={cfg.name} makes its own prompts; take out task.data and task.subset")
    if cfg.split not in SEEDS:
        raise ConfigError(f"task.split={cfg.split!r} of {cfg.name} is not one of {', '.join(SEEDS)}")
    if name in EXCLUDED:
        raise ConfigError(f"task.name={cfg.name} cannot be used: {EXCLUDED[name]}")
    settings = {key: value for key, value in cfg.verifier_args.items() if key not in VERIFIER.arguments}
    taken = sorted({"seed", "size"} & {*settings})
    if taken:
        raise ConfigError(f"task.verifier_args.{taken[0]} of {cfg.name} follows from task.split, offset and limit")
    size = cfg.offset + (cfg.limit or DEFAULT_ROWS)
    made = _make(name, settings=settings, seed=SEEDS[cfg.split], size=size)
    if made.known:
        allowed = [known for known in made.known if known not in EXCLUDED]
        raise ConfigError(
            f"{name!r} is no generator of reasoning-gym{nearest(name, allowed)}; there are {', '.join(allowed)}"
        )
    if made.bad_settings:
        raise ConfigError(
            f"task.verifier_args of {cfg.name}: {made.bad_settings}; the generator has {', '.join(made.allowed)}"
        )
    if made.failed:
        raise DataError(f"task.name={cfg.name}: the generator failed at row {len(made.rows)}: {made.failed}")
    return Loaded([row | {"gym": name, "gym_settings": settings} for row in made.rows])


def _make(name: str, *, settings: Arguments, seed: int, size: int) -> GeneratedRows:
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ConfigError(f"task.name=reasoning_gym:{name} needs reasoning-gym; {INSTALL}")
    path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        # -P: a file of the current directory must not shadow a module of the package
        [sys.executable, "-P", "-m", "dphrl.verifiers.gym.generate_rows"],
        input=json.dumps({"name": name, "settings": settings, "seed": seed, "size": size}),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
        check=False,
    )
    if done.returncode:
        raise DataError(f"reasoning-gym's process ended with status {done.returncode}; its own message stands above")
    return GeneratedRows(**json.loads(done.stdout))


_TASK = ReadyTask(
    what="a generator of reasoning-gym, scored by itself",
    origin="made here, from one seed for each split",
    template=TAGGED,
    verifier="gym",
    source=generated_rows,
    extra=INSTALL,
    generated=True,
)
FAMILY = TaskFamily(task=lambda name: _TASK, members=("NAME",))
