"""docs/metrics.md names every metric that training logs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dph": ({"divergence": "js", "form": "definition", "eta_schedule": "target", "drift_target": 0.02}, {}),
    "rkl": ({"kl_estimator": "k2"}, {"trl": {"entropy_coef": 0.01}}),
    "dapo": ({}, {}),
    "grpo": ({}, {"advantage": "unlikeliness"}),
}


def documented() -> list[str]:
    """First columns of the page's tables with a unit; words in capitals stand for any name."""
    tables = re.findall(r"^\| name \| unit \| meaning \|\n(?:\|.*\n)+", PAGE.read_text(), re.M)
    return re.findall(r"^\| `([^`]+)` \|", "".join(tables), re.M)


@pytest.mark.slow
def test_every_logged_name_is_on_the_page(demo_values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from dphrl.config.load import build_config
    from dphrl.engines.trl.callbacks import MetricsFile
    from dphrl.stages.presample.presample import presample
    from dphrl.stages.train.train import train

    logged: set[str] = {"step"}
    monkeypatch.setattr(MetricsFile, "on_log", lambda self, args, state, control, logs=None, **_: logged.update(logs))
    base = None
    for method, (objective, extra) in METHODS.items():
        values = {**demo_values, "method": method, "out": f"{demo_values['out']}-{method}", "base_run": base}
        values["objective"] = objective if method != "dph" else demo_values["objective"] | objective
        values["train"] = demo_values["train"] | extra
        config = build_config(values)
        if base is None:
            presample(config, base_dir=Path())
            base = config.out
        train(config, base_dir=Path())
    names = documented()
    assert len(names) == len(set(names)) and len(names) > 40
    patterns = {name: re.compile(re.sub("[A-Z]{2,}", "[^/]+", name)) for name in names}
    assert not [key for key in sorted(logged) if not any(p.fullmatch(key) for p in patterns.values())]
    assert not [name for name, p in patterns.items() if not any(p.fullmatch(key) for key in logged)]
