"""What `dphrl doctor` says of verl: what stands in its way, and what to do. With the real verl: tests/verl_real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dphrl.engines.verl import MODES, PLUGIN, check_installed, missing_packages, probe
from dphrl.errors import ConfigError

FINE = {"verl": "", "by_verl": True, "plugin": "", "modes": ["sync", *MODES], "trl_in_the_way": False}


@pytest.fixture
def ability(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is said where verl of a version is installed and the process saw FINE but for some keys."""

    def say(version: str = "0.9.1", absent: tuple[str, ...] = (), **seen: Any) -> str:
        monkeypatch.setattr(probe, "missing_packages", lambda: absent)
        monkeypatch.setattr(probe, "version", {"verl": version, "trl": "1.16.0"}.__getitem__)
        monkeypatch.setattr(probe, "_seen", lambda: FINE | seen)
        return probe.verl_ability()

    return say


def test_all_is_well(ability: Any) -> None:
    works = "works (verl 0.9.1; trainer.v1.trainer_mode=dph, dph_colocate_async, dph_separate_async)"
    assert ability() == works


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (
            {"absent": ("verl", "uvicorn")},
            "needs verl, uvicorn: pip install 'dphrl[verl]', in an environment without TRL",
        ),
        ({"absent": ("TransferQueue",)}, "it needs TransferQueue: pip install 'dphrl[verl]'"),
        ({"version": "0.10.0"}, "does not work with verl 0.10.0: the plug-in knows verl 0.9 alone: pip install"),
        ({"version": "0.90.0"}, "the plug-in knows verl 0.9 alone"),
        (
            {"trl_in_the_way": True},
            "which TRL 1.16.0 no longer has: pip uninstall trl, or make an environment for each",
        ),
        ({"verl": "ImportError: ray"}, "verl 0.9.1: verl cannot be imported (ImportError: ray)"),
        ({"plugin": "KeyError: 1", "by_verl": False}, f"verl 0.9.1: {PLUGIN} cannot be imported (KeyError: 1)"),
        ({"modes": ["sync", "dph"]}, "not registered: trainer mode dph_colocate_async, dph_separate_async"),
    ],
)
def test_what_stands_in_the_way_is_named(ability: Any, seen: dict[str, Any], said: str) -> None:
    assert said in ability(**seen)


def test_several_things_are_all_named(ability: Any) -> None:
    text = ability("0.8.0", trl_in_the_way=True, verl="ImportError: ray")
    assert "verl 0.9 alone" in text and "pip uninstall trl" in text and "ImportError: ray" in text


@pytest.mark.parametrize("policy", ["none", "NONE", "other, another"])
def test_plug_ins_that_verl_is_told_to_leave_out(ability: Any, monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", policy)
    said = (
        f"VERL_USE_EXTERNAL_PLUGINS={policy} keeps it from loading the plug-in: unset it, add dphrl to it, or set VERL_"
    )
    assert said.lower() in ability(by_verl=False).lower()
    assert ability(by_verl=True).startswith("works"), "it came in by VERL_USE_EXTERNAL_MODULES"


@pytest.mark.parametrize("policy", ["auto", "other,dphrl"])
def test_an_installation_without_the_entry_point(ability: Any, monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", policy)
    monkeypatch.setattr(probe, "entry_points", lambda group: [])
    assert f"install dphrl again, or set VERL_USE_EXTERNAL_MODULES={PLUGIN}" in ability(by_verl=False)


def test_a_process_that_dies_or_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for verl that ends the process which imports it, and one that takes too long."""
    (tmp_path / "verl.py").write_text(
        "import os, sys\nprint('hello')\nprint('no room', file=sys.stderr)\nsys.stderr.flush()\nos._exit(9)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    assert probe._seen() == {"verl": "the process ended with status 9: no room"}
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.01)
    assert probe._seen()["verl"].startswith("not done within")


def test_what_is_missing_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dphrl.engines.verl.MODULES", {"json": "json", "NoSuch": "no_such_module"})
    assert missing_packages() == ("NoSuch",)
    with pytest.raises(ConfigError, match=r"need NoSuch; .* pip install 'dphrl\[verl\]'"):
        check_installed()
