"""What `dphrl demo` compares, and its options: their defaults and help stand here alone, the command line reads them.

Nothing heavy is imported, since the help of the command line must answer at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dphrl.errors import ConfigError, nearest

Overrides = Mapping[str, Any]
"""Settings of one method over those of the demo, nested as in a YAML file."""


def _held(method: str, **objective: object) -> Overrides:
    return {"method": method, "objective": objective}


METHODS: dict[str, Overrides] = {
    "base": {},
    "grpo": {"method": "grpo"},
    "dapo": {"method": "dapo"},
    "rkl": _held("rkl", kl_estimator="k2", beta=0.1),
    "dph_f": _held("dph", divergence="forward_kl", eta=0.2),
    "dph_js": _held("dph", divergence="js", eta=0.5),
    "dph_alpha": _held("dph", divergence="alpha", alpha=0.5, eta=0.2),
    "replay": _held("replay", eta=0.2),
}
"""Label -> settings of the method. `rkl` is k2, the true reverse-KL gradient (PAPER.md, "What RKL really is")."""

DEFAULT_METHODS = ("base", "grpo", "rkl", "dph_f", "dph_js")
SWEEP_ETAS = (0.05, 0.2, 0.5)
SWEEP_BETAS = (0.02, 0.1, 0.5)
QUICK_LIMIT = 12
"""Prompts of each evaluation of a quick run."""

Preset = Literal["demo", "quick", "sweep"]


@dataclass(frozen=True, slots=True)
class DemoOption:
    """One option of the command."""

    kind: type
    help: str
    defaults: Mapping[Preset, Any]
    """Preset -> value; those that are left out have the value of the ordinary run."""
    least: int | None = None
    default_words: str = ""
    """The default in words, where it is no value to show."""

    def default(self, preset: Preset) -> Any:
        """The value where nothing is given."""
        return self.defaults.get(preset, self.defaults["demo"])

    @property
    def help_text(self) -> str:
        """'Training runs of each method, >= 1 [1; --sweep 3].'"""
        bound = "" if self.least is None else f", >= {self.least}"
        others = [f"--{name} {value}" for name, value in self.defaults.items() if name != "demo"]
        return f"{self.help}{bound} [{'; '.join([self.default_words or str(self.defaults['demo']), *others])}]."


OPTIONS: dict[str, DemoOption] = {
    "methods": DemoOption(str, f"Of {', '.join(METHODS)}", {"demo": ",".join(DEFAULT_METHODS)}),
    "seeds": DemoOption(int, "Training runs of each method", {"demo": 1, "sweep": 3}, least=1),
    "steps": DemoOption(int, "Generations of each run", {"demo": 60, "sweep": 120, "quick": 4}, least=1),
    "n": DemoOption(int, "Samples per prompt when measuring", {"demo": 64, "quick": 8}, least=8),
    "eta": DemoOption(float, "Weight of the anchor penalty", {"demo": None}, default_words="each method's own"),
    "out": DemoOption(
        Path,
        "Folder of the runs",
        {"demo": Path("runs/demo"), "sweep": Path("runs/sweep"), "quick": Path("runs/quick")},
    ),
    "jobs": DemoOption(
        int,
        "Runs side by side, a thread each",
        {"demo": os.cpu_count() or 1},
        least=1,
        default_words="the number of cores",
    ),
}
"""Option of the command, and keyword of `DemoSettings.of` -> what it is."""


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What one call of the demo runs."""

    variants: Mapping[str, Overrides]
    """Folder name -> settings over those of the demo; `base` is measured, not trained."""
    seeds: int
    steps: int
    n: int
    out: Path
    jobs: int
    limit: int | None
    """Prompts of each evaluation; None = all."""

    @classmethod
    def of(cls, *, quick: bool = False, sweep: bool = False, **given: Any) -> DemoSettings:
        """Fill in the defaults of the ordinary, the quick or the sweep run.

        Args:
            quick: a smoke run of every stage.
            sweep: many weights of each method.
            given: values of OPTIONS by name; None = the default. `methods` is a text with commas or a sequence.
        Raises:
            ConfigError: an unknown method, a number out of range, or a sweep told which methods or eta.
        """
        if quick and sweep:
            raise ConfigError("--quick and --sweep exclude each other; give one of them")
        if sweep and (given.get("methods") is not None or given.get("eta") is not None):
            raise ConfigError("--sweep has its own methods and weights; leave out --methods and --eta")
        preset: Preset = "quick" if quick else "sweep" if sweep else "demo"
        unknown = given.keys() - OPTIONS.keys()
        if unknown:
            raise TypeError(f"DemoSettings.of has no {', '.join(sorted(unknown))}; there are: {', '.join(OPTIONS)}")
        values = {name: option.default(preset) for name, option in OPTIONS.items()}
        values |= {name: value for name, value in given.items() if value is not None}
        for name, option in OPTIONS.items():
            if option.least is not None and values[name] < option.least:
                raise ConfigError(f"--{name} {values[name]} must be at least {option.least}")
        variants = _sweep_variants() if sweep else _variants(values["methods"], values["eta"])
        return cls(
            variants={"base": {}, **variants},
            seeds=values["seeds"],
            steps=values["steps"],
            n=values["n"],
            out=Path(values["out"]),
            jobs=values["jobs"],
            limit=QUICK_LIMIT if quick else None,
        )


def _variants(methods: str | Sequence[str], eta: float | None) -> dict[str, Overrides]:
    """The methods that were asked for, anchored ones with another eta where it was given."""
    names = [name for name in methods.split(",") if name] if isinstance(methods, str) else methods
    if not names:
        raise ConfigError(f"--methods is empty; name some of {', '.join(METHODS)}")
    for name in names:
        if name not in METHODS:
            raise ConfigError(f"--methods: {name!r} is not one of {', '.join(METHODS)}{nearest(name, METHODS)}")
    variants: dict[str, Overrides] = {}
    for name in names:
        settings = METHODS[name]
        anchored = "eta" in settings.get("objective", {})
        change = {"objective": {**settings["objective"], "eta": eta}} if anchored and eta is not None else {}
        variants[name] = {**settings, **change}
    return variants


def _sweep_variants() -> dict[str, Overrides]:
    """The frontier: each divergence over eta, both estimators of reverse KL over beta, GRPO, MaxRL with and without."""
    divergences = {"dph_f": "forward_kl", "dph_js": "js", "dph_alpha": "alpha"}
    variants: dict[str, Overrides] = {
        "grpo": METHODS["grpo"],
        "dph_f-eta0": _held("dph", divergence="forward_kl", eta=0.0),  # the same for every divergence
        "grpo-maxrl": {"method": "grpo", "train": {"advantage": "maxrl"}},
        "dph_f-eta0.2-maxrl": {**METHODS["dph_f"], "train": {"advantage": "maxrl"}},
    }
    for eta in SWEEP_ETAS:
        variants |= {
            f"{label}-eta{eta}": _held("dph", divergence=divergence, eta=eta)
            for label, divergence in divergences.items()
        }
    for beta in SWEEP_BETAS:
        variants |= {f"rkl-{e}-beta{beta}": _held("rkl", kl_estimator=e, beta=beta) for e in ("k2", "k3")}
    return variants
