"""One error tree. Every `DphrlError` is the user's to mend: the command line prints it and ends with status 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DphrlError(Exception):
    """Wrong use or bad input: says what came, what is allowed, and what to do. Never a bug of ours."""


class ConfigError(DphrlError):
    """A setting that does not exist, has the wrong type or lies out of range."""


class DataError(DphrlError):
    """Prompts that cannot be read, have a missing column, a doubled id, or do not fit the model."""


class ModelError(DphrlError):
    """A model or tokenizer that cannot be loaded or lacks what the stages need (an end token, a chat template)."""


class SamplerError(DphrlError):
    """A sampling backend that is not installed, cannot start, does not answer, or answers with what it must not."""


class VerifierError(DphrlError):
    """A verifier that cannot be loaded or breaks its contract (wrong number of verdicts, a value out of range)."""


class RunDirError(DphrlError):
    """A run directory that belongs to another config, or lacks the output of an earlier stage."""


class AnchorError(DphrlError):
    """Anchors that are missing, damaged, or were made with another model, tokenizer or chat template."""


class EmptyAnchorStore(AnchorError):
    """No near-perfect prompt, so there is nothing to hold the policy; never a silent GRPO."""


class TrainingError(DphrlError):
    """A training that cannot go on: its loss or gradient is no longer finite."""


class Stopped(KeyboardInterrupt):
    """A signal ended the command, a training after a checkpoint was saved; `number` is the signal's."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


def nearest(name: str, allowed: Iterable[str]) -> str:
    """'; did you mean "x"?' for the closest allowed name, or '' when none is close."""
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def listed(names: Iterable[object], shown: int = 3) -> str:
    """'a, b, c and 2 more': the first `shown` names, and how many others there are."""
    texts = list(map(str, names))
    more = f" and {len(texts) - shown:,} more" if len(texts) > shown else ""
    return ", ".join(texts[:shown]) + more
