"""Verdicts in verl's training: what could not be judged has no part in the gradient, and statuses are counted.

verl knows no completion without a reward. One that could not be judged comes with the reward 0 and the mark
`unjudged`; here it is taken out of its group's mean and spread, and its tokens out of the loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from dphrl.errors import VerifierError
from dphrl.types import STATUSES


class Verdicts:
    """Of the batch at hand."""

    def __init__(self) -> None:
        self._unjudged: list[str] = []

    @contextmanager
    def set_apart(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> Iterator[None]:
        """While verl computes advantages, each unjudged completion is a group of its own.

        A group of one has the mean 0 in verl's GRPO, so that its advantage is its reward, 0; and the groups that it
        came from are as without it.

        Args:
            metrics: gets the share of each status (0..1), and of what could not be judged.
        Raises:
            VerifierError: nothing in the batch could be judged; says why the last one could not.
        """
        rows = _verdict_rows(batch)
        metrics |= shares([row for row in rows.values() if row])
        self._unjudged = [key for key, row in rows.items() if row.get("unjudged")]
        counted = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding")]
        if self._unjudged and len(self._unjudged) == len(counted):
            last = rows[self._unjudged[-1]]
            raise VerifierError(
                f"none of {len(counted)} completions could be judged; the last one's verdict is "
                f"{last.get('status')}: {last.get('detail')}; mend the verifier, and go on from the last checkpoint"
            )
        if not self._unjudged:
            yield
            return
        own = list(_get(batch, self._unjudged, "uid"))
        _put(batch, self._unjudged, [{"uid": key} for key in self._unjudged])
        try:
            yield
        finally:
            _put(batch, self._unjudged, [{"uid": uid} for uid in own])

    def mask_unjudged(self, batch: KVBatchMeta) -> None:
        """Take the tokens of what could not be judged out of the loss and its denominators."""
        if self._unjudged:
            responses = _get(batch, self._unjudged, "responses").unbind()
            none = [torch.zeros_like(response) for response in responses]
            _put(batch, self._unjudged, [{"response_mask": mask, "loss_mask": mask} for mask in none])


def shares(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """verifier/status/STATUS, verifier/unjudged and verifier/timeout_share, each in 0..1; empty where the reward
    function is not ours."""
    judged = [row for row in rows if "status" in row and "unjudged" in row]
    if not judged:
        return {}
    counts = Counter(str(row["status"]) for row in judged)
    found = {f"verifier/status/{status}": counts[status] / len(judged) for status in STATUSES}
    whole, timeouts = (sum(float(row.get(name, 0.0)) for row in judged) for name in ("verifier_s", "timeouts_s"))
    return found | {
        "verifier/unjudged": sum(float(row["unjudged"]) for row in judged) / len(judged),
        "verifier/timeout_share": timeouts / whole if whole > 0 else 0.0,
    }


def validation_shares(sources: Sequence[str], infos: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    """The shares of statuses for each data source of a validation, as val-aux/SOURCE/verifier/status/STATUS.

    Args:
        sources: of each sample.
        infos: what the reward function said of each, by name.
    """
    found: dict[str, float] = {}
    for source in dict.fromkeys(sources):
        places = [i for i, s in enumerate(sources) if s == source]
        rows = [{name: values[i] for name, values in infos.items() if values[i] is not None} for i in places]
        found |= {f"val-aux/{source}/{name}": share for name, share in shares(rows).items()}
    return found


def _verdict_rows(batch: KVBatchMeta) -> dict[str, Mapping[str, Any]]:
    """Key -> what the reward function said of the completion; of verl's padding rows nothing."""
    keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding")]
    extras = list(_get(batch, keys, "extra_fields"))
    return {
        key: (extra.get("reward_extra_info") or {}) if isinstance(extra, Mapping) else {}
        for key, extra in zip(keys, extras, strict=True)
    }


def _get(batch: KVBatchMeta, keys: Sequence[str], field: str) -> Any:
    return tq.kv_batch_get(keys=list(keys), partition_id=batch.partition_id, select_fields=[field])[field]


def _put(batch: KVBatchMeta, keys: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    tq.kv_batch_put(keys=list(keys), partition_id=batch.partition_id, fields=list_of_dict_to_tensordict(list(rows)))
