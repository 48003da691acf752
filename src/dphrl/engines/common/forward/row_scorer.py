"""How a policy's rows and anchors are scored: by their distinct tokens or padded, in one forward or apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dphrl.engines.common.anchor_term import AnchorLogps, AnchorRows, AnchorTerm
from dphrl.engines.common.forward.joint_forward import JointForward, more_than_text, packed_scores, padded_topk
from dphrl.engines.common.forward.padded_rows import PaddedRows, Scores
from dphrl.engines.common.forward.prompt_sharing import PromptSharing
from dphrl.errors import ConfigError
from dphrl.models.dropout import turn_off_dropout
from dphrl.models.positions import with_positions
from dphrl.models.token_head import add_token_head

Padded = Callable[[Any, PaddedRows], Scores]
"""The engine's own way of scoring padded rows: (what is called in the model's place, rows) -> scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a forward needs of the engine that it runs in."""

    autocast: Callable[[], AbstractContextManager[Any]]
    unwrap: Callable[[Any], Any]
    """A wrapped model -> the one within."""
    without_checkpoints: Callable[[Any], AbstractContextManager[Any]]
    """The context in which a model keeps what it computes; for forwards without gradients."""
    bfloat16: bool
    """Whether it computes in bfloat16, whatever the weights are."""


class RowScorer:
    """Scores of padded rows, and of anchors beside them or on their own.

    Args:
        args: the trainer's arguments; `share_prompts`, `anchor_forward`, `anchor_estimator` and `disable_dropout` are
            read.
        gives_positions: whether the model must be told the positions of padded rows.
        tell: as `PromptSharing`.
    """

    def __init__(
        self, args: Any, surroundings: Surroundings, *, gives_positions: bool, tell: Callable[[str], None]
    ) -> None:
        self.sharing = PromptSharing(args.share_prompts, tell)
        self.logps: Tensor | None = None
        """Of the rows that were scored last, with their graph."""
        self._how, self._topk = args.anchor_forward, args.anchor_estimator == "topk"
        self._around, self._gives_positions = surroundings, gives_positions
        self._dropout_off = args.disable_dropout
        self._joint = JointForward()

    def prepare(self, model: Any, temperature: float) -> None:
        """Let a causal LM, or a PEFT model around one, be read at tokens of our choice.

        Raises:
            ConfigError: prompts were to be shared by name, and cannot be.
        """
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        if self._dropout_off:  # TRL's own reaches modules alone
            turn_off_dropout(model)
        self.sharing.prepare(base)
        add_token_head(base, temperature)

    def shares(self, model: Any, temperature: float, beside: Mapping[str, object]) -> bool:
        """Whether a forward reads each prompt once; the first one of each model looks whether that changes it.

        Args:
            beside: what the forward is given beside token ids; numbers and flags are not looked at.
        """
        if more_than_text(beside):
            self.sharing.leave("completions come with more than text")
        if self.sharing.active:
            base = self._around.unwrap(model)
            dtype = torch.bfloat16 if self._around.bfloat16 else base.dtype
            with self._around.without_checkpoints(base):
                self.sharing.compare(base, base.config.get_text_config().vocab_size, temperature, dtype)
        return self.sharing.active

    def anchors_go_along(self, anchors: AnchorTerm, micros: int, *, pull: bool = True) -> bool:
        """Whether anchors are read in the rollouts' forward.

        Args:
            micros: micro-batches of an optimiser step on each process.
            pull: whether anchors have a gradient. Without one, rows padded to theirs would only change the rollouts' by
                rounding.
        Raises:
            ConfigError: likeliest tokens would have to be read from rows padded to the rollouts'.
        """
        must = self.sharing.active or not anchors.at_once(micros)
        along = (self._how == "auto" and must) or (self._how == "merged" and (pull or must))
        if along and not self.sharing.active and self._topk:
            raise ConfigError(
                "anchor_estimator='topk' needs a forward of its own where prompts are not shared; use "
                "anchor_forward='separate' and at least one anchor a micro-batch (anchors_per_step)"
            )
        return along

    def add(self, anchors: AnchorRows) -> None:
        """Score these anchors along with the next rows."""
        self._joint.add(anchors)

    def rows(
        self,
        model: Any,
        rows: PaddedRows,
        padded: Padded,
        *,
        shared: bool,
        batch_size: int | None = None,
        entropy: bool = False,
        beside: Mapping[str, object],
    ) -> Scores:
        """Scores of rows.

        Args:
            shared: what `shares` has said.
            batch_size: rows of a forward; None = all. `padded` sees to it itself.
            entropy: whether entropies are wanted; likewise.
            beside: as in `shares`.
        """
        if not shared:
            called = self._called(model)
            scores = self._joint.padded(rows, lambda some: padded(called, some), beside)
        else:
            with self._around.autocast():
                parts = [
                    self._joint.packed(part, model, entropy=entropy, topk=self._topk)
                    for part in rows.parts(batch_size or len(rows.input_ids_BL))
                ]
            entropies = [part[1] for part in parts if part[1] is not None]
            scores = torch.cat([part[0] for part in parts]), torch.cat(entropies) if entropies else None, None
        self.logps = scores[0]
        return scores

    def anchors(self, model: Any, anchors: AnchorRows, padded: Padded, *, shared: bool) -> AnchorLogps:
        """What the policy says of anchors: from the forward that they went along in, or by one of their own."""
        logps = self._joint.take()
        if logps is not None:
            return logps
        if shared or self._topk:
            with self._around.autocast():
                if not shared:
                    return padded_topk(self._called(model), anchors)
                packed = packed_scores(model, None, anchors, entropy=False, topk=self._topk)[1]
            assert packed is not None
            return packed
        return AnchorLogps(padded(self._called(model), anchors.padded())[0])

    def _called(self, model: Any) -> Any:
        """What to call in the model's place: engines leave positions to the model."""
        return with_positions(model) if self._gives_positions else model
