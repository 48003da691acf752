"""The `dph` block of verl's config: where the anchors are, and the objective's settings under the names of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dphrl.config.load import build_objective
from dphrl.config.objective import ANCHOR_METHODS, OBJECTIVES, AnchoredObjective, DphObjective
from dphrl.engines.common.anchor_term import AnchorSettings
from dphrl.engines.common.eta_control import EtaSettings
from dphrl.errors import ConfigError, nearest

REFUSED = {
    "anchor_forward": "verl reads anchors as rows of its own batches, so there is nothing to choose; leave it out",
    "anchor_estimator": "verl's forward gives log-probabilities of the tokens at hand alone, and top-K anchors need "
    "those of K tokens at each position; leave it out, or train with `dphrl train`",
}
"""Settings of the objective that have no meaning here, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerlSettings:
    """What `+dph.KEY=VALUE` says; the objective's keys are those of `config.objective`."""

    anchors: Path
    """Folder of the sealed store."""
    method: str = "dph"
    """dph or replay."""
    seed: int = 0
    """Of the anchors' order."""
    rescore: bool = False
    """Score all anchors by verl's own forward before the first step, and train on these scores."""
    check_weights: bool = True
    """Load the model on the driver and compare its weights with those that drew the anchors."""
    objective: AnchoredObjective

    @classmethod
    def of(cls, block: Mapping[str, Any] | None) -> VerlSettings:
        """Read from verl's config.

        Raises:
            ConfigError: an unknown key (names the nearest), a value out of range, or a setting that verl cannot follow.
        """
        values = dict(block or {})
        own = {name: values.pop(name) for name in OWN if name in values}
        method = own.get("method", "dph")
        if method not in ANCHOR_METHODS:
            raise ConfigError(
                f"dph.method={method!r} is not one of {', '.join(ANCHOR_METHODS)}{nearest(str(method), ANCHOR_METHODS)}"
                "; verl's own trainers are trainer.v1.trainer_mode=sync, colocate_async and separate_async"
            )
        if not own.get("anchors"):
            raise ConfigError("trainer_mode=dph needs +dph.anchors=FOLDER, the store that `dphrl presample` made")
        for name in ("rescore", "check_weights"):
            if not isinstance(own.get(name, False), bool):
                raise ConfigError(f"dph.{name}={own[name]!r} must be true or false")
        if not isinstance(own.get("seed", 0), int) or own.get("seed", 0) < 0:
            raise ConfigError(f"dph.seed={own['seed']!r} must be a whole number from 0")
        own["anchors"] = Path(str(own["anchors"])).expanduser()
        return cls(objective=_objective(method, values), **own)

    def anchor_settings(self, per_step: int) -> AnchorSettings:
        """What the loss and the order of anchors read, with `per_step` anchors beside each optimiser step."""
        # verl reads each row whole, so that nothing is gained by anchors of one prompt in one step
        together = self.objective.anchors_per_prompt or 1
        others = {
            "method": self.method,
            "seed": self.seed,
            "anchors_per_step": per_step,
            "anchors_per_prompt": together,
        }
        return AnchorSettings.of(_Flat(self.objective, others))

    def eta_settings(self) -> EtaSettings:
        """The weight and its course."""
        return EtaSettings.of(self.objective)

    def anchors_beside(self, completions: int, unit: int) -> int:
        """Anchors of an optimiser step (count, a multiple of `unit`).

        Args:
            completions: of the optimiser step, over all ranks.
            unit: what verl must be able to divide the anchors by: ranks, times the micro-batch where it is static.
        Raises:
            ConfigError: dph.anchors_per_step is no multiple of it.
        """
        wanted = self.objective.anchors_beside(completions, 1)
        rounded = -(-wanted // unit) * unit
        if self.objective.anchors_per_step is not None and rounded != wanted:
            below = f"{rounded - unit} or " if rounded > unit else ""
            raise ConfigError(
                f"dph.anchors_per_step={wanted} cannot be dealt out to verl's ranks and micro-batches, which needs a "
                f"multiple of {unit}: give {below}{rounded}, or leave it out"
            )
        return rounded


OWN = tuple(f.name for f in fields(VerlSettings) if f.name != "objective")
"""Keys of the block that are not the objective's."""


def objective_keys(method: str) -> tuple[str, ...]:
    """The objective's settings that the block may hold for a method."""
    return tuple(f.name for f in fields(OBJECTIVES[method]) if f.name not in REFUSED)  # type: ignore[index]


def _objective(method: str, values: Mapping[str, Any]) -> AnchoredObjective:
    known = (*OWN, *objective_keys(method))
    for name in values:
        if name in REFUSED:
            raise ConfigError(f"dph.{name} does not go together with verl: {REFUSED[name]}")
        if name not in known:
            readers = [m for m in ANCHOR_METHODS if name in objective_keys(m)]
            other = f"; method {readers[0]} has it" if readers else nearest(name, known)
            raise ConfigError(f"dph.{name} is no setting of method {method}{other}; there are: {', '.join(known)}")
    try:
        objective = build_objective(method, values)
    except ConfigError as error:
        raise ConfigError(str(error).replace("objective.", "dph.")) from None
    if isinstance(objective, DphObjective) and objective.loads_reference:
        raise ConfigError(
            f"dph.form=definition with dph.divergence={objective.divergence} reads fresh completions, scored by a "
            "reference model; with verl use form=generator, or train with `dphrl train`"
        )
    assert isinstance(objective, AnchoredObjective)
    return objective


class _Flat:
    """An objective's settings beside others, as `AnchorSettings.of` reads them from a trainer's arguments."""

    def __init__(self, objective: AnchoredObjective, others: dict[str, Any]) -> None:
        self.__dict__ |= {f.name: getattr(objective, f.name) for f in fields(objective)} | others
