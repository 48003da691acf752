"""The package as Python sees it: its public names, and what it does where TRL is not installed."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import dphrl

WITHOUT_TRL = """
import json, sys
for name in ("trl", "accelerate", "peft"):
    sys.modules[name] = None  # importing it fails, as where it is not installed
from dphrl.cli.main import main
statuses = [main(command.split()) for command in sys.argv[1:]]
assert not [name for name in sys.modules if name.startswith(("trl.", "accelerate."))]
print(json.dumps(statuses))
"""


def test_public_names_are_there_and_load() -> None:
    for name in dphrl.__all__:
        assert getattr(dphrl, name) is getattr(dphrl, name)
    assert set(dphrl.__all__) == set(dir(dphrl)) == {"__version__", *dphrl._PLACES}
    with pytest.raises(AttributeError, match="no attribute 'DPHTrainr'"):
        _ = dphrl.DPHTrainr
    assert (Path(dphrl.__path__[0]) / "py.typed").exists()


def test_the_lowest_versions_that_are_tested_are_those_that_are_allowed() -> None:
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    allowed = [*project["dependencies"], *extras["trl"], *extras["openai"], *extras["lora"]]
    floors = [
        (r.name, Version(s.version)) for r in map(Requirement, allowed) for s in r.specifier if s.operator == ">="
    ]
    lowest = dict(sorted(floors))  # of a package that several ask for, the highest floor: all are installed together
    lines = (root / "constraints-lowest.txt").read_text().splitlines()
    tested = {name: Version(version) for name, version in (line.split("==") for line in lines if line[0] != "#")}
    for name in (
        "torch",
        "math-verify",
    ):  # the file says why of torch; math-verify is allowed in one minor version alone
        tested.pop(name, None)
        lowest.pop(name)
    assert tested == lowest


@pytest.mark.slow
def test_all_but_training_works_without_trl(tmp_path: Path) -> None:
    values = {
        "out": "run",
        "method": "dph",
        "model": {"path": "demo"},
        "task": {"data": "demo:in_domain", "limit": 24},
        "eval_tasks": {"in_domain": {"data": "demo:in_domain", "split": "eval", "limit": 4}},
        "sampling": {"max_new_tokens": 40},
        "objective": {"divergence": "forward_kl"},
        "eval": {"n": 4, "resamples": 100},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    works = ("presample c.yaml", "eval c.yaml --model base", "report run", "plan c.yaml", "doctor")
    trains = ("train c.yaml", "run c.yaml", "demo --quick")
    command = [sys.executable, "-c", WITHOUT_TRL, *works, "anchors verify run/anchors", *trains]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == [0] * 6 + [2] * 3, ended.stderr
    assert "training by TRL: needs trl and accelerate: pip install 'dphrl[trl]'" in ended.stdout
    assert ended.stderr.count("training needs trl and accelerate; install what is missing with") == 3


def test_the_trainer_from_python_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(ImportError, match=r"dphrl\.DPHTrainer: training needs trl; .* 'dphrl\[trl\]'"):
        _ = dphrl.DPHTrainer
