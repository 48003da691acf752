"""Bootstrap intervals of a whole evaluation beside a plain loop, in the same run. One JSON line.

3,000 prompts, the 40 metrics that a summary has at n = 64 (a third of them ratios, in which not every prompt counts),
10,000 resamples. The plain loop is what one writes first: for each resample draw rows, take them, nanmean; it is timed
on a fiftieth of the resamples. Both give the same intervals from the same resamples, which is checked. SciPy's
`scipy.stats.bootstrap` is timed too where it is installed: one metric without gaps, since it has no ratios.

    seconds         of the processor, for all metrics (best of the rounds)
    over_loop       times as fast as the plain loop
    over_scipy      times as fast as SciPy, for one metric; null where it is not installed
    maj_seconds     maj@k of 3,000 prompts with 64 draws and 12 answers each
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np

from dphrl.metrics.intervals import Scores, bootstrap
from dphrl.metrics.voting import majority
from dphrl.types import Completion, Verdict

try:
    from scipy.stats import bootstrap as theirs
except ImportError:
    theirs = None

PROMPTS, METRICS, RESAMPLES, ROUNDS, SHARE = 3_000, 40, 10_000, 3, 50
DRAWS, ANSWERS = 64, 12

values = np.random.default_rng(0).random((PROMPTS, METRICS))
values[:, ::3] = np.where(np.random.default_rng(1).random((PROMPTS, len(range(0, METRICS, 3)))) < 0.3, np.nan, 0.5)
values[:, ::3] *= np.random.default_rng(2).random((PROMPTS, 1))
scores = Scores(tuple(map(str, range(PROMPTS))), tuple(map(str, range(METRICS))), values)


def seconds(call: Callable[[], object]) -> float:
    """Of the processor, best of the rounds."""
    return min(once(call) for _ in range(ROUNDS))


def once(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def ours(resamples: int = RESAMPLES, columns: int = METRICS) -> dict[str, object]:
    return bootstrap(scores.only(scores.names[1 : columns + 1]), rng=np.random.default_rng(7), resamples=resamples)


def loop() -> np.ndarray:
    rng = np.random.default_rng(7)
    columns = values[:, 1:]
    means = [np.nanmean(columns[rng.integers(PROMPTS, size=PROMPTS)], axis=0) for _ in range(RESAMPLES // SHARE)]
    return np.quantile(means, [0.025, 0.975], axis=0)


def scipy() -> object:
    return theirs((values[:, 1],), np.mean, n_resamples=RESAMPLES, method="percentile", rng=7, batch=100)


def votes() -> float:
    rng = np.random.default_rng(3)
    verdicts = Verdict(False, 0.0, "wrong"), Verdict(True, 1.0, "correct")
    answers = rng.integers(ANSWERS, size=(PROMPTS, DRAWS)).tolist()
    draws = {
        str(p): [Completion(str(p), d, (), str(x), "stop", verdicts[x == 0]) for d, x in enumerate(row)]
        for p, row in enumerate(answers)
    }
    return once(lambda: majority(draws, str, (1, 2, 4, 8, 16, 32, 64), rng=rng))


few = ours(RESAMPLES // SHARE)
expected = loop()
np.testing.assert_allclose([i.low for i in few.values()], expected[0], atol=1e-12)
np.testing.assert_allclose([i.high for i in few.values()], expected[1], atol=1e-12)
mine = seconds(ours)
print(
    json.dumps(
        {
            "prompts": PROMPTS,
            "metrics": METRICS - 1,
            "resamples": RESAMPLES,
            "seconds": round(mine, 3),
            "over_loop": round(SHARE * seconds(loop) / mine, 1),
            "over_scipy": round(seconds(scipy) / seconds(lambda: ours(columns=1)), 1) if theirs else None,
            "maj_seconds": round(votes(), 2),
        }
    )
)
