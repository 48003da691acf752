"""`DPHConfig(GRPOConfig)`: TRL's settings and ours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, make_dataclass
from typing import Any

from trl import GRPOConfig

from dphrl.config.describe import described_settings
from dphrl.config.load import build_objective, build_trainer_settings
from dphrl.config.objective import ANCHOR_METHODS, OBJECTIVES, AnchoredObjective
from dphrl.config.setting import annotated
from dphrl.config.train import TRAINER_SETTINGS, TrainerSettings
from dphrl.engines.common.generation.rollouts import check_sharing
from dphrl.engines.trl.refused_options import check_options

BRING_REFERENCE = 1.0
"""`beta` of the definition form: not 0, so that TRL brings the reference's logps. Its KL term itself is off there."""


OBJECTIVE_SETTINGS = {name: kind for cls in OBJECTIVES.values() for name, kind, _ in annotated(cls)}
"""Name -> type of every setting of `objective`, whichever method reads it."""
_KINDS = OBJECTIVE_SETTINGS | {name: kind for name, kind, _ in annotated(TrainerSettings) if name in TRAINER_SETTINGS}
_HELP = {s.key.rpartition(".")[2]: s for s in described_settings() if s.section in ("", "objective", "train")}


def _field_of(name: str) -> tuple[str, Any, Any]:
    """A field of `DPHConfig` that is None where it was left out."""
    text = f"{_HELP[name].help}; left out: {_HELP[name].default}"
    return name, _KINDS[name] | None, field(default=None, metadata={"help": text})


_GRPOConfigWithOurs = make_dataclass("_GRPOConfigWithOurs", [_field_of(name) for name in _KINDS], bases=(GRPOConfig,))


@dataclass
class DPHConfig(_GRPOConfigWithOurs):  # type: ignore[misc, valid-type]
    """TRL's settings, and ours as in a YAML file: those of `objective` and of `TrainerSettings`, by their own names.

    What is left out has the method's default; what the method does not read is an error, and None once the config is
    made. See `dphrl.config.objective` and `dphrl.config.train` for meaning, unit and range.

    Raises:
        ConfigError: as `dphrl.config.load.build_config`; or options of TRL's that could not be honoured.
    """

    method: str = field(default="dph", metadata={"help": _HELP["method"].help})
    # TRL's, without its default: one that contradicts the method is refused, not overwritten.
    disable_dropout: bool | None = field(default=None, metadata={"help": "Always on beside anchors, else off"})
    use_bias_correction_kl: bool | None = field(default=None, metadata={"help": "What `kl_estimator` says"})

    def __post_init__(self) -> None:
        given = self._given(OBJECTIVE_SETTINGS)
        unsaid = (0, BRING_REFERENCE if self.form == "definition" else 0)  # TRL's default, or what is set below
        if self.method != "rkl" and given.get("beta") in unsaid:
            del given["beta"]
        objective = build_objective(self.method, given)
        train = build_trainer_settings({"group_size": self.num_generations, **self._given(TRAINER_SETTINGS)})
        for name in _KINDS:
            setattr(self, name, getattr(objective, name, getattr(train, name, None)))
        check_options(self)
        if self.method != "rkl":
            self.beta = BRING_REFERENCE if objective.loads_reference else 0.0
        # Unless told otherwise TRL multiplies k3 by the differentiable ratio: its gradient becomes reverse KL's.
        self.use_bias_correction_kl = self.kl_estimator == "k3_corrected"
        # Reference logps are scored without dropout: with it, u would differ from 1 for the unchanged policy.
        self.disable_dropout = bool(self.disable_dropout) or self.method in ANCHOR_METHODS
        super().__post_init__()
        check_sharing(vars(self))
        if isinstance(objective, AnchoredObjective):
            micro_batches = self.gradient_accumulation_steps * self.world_size
            anchors = objective.anchors_beside(self.per_device_train_batch_size * micro_batches, micro_batches)
            self.anchors_per_step, self.anchor_ratio = anchors, None

    def _given(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of the settings that were given."""
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}
