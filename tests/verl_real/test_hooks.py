"""What of verl we override or stand in for: a new verl that changes it must be looked at before it is allowed.

Re-record: python tests/verl_real/test_hooks.py prints the table for the verl that is installed.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import verl
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY, PPOTrainer
from verl.workers import engine_workers
from verl.workers.utils import losses, padding

from dphrl.engines.verl.trainer import DPHTrainer

KNOWN = {
    "PPOTrainer.__init__": "f97cae1cd115",
    "PPOTrainer._compute_advantage": "5899ae8ea39a",
    "PPOTrainer._init_tokenizer": "2113c57fdb5c",
    "PPOTrainer._save_checkpoint": "40be7b751cd7",
    "PPOTrainer._setup": "fa42ba988408",
    "PPOTrainer._update_actor": "2cf87b3eb041",
    "PPOTrainer._val_metrics_update": "1ce2c12c390b",
    "PPOTrainer._build_replay_buffer": "22f731912f96",
    "PPOTrainer._balance_batch": "529d625a161c",
    "PPOTrainer._step_once": "7068730b888e",
    "PPOTrainer.step": "3a2c81baa248",
    "PPOTrainer.fit": "cff88c9dd0b7",
    "PPOTrainer._load_checkpoint": "fc963d11da9d",
    "TrainingWorker.train_mini_batch": "6dd22c3c5698",
    "ppo_loss": "f5653825352a",
    "no_padding_2_padding": "e4324e69a338",
    "response_from_nested": "32600338a11d",
}
"""Method or function -> digest of its syntax tree, comments and texts of documentation left out; verl 0.9.1."""

OVERRIDDEN = {"__init__", "_setup", "_init_tokenizer", "_compute_advantage", "_update_actor", "_val_metrics_update",
              "_save_checkpoint"}  # fmt: skip
"""Methods of verl's trainer that ours extends, each by super()."""


def watched() -> dict[str, Callable[..., Any]]:
    """What we extend, stand in for, or rely on in another way."""
    base = {f"PPOTrainer.{name}": getattr(PPOTrainer, name) for name in sorted(OVERRIDDEN)}
    return base | {
        "PPOTrainer._build_replay_buffer": PPOTrainer._build_replay_buffer,
        "PPOTrainer._balance_batch": PPOTrainer._balance_batch,
        "PPOTrainer._step_once": PPOTrainer._step_once,
        "PPOTrainer.step": PPOTrainer.step,
        "PPOTrainer.fit": PPOTrainer.fit,
        "PPOTrainer._load_checkpoint": PPOTrainer._load_checkpoint,
        "TrainingWorker.train_mini_batch": inspect.unwrap(engine_workers.TrainingWorker.train_mini_batch),
        "ppo_loss": losses.ppo_loss,
        "no_padding_2_padding": padding.no_padding_2_padding,
        "response_from_nested": padding.response_from_nested,
    }


def digest(function: Callable[..., Any]) -> str:
    """First 12 hex digits of the SHA-256 of a function's syntax tree."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12]


def test_our_trainer_overrides_what_the_table_says() -> None:
    own = {name for name in vars(DPHTrainer) if hasattr(PPOTrainer, name) and not name.startswith("__abstract")}
    assert own - {"__module__", "__doc__", "__annotations__", "__abstractmethods__", "_abc_impl"} == OVERRIDDEN


@pytest.mark.parametrize("name", sorted(watched()))
def test_what_we_rely_on_is_as_it_was(name: str) -> None:
    assert digest(watched()[name]) == KNOWN[name], f"{name} is another one in verl {verl.__version__}: read it first"


def test_the_three_modes_are_registered_beside_verls_own() -> None:
    modes = {"sync", "colocate_async", "separate_async"}
    assert set(TRAINER_REGISTRY) == modes | {"dph", "dph_colocate_async", "dph_separate_async"}
    for name, trainer in TRAINER_REGISTRY.items():
        if issubclass(trainer, DPHTrainer):
            assert issubclass(trainer, TRAINER_REGISTRY[trainer.mode]), name
    assert trainer_base.get_trainer_cls("dph").mode == "sync"


if __name__ == "__main__":
    print("\n".join(f'    "{name}": "{digest(function)}",' for name, function in watched().items()))
