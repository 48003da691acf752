"""Prompts of reasoning-gym's generators, judged by the generator's own `score_answer`.

The package is imported in other processes only: prompts are made in one whose hash seed is fixed (`gym_make`), since
some generators walk over sets; completions are scored in the pool's workers (`gym_run`), since some scorers evaluate
the answer or burn time on it. What a worker needs to know of a prompt stands in its columns.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dphrl.config.sources import TaskConfig
from dphrl.errors import ConfigError, DataError, VerifierError, nearest
from dphrl.tasks.rows import Loaded
from dphrl.types import Item, Verdict, VerifyFn
from dphrl.verifiers.base import column, completion_of, verdict
from dphrl.verifiers.math.extract import last_box
from dphrl.verifiers.workers.pool import Reply, pool_of

VERIFIER = "gym"
"""Name of the verifier and of its job in the pool."""
PREFIX = "reasoning_gym:"
PATTERN = f"{PREFIX}NAME"
INSTALL = "pip install 'dphrl[gym]'"
DEFAULT_ROWS = 500
SEEDS = {"train": 0, "test": 1_000_000_000}
"""Split -> seed. Row i is made with seed + i, so the splits must lie far apart."""
EXCLUDED: dict[str, str] = dict.fromkeys(
    ("boxnet", "game_of_life_halting", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"),
    "its own gold answers are missing or do not score as right",
) | {"composite": "it is a mixture; name one of its parts"}
"""Generator -> why it is no task."""
SCORE = "score "
"""Begins the detail of a reply that carries a score."""
_PACKAGE_ROOT = Path(__file__).parents[2]


def load_rows(cfg: TaskConfig, base_dir: Path) -> Loaded:
    """Make prompts: rows 0 .. offset + limit (500 without a limit), the same in every process and on every machine.

    Args:
        cfg: `name` holds the generator's, `split` the seed's, `verifier_args` its settings beside those of
            `verify_batch`.
        base_dir: not used.
    Returns:
        Rows with question, gold, and what the verifier needs: gym (generator), gym_settings, entry.
    Raises:
        ConfigError: task.data or an unknown split, generator or setting. DataError: the generator fails.
    """
    name = cfg.name.removeprefix(PREFIX)
    if cfg.data or cfg.subset:
        raise ConfigError(f"task.name={cfg.name} makes its own prompts; take out task.data and task.subset")
    if cfg.split not in SEEDS:
        raise ConfigError(f"task.split={cfg.split!r} of {cfg.name} is not one of {', '.join(SEEDS)}")
    if name in EXCLUDED:
        raise ConfigError(f"task.name={cfg.name} cannot be used: {EXCLUDED[name]}")
    _, settings = _divided(cfg.verifier_args)
    taken = sorted({"seed", "size"} & {*settings})
    if taken:
        raise ConfigError(f"task.verifier_args.{taken[0]} of {cfg.name} follows from task.split, offset and limit")
    size = cfg.offset + (cfg.limit or DEFAULT_ROWS)
    made = _make({"name": name, "settings": settings, "seed": SEEDS[cfg.split], "size": size})
    if "unknown" in made:
        allowed = [known for known in made["unknown"] if known not in EXCLUDED]
        raise ConfigError(
            f"{name!r} is no generator of reasoning-gym{nearest(name, allowed)}; there are {', '.join(allowed)}"
        )
    if "bad_settings" in made:
        raise ConfigError(
            f"task.verifier_args of {cfg.name}: {made['bad_settings']}; the generator has {', '.join(made['allowed'])}"
        )
    if "failed" in made:
        raise DataError(f"task.name={cfg.name}: the generator failed at row {made['row']}: {made['failed']}")
    return Loaded([row | {"gym": name, "gym_settings": settings} for row in made["rows"]])


def load_verifier(args: Mapping[str, Any]) -> VerifyFn:
    """The verifier with its own arguments; the others are the generator's settings, which stand in the rows."""
    return functools.partial(verify_batch, **_divided(args)[0])


def verify_batch(items: Sequence[Item], *, deadline_s: float = 5.0, workers: int | None = None) -> list[Verdict]:
    """Score each completion's answer with the generator that made its prompt, in a worker process.

    Args:
        items: with `completion`, and as the prompts of `load_rows` have them `gym`, `entry` and maybe `gym_settings`.
        deadline_s: CPU seconds the scorer may take for one answer, > 0.
        workers: most processes at work, >= 1; None = one a core.
    Returns:
        One verdict per item: correct (score 1.0) or wrong, with the score as reward; no_answer, timeout, memory; or
        verifier_error without reward where the scorer raises.
    Raises:
        VerifierError: a key is missing, an argument is out of range, or the package is not installed.
    """
    if deadline_s <= 0 or (workers is not None and workers < 1):
        raise VerifierError(f"gym: deadline_s={deadline_s} must be above 0, workers={workers} at least 1")
    if importlib.util.find_spec("reasoning_gym") is None:
        raise VerifierError(f"gym: reasoning-gym is not installed; {INSTALL}")
    answers = [extract_answer(completion_of(VERIFIER, item)) for item in items]
    requests = [
        [column(VERIFIER, item, "gym"), item.get("gym_settings") or {}, column(VERIFIER, item, "entry"), answer]
        for item, answer in zip(items, answers, strict=True)
    ]
    asked = [index for index, answer in enumerate(answers) if answer]
    replies = pool_of(VERIFIER).run([requests[i] for i in asked], {}, cpu_s=deadline_s, workers=workers)
    found = dict(zip(asked, replies, strict=True))
    return [_verdict(found.get(index, ("no_answer", "an empty answer"))) for index in range(len(items))]


def extract_answer(completion: str) -> str:
    """The answer of a completion: within its last <answer>...</answer>, else in its last \\boxed{}, else all of it.

    Linear in the length of the completion.
    """
    end = completion.rfind("</answer>")
    start = completion.rfind("<answer>", 0, max(end, 0))
    if start >= 0:
        return completion[start + len("<answer>") : end].strip()
    box = last_box(completion)
    return (completion if box is None else box).strip()


def _verdict(reply: Reply) -> Verdict:
    status, detail = reply
    if not detail.startswith(SCORE):
        return verdict(status, detail)
    return Verdict(status == "correct", float(detail.removeprefix(SCORE)), status, detail)


def _divided(args: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """task.verifier_args -> arguments of `verify_batch`, settings of the generator."""
    parameters = inspect.signature(verify_batch).parameters.values()
    own = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    return {k: v for k, v in args.items() if k in own}, {k: v for k, v in args.items() if k not in own}


def _make(request: Mapping[str, Any]) -> dict[str, Any]:
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ConfigError(f"task.name={PREFIX}{request['name']} needs reasoning-gym; {INSTALL}")
    path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        # -P: a file of the current directory must not shadow a module of the package
        [sys.executable, "-P", "-m", "dphrl.verifiers.gym.generate"],
        input=json.dumps(request),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
        check=False,
    )
    if done.returncode:
        raise DataError(f"reasoning-gym's process ended with status {done.returncode}; its own message stands above")
    made: dict[str, Any] = json.loads(done.stdout)
    return made
