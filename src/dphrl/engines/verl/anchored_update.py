"""verl's actor update with anchors in each of its mini-batches.

verl's trainer calls `update_actor` of its group of workers with the keys of a batch whose rows lie in TransferQueue.
`AnchoredUpdate` stands in for that method: it puts the anchors' rows there too, calls verl's own with both, and takes
them out again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import transfer_queue as tq
from torch import Tensor
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from dphrl.anchors import anchor_lengths
from dphrl.engines.common.anchor_term import AnchorSettings, anchor_order
from dphrl.engines.verl.anchor_rows import ANCHOR_FIELDS, anchor_row, fields_of_update, mixed, rollout_marks
from dphrl.engines.verl.loss import ETA
from dphrl.engines.verl.metrics import as_logged
from dphrl.method.anchor_stats import AnchorStats
from dphrl.types import Anchor

TAG = {"is_padding": True}
"""verl's own word for rows that do not count in its metrics."""


@dataclass(frozen=True, slots=True)
class UpdatePlace:
    """Where an update stands in the training: what its anchors follow from."""

    number: int
    """Updates before it (count)."""
    eta: float


class AnchoredUpdate:
    """A worker group's `update_actor` with anchors.

    Args:
        update_actor: verl's own.
        anchors: scored by the initial policy; read when an update needs them.
        settings: `per_step` anchors beside each optimiser step, which is one mini-batch.
        ranks: data-parallel ranks of the actor.
        place: where the update that is asked for stands.
    """

    def __init__(
        self,
        update_actor: Callable[[KVBatchMeta], Any],
        anchors: Sequence[Anchor],
        settings: AnchorSettings,
        ranks: int,
        place: Callable[[], UpdatePlace],
    ) -> None:
        self._update_actor, self._anchors, self._settings = update_actor, anchors, settings
        self._ranks, self._place = ranks, place
        self._order, _ = anchor_order(anchors, anchor_lengths(anchors), settings)
        self.stats: AnchorStats | None = None
        """Of the last update, over its mini-batches and ranks."""

    def __call__(self, batch: KVBatchMeta) -> Any:
        """Update the actor; the metrics that come back are those of the rollouts alone.

        Args:
            batch: as verl's trainer gives it, with `mini_batch_size` in `extra_info`.
        Raises:
            ConfigError: the rollouts have fields that anchors cannot have.
        """
        per_mini = batch.extra_info["mini_batch_size"]
        minis, fields, place = len(batch) // per_mini, fields_of_update(batch.fields), self._place()
        chosen = [self.anchors_of(place.number * minis + mini) for mini in range(minis)]
        rows = [anchor_row(a, fields, _tokens(anchors)) for anchors in chosen for a in anchors]
        mark_rollouts(batch)
        with rows_in_queue(rows, batch.partition_id) as keys:
            per_step = self._settings.per_step
            by_mini = [keys[i * per_step : (i + 1) * per_step] for i in range(minis)]
            order = mixed(batch.keys, by_mini, ranks=self._ranks)
            tags = dict(zip(batch.keys, batch.tags, strict=True)) | dict.fromkeys(keys, TAG)
            more = {"mini_batch_size": per_mini + per_step, ETA: place.eta}
            output = self._update_actor(
                KVBatchMeta(
                    keys=order,
                    tags=[tags[key] for key in order],
                    partition_id=batch.partition_id,
                    fields=[*fields, *ANCHOR_FIELDS],
                    extra_info={**batch.extra_info, **more},
                )
            )
        metrics, self.stats = as_logged(tu.get(output, "metrics"))
        tu.assign_non_tensor_data(output, "metrics", metrics)
        return output

    def anchors_of(self, step: int) -> list[Anchor]:
        """The anchors of an optimiser step (from 0), long ones first: dealt to ranks in turn they are about even."""
        indices = self._order.step(step, self._settings.per_step)
        return sorted(
            (self._anchors[int(i)] for i in indices), key=lambda a: -len(a.prompt_ids) - len(a.completion_ids)
        )


def mark_rollouts(batch: KVBatchMeta) -> None:
    """Give the rollouts the fields that anchors have: TransferQueue hands out none that some rows lack."""
    responses = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["responses"])
    rows = [rollout_marks(len(response)) for response in responses["responses"].unbind()]
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=list_of_dict_to_tensordict(rows))


@contextmanager
def rows_in_queue(rows: Sequence[dict[str, Tensor]], partition_id: str) -> Iterator[list[str]]:
    """Rows in TransferQueue while the block runs; their keys."""
    keys = [f"anchor{uuid.uuid4().hex}_0_0" for _ in rows]  # verl takes keys apart at their last two underscores
    fields = list_of_dict_to_tensordict(list(rows))
    try:
        tq.kv_batch_put(keys=keys, partition_id=partition_id, fields=fields, tags=[dict(TAG) for _ in keys])
        yield keys
    finally:
        tq.kv_clear(keys=keys, partition_id=partition_id)


def _tokens(anchors: Sequence[Anchor]) -> int:
    return sum(len(a.completion_ids) for a in anchors)
