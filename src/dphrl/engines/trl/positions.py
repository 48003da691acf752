"""Positions of padded rows: TRL leaves them to the model, and some models then count the padding."""

from __future__ import annotations

from typing import Any

from trl import GRPOTrainer

from dphrl.models.positions import needs_positions, with_positions


class GivesPositions(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer, scoring with positions wherever the model needs them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._gives_positions = needs_positions(self.model)

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        output: tuple[Any, ...] = super()._get_per_token_logps_and_entropies(self._called(model), *args, **kwargs)
        return output

    def _called(self, model: Any) -> Any:
        """What to call in the model's place."""
        return with_positions(model) if self._gives_positions else model
