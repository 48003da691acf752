"""What `dphrl doctor` says of the verl that is here, and of things put in its way."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from dphrl.engines.verl.probe import verl_ability


@pytest.fixture(autouse=True)
def as_users_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what conftest.py sets for the other tests: the plug-in comes in by its entry point alone."""
    try:
        distribution("dphrl")
    except PackageNotFoundError:
        pytest.skip("dphrl is on the path, but not installed: verl cannot know its entry point")
    for name in ("VERL_USE_EXTERNAL_MODULES", "VERL_USE_EXTERNAL_PLUGINS", "VERL_PLATFORM"):
        monkeypatch.delenv(name, raising=False)


def test_training_by_verl_works_here(capfd: pytest.CaptureFixture[str]) -> None:
    assert verl_ability().startswith("works (verl 0.9.")
    assert capfd.readouterr() == ("", ""), "verl's warnings are not the user's"


def test_what_stands_in_the_way_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TRL of today beside verl, and a list of plug-ins without ours."""
    (tmp_path / "trl").mkdir()
    (tmp_path / "trl" / "__init__.py").touch()
    (tmp_path / "trl-1.16.0.dist-info").mkdir()
    (tmp_path / "trl-1.16.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: trl\nVersion: 1.16.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "another")
    said = verl_ability()
    assert "which TRL 1.16.0 no longer has" in said and "VERL_USE_EXTERNAL_PLUGINS=another keeps it" in said
