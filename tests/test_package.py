"""The package as Python sees it: its public names, and what it does where TRL is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import dphrl

WITHOUT_TRL = """
import sys
for name in ("trl", "accelerate", "peft"):
    sys.modules[name] = None  # importing it fails, as where it is not installed
from dphrl.cli.main import main
status = main(sys.argv[1:])
assert not [name for name in sys.modules if name.startswith(("trl.", "accelerate."))]
sys.exit(status)
"""


def without_trl(folder: Path, *arguments: str) -> tuple[int, str]:
    """Status and words of a command in a process that cannot import TRL."""
    command = [sys.executable, "-W", "error::ImportWarning", "-c", WITHOUT_TRL, *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    return ended.returncode, ended.stdout + ended.stderr


def test_public_names_are_there_and_load() -> None:
    for name in dphrl.__all__:
        assert getattr(dphrl, name) is getattr(dphrl, name)
    assert set(dphrl.__all__) == set(dir(dphrl)) == {"__version__", *dphrl._PLACES}
    with pytest.raises(AttributeError, match="no attribute 'DPHTrainr'"):
        _ = dphrl.DPHTrainr
    assert (Path(dphrl.__path__[0]) / "py.typed").exists()


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
    for words in (
        ["presample", "c.yaml"],
        ["eval", "c.yaml", "--model", "base"],
        ["report", "run"],
        ["plan", "c.yaml"],
        ["anchors", "verify", "run/anchors"],
    ):
        status, said = without_trl(tmp_path, *words)
        assert status == 0, said
    for words in (["train", "c.yaml"], ["run", "c.yaml"], ["demo", "--quick"]):
        status, said = without_trl(tmp_path, *words)
        assert status == 2 and "pip install 'dphrl[trl]'" in said and "Traceback" not in said, said
    status, said = without_trl(tmp_path, "doctor")
    assert status == 0 and "demo model: found" in said
    assert "training: needs trl and accelerate: pip install 'dphrl[trl]'" in said


def test_the_trainer_from_python_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(ImportError, match=r"dphrl\.DPHTrainer: training needs trl; .* 'dphrl\[trl\]'"):
        _ = dphrl.DPHTrainer
