"""The demo's options: defaults of each preset, help, what is refused, and a config for every variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dphrl.errors import ConfigError
from dphrl.stages.demo.demo import demo_config
from dphrl.stages.demo.demo_options import DEFAULT_METHODS, METHODS, OPTIONS, DemoSettings


def test_defaults_of_the_presets() -> None:
    ordinary, quick, sweep = DemoSettings.of(), DemoSettings.of(quick=True), DemoSettings.of(sweep=True)
    assert (ordinary.seeds, ordinary.steps, ordinary.n, ordinary.limit) == (1, 60, 64, None)
    assert (quick.seeds, quick.steps, quick.n, quick.limit) == (1, 4, 8, 12)
    assert (sweep.seeds, sweep.steps, sweep.n, sweep.limit) == (3, 120, 64, None)
    assert [s.out for s in (ordinary, quick, sweep)] == [Path("runs") / name for name in ("demo", "quick", "sweep")]
    assert tuple(ordinary.variants) == tuple(quick.variants) == DEFAULT_METHODS
    assert next(iter(sweep.variants)) == "base" and "rkl-k3-beta0.02" in sweep.variants


def test_what_is_given_comes_first() -> None:
    settings = DemoSettings.of(methods="dph_f,grpo", steps=3, eta=0.7, out="x", quick=True)
    assert (settings.steps, settings.n, settings.out) == (3, 8, Path("x"))
    assert list(settings.variants) == ["base", "dph_f", "grpo"]
    assert settings.variants["dph_f"]["objective"]["eta"] == 0.7 and settings.variants["grpo"] == {"method": "grpo"}
    assert METHODS["dph_f"]["objective"]["eta"] == 0.2, "the table stays as it is"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quick": True, "sweep": True}, "--quick and --sweep exclude each other"),
        ({"sweep": True, "eta": 0.1}, "--sweep has its own methods and weights"),
        ({"methods": "grp"}, "'grp' is not one of .*did you mean 'grpo'"),
        ({"methods": ","}, "--methods is empty"),
        ({"n": 4}, "--n 4 must be at least 8"),
        ({"seeds": 0}, "--seeds 0 must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DemoSettings.of(**options)


def test_help_tells_bound_and_defaults() -> None:
    assert OPTIONS["steps"].help_text == "Generations of each run, >= 1 [60; --sweep 120; --quick 4]."
    assert OPTIONS["eta"].help_text == "Weight of the anchor penalty [each method's own]."


@pytest.mark.parametrize("sweep", [False, True])
def test_every_variant_has_a_config(sweep: bool) -> None:
    settings = DemoSettings.of(sweep=True) if sweep else DemoSettings.of(methods=tuple(METHODS))
    for variant in settings.variants:
        config = demo_config(settings, variant, 1)
        assert (config.seed, config.train.learning_rate) == (1, 1e-3)
        assert config.base_run == (None if variant == "base" else str(settings.out / "base-s1"))
