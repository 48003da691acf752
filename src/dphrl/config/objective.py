"""What holds the policy near the initial one: a class for each method, with the settings that this method reads."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from dphrl.config.setting import FOLLOWS, STRICT, About, ByChoice, Section

Method = Literal["grpo", "dapo", "rkl", "dph", "replay"]

ANCHOR_RATIO = 1 / 8
"""Anchors for each completion of an optimiser step where their number is not given: the share of the paper's script
(256 beside 2,048), which did as well as eight times as many on the demo (docs/results/anchor-ratio.md)."""
DEFINED = ("forward_kl", "js", "reverse_kl")
"""Divergences with a definition form."""
FRESH = ("js", "reverse_kl")
"""Those whose definition form reads fresh completions, scored by a reference model in memory."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MethodObjective(Section):
    """The section `objective` of any method."""

    section: ClassVar[str] = "objective"

    @property
    def loads_reference(self) -> bool:
        """Whether training holds the initial policy in memory, beside the one that is trained."""
        return False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GrpoObjective(MethodObjective):
    """Method grpo has no settings of its own."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DapoObjective(MethodObjective):
    """Method dapo: groups in which all rewards are equal are replaced."""

    max_resample: Annotated[
        int, Field(ge=0), About("Rounds that replace groups in which all rewards are equal", "rounds")
    ] = 3


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RklObjective(MethodObjective):
    """Method rkl: a KL divergence from the initial policy, on fresh completions."""

    beta: Annotated[float, Field(gt=0), About("Weight of the KL to the initial policy", common=True)] = 0.1
    kl_estimator: Annotated[
        Literal["k3", "k3_corrected", "k2", "k1_reward"],
        About(
            "k3 in the loss (released code; forward-KL gradient), k3_corrected (times the ratio, as TRL has it now), "
            "k2 in the loss, or k1 as a reward (all three: the reverse-KL gradient)"
        ),
    ] = "k3"

    @property
    def loads_reference(self) -> bool:
        return True


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AnchoredObjective(MethodObjective):
    """What the methods with anchors share."""

    eta: Annotated[
        float,
        Field(ge=0),
        About("Weight of the anchor penalty; 0 trains as TRL does, to the bit", common=True),
        # The paper's ranges at learning rate 1e-6: 0.05 to 0.2 for js, 0.01 to 0.05 for the others.
        ByChoice("divergence", {"js": 0.2}, otherwise=0.05),
    ] = FOLLOWS
    eta_schedule: Annotated[
        Literal["constant", "linear", "cosine", "target"],
        About("Course of eta: from eta to eta_end over training, or whatever holds the drift at drift_target"),
    ] = "constant"
    eta_end: Annotated[
        float | None,
        Field(ge=0),
        About("eta of the last optimiser step"),
        ByChoice("eta_schedule", {"linear": 0.0, "cosine": 0.0}),
    ] = None
    drift_target: Annotated[
        float | None,
        Field(gt=0),
        About("Forward KL of the anchors to be held, e.g. 0.05", "nats per token"),
        ByChoice("eta_schedule", {"target": None}),
    ] = None
    eta_bounds: Annotated[
        list[float] | None,
        About("[low, high] of eta, 0 < low <= eta <= high; null = [eta / 100, 100 eta]"),
        ByChoice("eta_schedule", {"target": None}),
    ] = None
    anchors_per_step: Annotated[
        int | None,
        Field(ge=1),
        About("Anchors beside each optimiser step; null = an eighth of its completions", "anchors"),
    ] = None
    anchor_ratio: Annotated[
        float | None,
        Field(gt=0),
        About("Instead of anchors_per_step: anchors of an optimiser step for each of its completions, rounded"),
    ] = None
    anchors_per_prompt: Annotated[
        int | None,
        Field(ge=1),
        About(
            "Anchors of one prompt that follow one another, so that it is read once for them; null = as many as a "
            "prompt is longer than a completion, 1 to 8",
            "anchors",
        ),
    ] = None
    anchor_forward: Annotated[
        Literal["auto", "separate", "merged"],
        About(
            "Anchors go through the model on their own, or in one forward with the rollouts; auto: in one, where "
            "prompts are shared"
        ),
    ] = "auto"

    def anchors_beside(self, completions: int, micro_batches: int) -> int:
        """Anchors of an optimiser step (count, >= 1).

        Args:
            completions: of the step.
            micro_batches: of it, over all processes. Each has an anchor at least where anchors have a forward of their
                own and their number is left to us.
        """
        if self.anchors_per_step is not None:
            return self.anchors_per_step
        least = 1 if self.anchor_forward != "separate" or self.anchor_ratio is not None else micro_batches
        return max(least, round((self.anchor_ratio or ANCHOR_RATIO) * completions))

    @model_validator(mode="after")
    def _one_number_of_anchors(self) -> AnchoredObjective:
        if self.anchors_per_step is not None and self.anchor_ratio is not None:
            raise ValueError(
                f"objective.anchors_per_step={self.anchors_per_step} and objective.anchor_ratio={self.anchor_ratio} "
                "say the same thing twice; give one of them and leave the other null"
            )
        return self

    @model_validator(mode="after")
    def _drift_can_be_held(self) -> AnchoredObjective:
        if self.eta_schedule != "target":
            return self
        if self.drift_target is None:
            raise ValueError(
                "objective.eta_schedule=target needs objective.drift_target > 0, the anchors' forward KL to be held, "
                "in nats per token: say how far the policy may drift, e.g. 0.05"
            )
        if self.eta_bounds is None:
            object.__setattr__(self, "eta_bounds", [self.eta / 100, self.eta * 100])
        bounds = self.eta_bounds or []
        if not (len(bounds) == 2 and 0 < bounds[0] <= self.eta <= bounds[1] < math.inf):
            raise ValueError(
                f"objective.eta_schedule=target changes eta by factors, from eta={self.eta} within {bounds}; it needs "
                "eta_bounds=[low, high] with 0 < low <= eta <= high, e.g. eta 0.2 within [0.01, 5]"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReplayObjective(AnchoredObjective):
    """Method replay: plain negative log-likelihood of the anchors, the control."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DphObjective(AnchoredObjective):
    """Method dph: a divergence from the initial policy, on anchors."""

    divergence: Annotated[
        Literal["forward_kl", "js", "alpha", "reverse_kl", "jeffreys", "squared_hellinger"],
        About("Generator function of the anchor penalty", common=True),
    ] = "forward_kl"
    alpha: Annotated[
        float | None, Field(gt=0, lt=1), About("Order of the divergence"), ByChoice("divergence", {"alpha": 0.5})
    ] = None
    form: Annotated[
        Literal["generator", "definition"],
        About(
            "f(u) on anchors alone; or, to compare with, forward_kl, js and reverse_kl as they are defined: the last "
            "two then read fresh completions, scored by the reference model in memory"
        ),
    ] = "generator"
    log_u_cap: Annotated[
        float | None,
        Field(gt=0, le=80),
        About("Beyond it the generator goes on along its tangent", "nats"),
        ByChoice("form", {"generator": 5.0}),
    ] = None
    anchor_estimator: Annotated[
        Literal["sampled", "topk"],
        About("Divergence at the anchors' own tokens, or over the vocabulary from anchor.topk stored entries"),
    ] = "sampled"

    @property
    def loads_reference(self) -> bool:
        return self.form == "definition" and self.divergence in FRESH

    @model_validator(mode="after")
    def _form_is_there(self) -> DphObjective:
        if self.form == "definition" and self.divergence not in DEFINED:
            raise ValueError(
                f"objective.form=definition is there for divergence {', '.join(DEFINED)}, and {self.divergence} "
                "came; choose one of them, or form=generator"
            )
        return self

    @model_validator(mode="after")
    def _topk_goes_with_the_rest(self) -> DphObjective:
        if self.anchor_estimator == "topk" and self.form == "definition":
            raise ValueError(
                "objective.form=definition reads the anchors' own tokens alone, and anchor_estimator=topk came; use "
                "anchor_estimator=sampled, or form=generator"
            )
        return self


Objective = GrpoObjective | DapoObjective | RklObjective | ReplayObjective | DphObjective

OBJECTIVES: dict[Method, type[Objective]] = {
    "grpo": GrpoObjective,
    "dapo": DapoObjective,
    "rkl": RklObjective,
    "dph": DphObjective,
    "replay": ReplayObjective,
}
"""`method` -> class of the section `objective`."""

ANCHOR_METHODS: tuple[Method, ...] = ("dph", "replay")
"""Methods whose objective is an `AnchoredObjective`."""


def methods_that_read(name: str) -> tuple[Method, ...]:
    """Methods whose section `objective` has a setting of this name."""
    return tuple(method for method, cls in OBJECTIVES.items() if name in {f.name for f in fields(cls)})
