"""What a worker process does. The module of a worker holds one `Job`, called `JOB`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dphrl.types import Status

Reply = tuple[Status, str]
"""What is said of one item: the status, and why."""


Settings = Mapping[str, Any]
"""Keyword arguments of `Job.settings`: the same for all items of a batch."""


def _no_settings(**_: Any) -> None:
    """The settings of a job that has none."""


@dataclass(frozen=True, slots=True)
class Job:
    """How a worker answers; everything it is given has travelled as JSON."""

    judge: Callable[[Any, Any], Reply]
    """(item, settings) -> reply. An exception in it is a `verifier_error`."""
    settings: Callable[..., Any] = _no_settings
    """Makes the settings of `judge` from the keyword arguments in a request."""
    warm_up: Callable[[], object] | None = None
    """Called once, before workers are forked: what the first item would take longer for than the others. Trusted."""
    remember: Callable[..., None] | None = None
    """(shared values, forget) takes what later items need; `forget` drops what was taken before."""
