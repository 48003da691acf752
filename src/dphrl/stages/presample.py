"""Stage 1: draw from the initial policy, verify, partition, draw once more against selection bias, score, store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dphrl.anchors import write_anchors
from dphrl.config import Config
from dphrl.errors import RunDirError
from dphrl.files import write_json
from dphrl.models import Policy, check_lengths, fingerprint, load_policy
from dphrl.partition import Selection, count, require_near_perfect, select, split
from dphrl.progress import Progress, silent
from dphrl.sampling import Request
from dphrl.scoring import score
from dphrl.stages.rundir import RunDir, open_run
from dphrl.stages.samples import Shards, draw_missing, statuses
from dphrl.tasks import load_task
from dphrl.types import Anchor, Completion, Task


def presample(config: Config, *, base_dir: Path, progress: Progress = silent) -> RunDir:
    """Make RUN/presample and RUN/anchors; what is there already is kept.

    Raises:
        EmptyAnchorStore: no near-perfect prompt (the partition is written all the same).
        DphrlError: bad input, see the parts.
    """
    run = open_run(config)
    if run.partition.exists() and (run.anchors / "manifest.json").exists():
        return run
    task = load_task("task", config.task, base_dir=base_dir)
    policy = load_policy(config)
    sampler = _sampler(policy, config)
    encoded = {p.id: tuple(policy.encode(p)) for p in task.prompts}
    check_lengths(policy, task.prompts, [list(ids) for ids in encoded.values()], config.sampling.max_new_tokens)
    k = config.anchor.presamples
    requests = [Request(i, draw, ids) for i, ids in encoded.items() for draw in range(k)]
    draws, speed = draw_missing(requests, sampler, task, Shards(run.presample, "completions"), progress, "pre-sample")
    ids = tuple(encoded)
    if config.anchor.debias:
        before = split(ids, draws, threshold=config.anchor.threshold, presamples=k)
        more = [Request(i, k, encoded[i]) for i in before.near_perfect]
        extra, _ = draw_missing(more, sampler, task, Shards(run.presample, "debias"), progress, "debias")
        draws = draws + extra
    selection = select(
        ids,
        draws,
        threshold=config.anchor.threshold,
        presamples=k,
        debias=config.anchor.debias,
        failed_debias=config.anchor.failed_debias,
    )
    _write_partition(run, config, selection, draws, {"seconds": speed.seconds, "tokens": speed.tokens})
    require_near_perfect(selection.partition, threshold=config.anchor.threshold, presamples=k)
    _score_anchors(run, config, policy, selection, encoded, progress)
    return run


def read_partition(run: RunDir) -> dict[str, Any]:
    """partition.json of a run.

    Raises:
        RunDirError: it has not been pre-sampled.
    """
    if not run.partition.exists():
        raise RunDirError(f"{run.root} holds no partition; run `dphrl presample` with this config first")
    content: dict[str, Any] = json.loads(run.partition.read_text(encoding="utf-8"))
    return content


def _sampler(policy: Policy, config: Config) -> Any:
    from dphrl.sampling.transformers import TransformersSampler

    return TransformersSampler(policy, config.sampling, config.seed)


def _write_partition(
    run: RunDir, config: Config, selection: Selection, draws: list[Completion], speed: dict[str, float]
) -> None:
    k = config.anchor.presamples
    counts = count([c for c in draws if c.draw < k], n=k)
    partition = selection.partition
    write_json(
        run.partition,
        {
            "near_perfect": partition.near_perfect,
            "exploration": partition.exploration,
            "dropped": dict(partition.dropped),
            "threshold": config.anchor.threshold,
            "presamples": k,
            "debias": config.anchor.debias,
            "counts": {i: {"successes": c.successes, "judged": c.judged} for i, c in counts.items()},
            "statuses": statuses(draws),
            **speed,
        },
    )


def _score_anchors(
    run: RunDir,
    config: Config,
    policy: Policy,
    selection: Selection,
    encoded: dict[str, tuple[int, ...]],
    progress: Progress,
) -> None:
    """One forward through the training stack gives the reference log-probabilities."""
    chosen = selection.anchors
    progress("score anchors", 0, len(chosen))
    logps = score(
        policy.model,
        [encoded[i] for i in chosen],
        [c.token_ids for c in chosen.values()],
        pad_id=policy.tokenizer.pad_token_id,
        temperature=config.sampling.temperature,
        batch_size=config.anchor.batch_size,
        on_progress=lambda done: progress("score anchors", done, len(chosen)),
    )
    anchors = [
        Anchor(i, encoded[i], c.token_ids, ref_logps) for (i, c), ref_logps in zip(chosen.items(), logps, strict=True)
    ]
    sampling = {"temperature": config.sampling.temperature, "top_p": config.sampling.top_p, "seed": config.seed}
    write_anchors(run.anchors, anchors, fingerprint(policy, config), sampling)


def training_ids(config: Config, task: Task, base: RunDir) -> tuple[str, ...]:
    """Ids of the prompts that are trained on: all that were not dropped, or the exploration set alone.

    Raises:
        RunDirError: the exploration set is wanted and the task was not pre-sampled, or other prompts were.
    """
    wanted = config.train.prompts
    if wanted == "auto":
        wanted = "exploration" if config.method in ("dph", "replay") else "all"
    ids = tuple(p.id for p in task.prompts)
    if wanted == "all" and not base.partition.exists():
        return ids
    partition = read_partition(base)
    known = {*partition["near_perfect"], *partition["exploration"], *partition["dropped"]}
    if known != set(ids):
        raise RunDirError(
            f"{base.partition} partitions {len(known)} prompts, the task has {len(ids)} "
            f"({len(known ^ set(ids))} ids differ); run `dphrl presample` for this task in another --out"
        )
    allowed = set(partition["exploration"]) if wanted == "exploration" else known - set(partition["dropped"])
    return tuple(i for i in ids if i in allowed)
