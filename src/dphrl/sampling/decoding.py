"""From drawn token ids to completions: the same end and the same text whatever the backend."""

from __future__ import annotations

from collections.abc import Sequence

from dphrl.models.policy import Policy
from dphrl.sampling.base import Request
from dphrl.types import Completion


def until_stop(row: Sequence[int], stop_ids: Sequence[int]) -> tuple[tuple[int, ...], bool]:
    """The tokens up to and with the first end token, and whether there is one."""
    for i, token in enumerate(row):
        if token in stop_ids:
            return tuple(row[: i + 1]), True
    return tuple(row), False


def decoded_completions(policy: Policy, requests: Sequence[Request], rows: Sequence[Sequence[int]]) -> list[Completion]:
    """One completion a request: cut after its end token, decoded by the policy's own tokenizer."""
    ended = [until_stop(row, policy.stop_ids) for row in rows]
    texts: list[str] = policy.tokenizer.batch_decode([list(ids) for ids, _ in ended], skip_special_tokens=True)
    return [
        Completion(r.prompt_id, r.draw, ids, text, "stop" if stopped else "length")
        for r, (ids, stopped), text in zip(requests, ended, texts, strict=True)
    ]
