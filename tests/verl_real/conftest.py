"""Tests with verl itself, in the environment of `make test-verl`; nothing is collected where verl is not installed."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
MODULES = "verl_on_cpu,dphrl.engines.verl.plugin"

if find_spec("verl") is None:
    collect_ignore_glob = ["*"]
else:
    os.environ |= {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": MODULES, "TOKENIZERS_PARALLELISM": "false"}
    sys.path.insert(0, str(HERE))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
