"""Anchors' log-probabilities in verl's own forward: what they are compared with, and scored again by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from torch import Tensor
from transfer_queue import KVBatchMeta
from verl.workers.utils.padding import response_from_nested

from dphrl.anchors import AnchorStore, StoreWriter, is_sealed, open_store
from dphrl.engines.common.anchor_term import CHECKED_ANCHORS
from dphrl.engines.verl.anchor_rows import SCORED_FIELDS, anchor_row
from dphrl.engines.verl.anchored_update import TAG, rows_in_queue
from dphrl.errors import AnchorError
from dphrl.progress import Progress
from dphrl.types import Anchor

CHUNK = 512
"""Anchors scored again between two writes."""
PARTITION = "dph"
"""Where the rows lie while they are scored, apart from verl's own."""


class VerlForward:
    """Log-probabilities by the actor as verl computes them, with its kernels and in its precision.

    Args:
        workers: verl's group of workers.
        unit: verl can divide batches by it.
        temperature: of the policy.
    """

    def __init__(self, workers: Any, unit: int, temperature: float) -> None:
        self._workers, self._unit, self._temperature = workers, unit, temperature

    def logps(self, anchors: Sequence[Anchor]) -> list[Tensor]:
        """One tensor for each anchor: ln pi of its completion tokens (nats, float32)."""
        missing = -len(anchors) % self._unit
        filled = [*anchors, *[anchors[-1]] * missing]
        rows = [anchor_row(a, SCORED_FIELDS) for a in filled]
        with rows_in_queue(rows, PARTITION) as keys:
            self._workers.compute_log_prob(
                KVBatchMeta(
                    keys=keys,
                    tags=[dict(TAG) for _ in keys],
                    partition_id=PARTITION,
                    fields=list(SCORED_FIELDS),
                    extra_info={
                        "calculate_entropy": False,
                        "compute_loss": False,
                        "temperature": self._temperature,
                    },
                )
            )
            data = tq.kv_batch_get(keys=keys, partition_id=PARTITION, select_fields=["log_probs", "responses"])
        found = response_from_nested(_jagged(data["log_probs"]), _jagged(data["responses"]))
        return [logps.float() for logps in found.unbind()[: len(anchors)]]

    def mean_abs_log_u(self, anchors: Sequence[Anchor]) -> float:
        """Mean |log u| (nats a token) of up to CHECKED_ANCHORS anchors, spread over all."""
        count = min(CHECKED_ANCHORS, len(anchors))
        chosen = [anchors[int(i)] for i in np.linspace(0, len(anchors) - 1, count).round()]
        log_u = [logp - torch.tensor(a.ref_logps) for a, logp in zip(chosen, self.logps(chosen), strict=True)]
        return float(torch.cat(log_u).abs().mean())


def rescored(
    store: AnchorStore, forward: VerlForward, folder: Path, how: Mapping[str, Any], progress: Progress, *, begun: bool
) -> AnchorStore:
    """The same anchors with the log-probabilities of verl's forward, in a store of their own.

    A store that an earlier start of this training left there is taken, and gone on with where it is not finished.

    Args:
        store: as `dphrl presample` made it.
        folder: where the new store lies.
        how: what the scores depend on beside the store, e.g. verl's version and precision.
        begun: the policy has been trained already, so that it cannot score any more.
    Raises:
        AnchorError: `begun`, and no finished store is there; or the one that is there was made otherwise.
    """
    made = {"rescored_from": store.manifest.digest, "rescored_by": dict(how)}
    writer = None if begun and not is_sealed(folder) else StoreWriter(folder, store.manifest.fingerprint, made)
    if writer is None:
        raise AnchorError(
            f"dph.rescore=true, but this training has begun and {folder} holds no finished scores of its initial "
            "policy; put that folder back, or start anew with another trainer.default_local_dir"
        )
    if not writer.sealed:
        done = len(writer.done)
        progress("score anchors by verl", done, len(store))
        for at in range(done, len(store), CHUNK):
            anchors = store[at : at + CHUNK]
            scores = forward.logps(anchors)
            writer.add(
                [
                    replace(a, ref_logps=tuple(s.tolist()), topk_ids=(), topk_logps=())
                    for a, s in zip(anchors, scores, strict=True)
                ]
            )
            progress("score anchors by verl", at + len(anchors), len(store))
        writer.seal()
    return open_store(folder, None)


def _jagged(field: Tensor) -> Tensor:
    """TransferQueue hands out rows of one length as a plain tensor."""
    return field if field.is_nested else torch.nested.as_nested_tensor(list(field.unbind()), layout=torch.jagged)
