"""Whether verl loads the plug-in here, for `dphrl doctor`: tried in a process of its own, as verl's processes do it.

Importing verl takes seconds and prints warnings, and verl passes over a plug-in that fails without a word.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from typing import Any

from dphrl.engines.verl import INSTALL, KNOWN_VERSION, MODES, PLUGIN, missing_packages

TRAINERS = "verl.trainer.ppo.v1.trainer_base"
TIMEOUT_S = 180.0
LOUDLY = f"VERL_USE_EXTERNAL_MODULES={PLUGIN}"
"""With it verl imports the plug-in whatever else is set, and stops where it cannot."""
VALUE_HEAD, VALUE_HEAD_IN = "AutoModelForCausalLMWithValueHead", ("trl.experimental.ppo", "trl")
"""What verl/models/transformers/monkey_patch.py patches, and where it looks for it, wherever TRL is installed."""


def verl_ability() -> str:
    """Whether training by verl works in this environment; if not, each reason with its remedy."""
    if "verl" in (absent := missing_packages()):
        return f"needs {', '.join(absent)}: {INSTALL}, in an environment without TRL"
    try:
        found = version("verl")
    except PackageNotFoundError:  # a checkout on the path
        found = "of an unknown version"
    problems = list(_problems(absent, found))
    if problems:
        return f"does not work with verl {found}: {'; '.join(problems)}"
    return f"works (verl {found}; trainer.v1.trainer_mode={', '.join(MODES)})"


def _problems(absent: tuple[str, ...], found: str) -> Iterator[str]:
    if ".".join(found.split(".")[:2]) != KNOWN_VERSION:
        yield f"the plug-in knows verl {KNOWN_VERSION} alone: {INSTALL}"
    if absent:
        yield f"it needs {', '.join(absent)}: {INSTALL}"
        return
    seen = _seen()
    if seen.get("trl_in_the_way"):
        yield (
            f"its FSDP engines take {VALUE_HEAD} from TRL where TRL is installed, which TRL {version('trl')} no longer "
            "has: pip uninstall trl, or make an environment for each"
        )
    if error := seen["verl"] or seen["plugin"]:
        yield f"{'verl' if seen['verl'] else PLUGIN} cannot be imported ({error})"
    elif not seen["by_verl"]:
        yield _why_not_loaded()
    elif lacking := [mode for mode in MODES if mode not in seen["modes"]]:
        yield f"the plug-in was loaded, but not registered: trainer mode {', '.join(lacking)}"


def _why_not_loaded() -> str:
    """Why verl did not load a plug-in that can be imported."""
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip().lower()
    names = {name.strip() for name in policy.split(",")}
    if policy != "auto" and "dphrl" not in names:
        return (
            f"VERL_USE_EXTERNAL_PLUGINS={policy} keeps it from loading the plug-in: unset it, add dphrl to it, or set "
            f"{LOUDLY}"
        )
    if not any(point.value == PLUGIN for point in entry_points(group="verl.plugins")):
        return f"this installation of dphrl does not tell verl of the plug-in: install dphrl again, or set {LOUDLY}"
    return f"verl passed over the plug-in without a word: set {LOUDLY}, and it says why"


def _seen() -> dict[str, Any]:
    """What `main` found in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", __name__]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return {"verl": f"not done within {TIMEOUT_S:.0f} s"}
    try:
        seen = json.loads(ended.stdout.splitlines()[-1])
    except (IndexError, ValueError):  # it was killed, or verl ended the process
        return {"verl": f"the process ended with status {ended.returncode}: {ended.stderr.strip()[-200:]}"}
    return seen if isinstance(seen, dict) else {"verl": f"it said {seen!r}"}


def main() -> None:
    """Import verl as its own processes do, then what its trainers need; print what came of it as JSON, last line."""
    seen: dict[str, Any] = {"verl": _error_of("verl")}
    seen["by_verl"] = PLUGIN in sys.modules
    seen["verl"] = seen["verl"] or _error_of(TRAINERS)
    seen["plugin"] = seen["verl"] or _error_of(PLUGIN)
    seen["modes"] = sorted(getattr(sys.modules.get(TRAINERS), "TRAINER_REGISTRY", ()))
    seen["trl_in_the_way"] = _lacks_value_head()
    print(f"\n{json.dumps(seen)}")


def _error_of(module: str) -> str:
    """Import a module; what it raised, or ''."""
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever it is, the user is to read it
        return f"{type(error).__name__}: {error}"
    return ""


def _lacks_value_head() -> bool:
    """Whether there is a TRL in which verl's engines will look for the value head in vain."""
    if find_spec("trl") is None:
        return False
    return not any(_error_of(name) == "" and hasattr(sys.modules[name], VALUE_HEAD) for name in VALUE_HEAD_IN)


if __name__ == "__main__":
    main()
