"""Completions that came without a verdict, judged here: `dphrl import --verifier`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dphrl.errors import DataError
from dphrl.stages.import_samples.sample_files import PlacedSample
from dphrl.verifiers.registry import load_verifier


def judged(samples: Sequence[PlacedSample], verifier: str) -> tuple[list[PlacedSample], str]:
    """The samples, those without a verdict judged against their gold answer, and a note of how many those are.

    Args:
        verifier: math, exact or module:function, as `task.verifier`; it gets id, prompt, completion and gold.
    Raises:
        DataError: a completion with neither verdict nor gold answer.
        VerifierError: an unknown verifier, or a column that it needs is missing.
    """
    verify = load_verifier(verifier, {})
    bare = [number for number, placed in enumerate(samples) if placed.sample.right is None]
    for number in bare:
        if not samples[number].sample.gold:
            raise DataError(
                f"{samples[number].where} has neither a verdict nor a gold answer, with which --verifier {verifier} "
                "would compare; say which column holds it, e.g. --columns '{gold: answer, ...}'"
            )
    parts = [samples[number].sample for number in bare]
    verdicts = verify([{"id": s.prompt_id, "prompt": s.prompt, "completion": s.text, "gold": s.gold} for s in parts])
    found = list(samples)
    for number, verdict in zip(bare, verdicts, strict=True):
        right = None if verdict.reward is None else verdict.correct
        sample = replace(found[number].sample, right=right, reward=verdict.reward)
        found[number] = replace(found[number], sample=sample)
    return found, f"{len(bare):,} of {len(samples):,} completions came without a verdict and were judged by {verifier}"
