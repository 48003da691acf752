"""Looked at before an export is made: where it goes, the names of its files, whether verl finds a verifier."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dphrl.config.root import Config
from dphrl.errors import ConfigError, RunDirError, VerifierError, listed
from dphrl.files import read_json
from dphrl.runs.run_dir import RunDir
from dphrl.sampling.encoded_prompts import EncodedPrompts
from dphrl.stages.presample.draw_origin import ORIGIN, differing_origin, task_origin

TRAIN = "train"
"""Name of the file of prompts that are trained on."""
MANIFEST = "export.json"
"""By this file a folder is known as an export, which may be replaced."""
FORMAT = "dphrl-verl-1"
NOT_FOUND = 3
_FIND = f"import importlib.util, sys; sys.exit({NOT_FOUND} if importlib.util.find_spec(sys.argv[1]) is None else 0)"
"""For a Python that starts in another folder, as verl's workers may."""


def check_target(out: Path) -> None:
    """Raises:
    RunDirError: `out` is no folder, or holds anything but an older export.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise RunDirError(f"{out} is a file; give another --out")
    there = {path.name for path in out.iterdir()}
    known = {MANIFEST}
    if MANIFEST in there:
        try:
            content = read_json(out / MANIFEST)
            known |= set(content["rows"]) if content["format"] == FORMAT else set()
        except (ValueError, KeyError, TypeError):
            known = set()
    if other := sorted(there - known):
        raise RunDirError(f"{out} holds {listed(other)}, which no export wrote there; give another --out")


def check_importable(spec: str) -> None:
    """A function of the user's must be found by verl's workers, which need not run in the current directory.

    Raises:
        VerifierError: its module is found in the current directory alone.
    """
    module, colon, _ = spec.partition(":")
    if not colon:
        return
    here = Path.cwd()
    looked_for = [sys.executable, "-P", "-c", _FIND, module.partition(".")[0]]
    if subprocess.run(looked_for, cwd=here.anchor, check=False).returncode == NOT_FOUND:
        raise VerifierError(
            f"verifier {spec!r}: its module is found in the current directory alone, and verl's reward workers run "
            f"elsewhere; install it where verl runs, or put its folder on the path of this command and of verl: "
            f"export PYTHONPATH={here}"
        )


def check_drawn(base: RunDir, prompts: EncodedPrompts) -> None:
    """Raises:
    RunDirError: the prompts are read by other tokens now than when the run was pre-sampled.
    """
    drawn = base.draws("task")
    now = {"prompts": task_origin({}, prompts)["prompts"]}
    if (drawn / ORIGIN).exists() and differing_origin(drawn, now):
        raise RunDirError(
            f"the prompts are no longer those that {base.root} was pre-sampled with: task.data, the template or the "
            "tokenizer has changed since; change it back, or pre-sample in another --out"
        )


def check_names(config: Config) -> None:
    for name in config.eval_tasks:
        if name == TRAIN:
            raise ConfigError(f"eval_tasks.{name}: its file would be {name}.parquet, that of training; rename the task")
