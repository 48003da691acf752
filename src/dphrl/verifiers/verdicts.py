"""The one place where a status becomes a verdict with its reward."""

from __future__ import annotations

from dphrl.types import NO_REWARD, Status, Verdict


def verdict(status: Status, detail: str = "") -> Verdict:
    """Verdict of a status.

    Args:
        status: what happened.
        detail: why, in words; may be empty.
    Returns:
        Reward 1.0 for `correct`, None for statuses that say nothing about the completion, else 0.0.
    """
    correct = status == "correct"
    return Verdict(correct, None if status in NO_REWARD else float(correct), status, detail)
