"""AGENTS.md lists every hook of TRL and transformers that the trainer uses, and TRL has them all."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from exact_cases import CONFIG, dataset, settings
from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer

from dphrl import DPHTrainer
from dphrl.engines.trl import resumable_trainer, trainer
from dphrl.engines.trl.resumable_trainer import ResumableTrainer
from dphrl.models.policy import load_policy

ROOT = Path(__file__).parents[3]
OF_TRAINER = {name for name in dir(Trainer) if not name.startswith("_")} | {
    *("accelerator", "args", "model", "processing_class", "state", "control", "train_dataset", "optimizer"),
    "lr_scheduler",
}
"""Public and stable names of transformers' trainer."""


def listed(kind: str) -> set[str]:
    """First column of a table under "Common pitfalls"."""
    text = (ROOT / "AGENTS.md").read_text(encoding="utf-8").partition("## Common pitfalls\n")[2]
    (rows,) = re.findall(rf"^\| {kind} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.M)
    return {name for row in rows.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}


OURS = vars(ResumableTrainer) | vars(DPHTrainer)


def overridden() -> set[str]:
    names = {name for name, value in OURS.items() if inspect.isfunction(value)}
    return {name for name in names if hasattr(GRPOTrainer, name)}


def attributes_read() -> set[str]:
    """Attributes of TRL's trainer that both files read or set: `self.x` that our classes do not make themselves."""
    tree = ast.parse(inspect.getsource(trainer) + inspect.getsource(resumable_trainer).partition("annotations\n")[2])
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    of_self = {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "self"}
    (init,) = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    stored = {n.attr for n in ast.walk(init) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    return of_self - stored - set(OURS) - OF_TRAINER


def test_the_table_of_methods_is_that_of_the_class() -> None:
    assert listed("method") == overridden()


def test_the_table_of_attributes_is_that_of_the_file() -> None:
    assert listed("attribute") == attributes_read()


@pytest.mark.parametrize("name", sorted(overridden()))
def test_trl_has_the_method_and_each_says_what_it_relies_on(name: str) -> None:
    assert callable(getattr(GRPOTrainer, name))
    said = inspect.getdoc(OURS[name])
    assert name == "__init__" or re.match(r"(TRL|transformers): ", said or "")


def test_trl_has_the_attributes_before_it_trains(tmp_path: Path) -> None:
    policy = load_policy(CONFIG)
    ours = {name: value for name, value in settings(tmp_path).items() if name in GRPOConfig.__dataclass_fields__}
    plain = GRPOTrainer(
        model=policy.model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=GRPOConfig(**ours),
        train_dataset=dataset(),
        processing_class=policy.tokenizer,
    )
    made_by_train = {"_tr_loss", "_globalstep_last_logged", "current_gradient_accumulation_steps"}
    assert {name for name in listed("attribute") if not hasattr(plain, name)} <= made_by_train
    source = inspect.getsource(Trainer)
    assert all(f"self.{name} = " in source for name in made_by_train)


def test_no_other_module_of_the_engine_touches_the_trainer() -> None:
    """Callbacks and settings are TRL's public side."""
    folder = ROOT / "src/dphrl/engines"
    files = [p for p in folder.rglob("*.py") if re.search(r"import.*GRPOTrainer", p.read_text())]
    assert [p.relative_to(folder).as_posix() for p in files] == ["trl/resumable_trainer.py"]
    common = [p.read_text() for p in (folder / "common").rglob("*.py")]
    assert not [text for text in common if re.search(r"^\s*(from|import) (trl|accelerate|transformers)\b", text, re.M)]


def test_nothing_but_the_engine_imports_trl() -> None:
    source = ROOT / "src/dphrl"
    importing = [p for p in source.rglob("*.py") if re.search(r"^\s*(from|import) trl\b", p.read_text(), re.M)]
    assert {p.parent.relative_to(source).as_posix() for p in importing} == {"engines/trl"}
