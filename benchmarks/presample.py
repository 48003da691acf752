"""Pre-sampling that stops early beside drawing everything, on the shipped base model: tokens, seconds, the bound.

Both ways draw, verify and store in the same run, in turn, `--prompts` prompts of the demo at 8 presamples (debiasing
off: it costs both the same). Ratios are early over everything. The bound is drawing one by one, worked out from the
completions of the full run: the tokens of the draws up to the one that settles a prompt. One JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from dphrl.config.load import build_config
from dphrl.method.partition import Rules, looked_at, select
from dphrl.models.policy import load_policy
from dphrl.progress import silent
from dphrl.runs.samples import SampleFiles
from dphrl.sampling.backends import make_sampler
from dphrl.sampling.encoded_prompts import encode_prompts, task_for_policy
from dphrl.stages.presample.waves import draw_in_waves
from dphrl.types import Completion, Partition

ROUNDS = 3

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--prompts", type=int, default=256, help="prompts of the demo's task (default: 256)")
arguments.add_argument("--batch", type=int, default=256, help="completions drawn at once (default: 256)")
options = arguments.parse_args()

config = build_config(
    {
        "model": {"path": "demo", "device": "cpu"},
        "threads": 1,
        "task": {"data": "demo:in_domain", "limit": options.prompts},
        "sampling": {"max_new_tokens": 40, "batch_size": options.batch},
    }
)
policy = load_policy(config)
prompts = encode_prompts(task_for_policy("task", config.task, policy, base_dir=Path()), policy, config, silent)
sampler = make_sampler(config, policy)


def drawn(rules: Rules) -> tuple[float, dict[tuple[str, int], Completion], Partition]:
    """Seconds, the completions and the sets of one run in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        shards = SampleFiles(Path(folder))
        began = time.perf_counter()
        found, _ = draw_in_waves(prompts, rules, sampler, shards, silent, "")
        seconds = time.perf_counter() - began
        light = [c for mine in found.values() for c in mine.values()]
        partition = select(prompts.ids, light, rules).partition
        return seconds, {(c.prompt_id, c.draw): c for c in shards.read()}, partition


def tokens(completions: list[Completion]) -> int:
    return sum(len(c.token_ids) for c in completions)


def one_by_one(completions: dict[tuple[str, int], Completion], rules: Rules) -> int:
    """Tokens of the draws up to the one that settles each prompt."""
    rows = {i: {d: completions[i, d] for d in range(rules.presamples)} for i in prompts.ids}
    return sum(tokens(list(looked_at(row, rules))) for row in rows.values())


result: dict[str, float | bool] = {"same_partition": True}
drawn(Rules(threshold=8, presamples=8, debias=False))  # workers of the verifier start, and so does torch
for threshold in (8, 6):
    early = Rules(threshold=threshold, presamples=8, debias=False)
    naive = Rules(threshold=threshold, presamples=8, debias=False, full_counts=True)
    times: dict[Rules, list[float]] = {early: [], naive: []}
    for _ in range(ROUNDS if threshold == 8 else 1):
        for rules in times:
            seconds, completions, partition = drawn(rules)
            times[rules].append(seconds)
            if rules is naive:
                whole, sets = completions, partition
            else:
                fewer, fewer_sets = completions, partition
    total = tokens(list(whole.values()))
    result[f"token_ratio_{threshold}of8"] = round(tokens(list(fewer.values())) / total, 4)
    result[f"bound_{threshold}of8"] = round(one_by_one(whole, early) / total, 4)
    if threshold == 8:
        result["seconds_ratio_8of8"] = round(min(times[early]) / min(times[naive]), 4)
    result["same_partition"] = bool(result["same_partition"]) and sets == fewer_sets
sampler.close()
print(json.dumps(result))
