"""What one evaluation says: every metric of every prompt, and their summary with intervals. Pure: no file, no model."""

from __future__ import annotations

from dphrl.metrics.bands import BANDS, band_of
from dphrl.metrics.intervals import RESAMPLES, Interval, Scores, bootstrap, join_scores, paired_bootstrap, widened
from dphrl.metrics.pass_at_k import greedy, mean_at_n, pass_at_k, report_ks
from dphrl.metrics.per_prompt import per_prompt
from dphrl.metrics.retention import retention, retention_at
from dphrl.metrics.seeds import SeedSpread, seed_spread
from dphrl.metrics.summary import NO_RATES, TaskSummary, intervals_of, summarise
from dphrl.metrics.voting import Answer, majority

__all__ = [
    "BANDS",
    "NO_RATES",
    "RESAMPLES",
    "Answer",
    "Interval",
    "Scores",
    "SeedSpread",
    "TaskSummary",
    "band_of",
    "bootstrap",
    "greedy",
    "intervals_of",
    "join_scores",
    "majority",
    "mean_at_n",
    "paired_bootstrap",
    "pass_at_k",
    "per_prompt",
    "report_ks",
    "retention",
    "retention_at",
    "seed_spread",
    "summarise",
    "widened",
]
