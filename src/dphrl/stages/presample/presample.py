"""Stage 1: draw from the initial policy until every prompt is settled, partition, score the anchors, store them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dphrl.anchors import is_sealed
from dphrl.config.load import to_dict
from dphrl.config.root import Config
from dphrl.errors import RunDirError
from dphrl.files import read_json, write_json
from dphrl.method.difficulty import mean_reward
from dphrl.method.partition import Selection, require_anchors, select
from dphrl.models.policy import Policy, fingerprint, load_policy, versions
from dphrl.progress import Progress, silent
from dphrl.runs.drawing import Speed
from dphrl.runs.lock import disk_errors, exclusive, sweep
from dphrl.runs.run_dir import RunDir, changed_settings, open_run
from dphrl.runs.samples import SampleFiles
from dphrl.sampling.backends import make_sampler
from dphrl.sampling.encoded_prompts import EncodedPrompts, encode_prompts, pick_ids, task_for_policy
from dphrl.stages.presample.keep_sets import check_filter, filtered, made_with, partition_content, rules_of, trained_on
from dphrl.stages.presample.make_anchors import choose, discard, store_anchors
from dphrl.stages.presample.prompt_share import PromptShare, check_share, prompts_of_share, write_share
from dphrl.stages.presample.waves import Outcomes, draw_in_waves
from dphrl.types import Completion

TASK = "task"
"""What the anchors of `config.task` are called; keep sets have their own names."""
ORIGIN = "drawn.json"
"""Beside the draws of a task: whose they are."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The presamples of one task, all there."""

    prompts: EncodedPrompts
    found: Outcomes
    shards: SampleFiles


def presample(
    config: Config, *, base_dir: Path, progress: Progress = silent, shard: PromptShare | None = None
) -> RunDir:
    """Make RUN/presample and RUN/anchors; draws that are there already are kept, whatever set and anchors come of them.

    Args:
        base_dir: folder of the config file.
        shard: draw for this share of the prompts only, and leave sets and anchors to `dphrl merge`.
    Raises:
        EmptyAnchorStore: no anchor (the partition is written all the same).
        RunDirError: the run is another process's, another share's, or cannot be written.
        KeyboardInterrupt: what was drawn and verified is stored.
        DphrlError: bad input, see the parts.
    """
    check_filter(config)
    run = open_run(config)
    check_share(run, shard)
    if is_done(run, config):
        return run
    with exclusive(run.root), disk_errors(run.root):
        sweep(run.presample)
        policy = load_policy(config)
        prompts = load_all(config, policy, base_dir, progress)
        mine = [prompts_of_share(p, shard) for p in prompts]
        print_of = fingerprint(policy, config)
        claim(run, config, origin(print_of, prompts[0]))
        if shard is not None:
            write_share(run, shard, base_dir)
        drawn = _draw(run, config, policy, mine, progress)
        if shard is None:
            finish(run, config, policy, drawn, print_of, progress)
    return run


def is_done(run: RunDir, config: Config) -> bool:
    """Whether partition and anchors are there and were made with these settings."""
    if not run.partition.exists() or not is_sealed(run.anchors):
        return False
    return not changed_settings(read_json(run.partition).get("settings", {}), made_with(config), made_with(config))


def load_all(config: Config, policy: Policy, base_dir: Path, progress: Progress) -> list[EncodedPrompts]:
    """The prompts of the task and of each keep set, those chosen from it.

    Raises:
        DphrlError: a task that cannot be loaded, or of which no prompt fits.
    """
    loaded = [encode_prompts(task_for_policy(TASK, config.task, policy, base_dir=base_dir), policy, config, progress)]
    for keep in config.anchor.also:
        task = task_for_policy(keep.label, keep.task, policy, base_dir=base_dir)
        some = pick_ids((p.id for p in task.prompts), keep.prompts, config.seed)
        task = replace(task, prompts=tuple(p for p in task.prompts if p.id in some))
        loaded.append(encode_prompts(task, policy, config, progress))
    return loaded


def origin(print_of: Mapping[str, str], prompts: EncodedPrompts) -> dict[str, Any]:
    """Whose the draws of the task are: the policy that makes them, and the prompts as it reads them."""
    digest = hashlib.sha256()
    for prompt_id, ids in prompts.encoded.items():
        digest.update(json.dumps([prompt_id, ids]).encode())
    return {"fingerprint": dict(print_of), "prompts": digest.hexdigest()[:32]}


def claim(run: RunDir, config: Config, of_task: dict[str, Any]) -> None:
    """Say whose draws these are before the first is stored, and refuse to add to others.

    Raises:
        RunDirError: the draws there are of other weights or prompt texts, or of another keep set of the same name.
    """
    origins = {TASK: of_task}
    origins |= {keep.label: {"task": asdict(keep.task)} for keep in config.anchor.also}
    for label, content in origins.items():
        path = run.draws(label) / ORIGIN
        if not path.exists():
            write_json(path, content)
        changed = changed_settings(read_json(path), content, content)
        if changed:
            remedy = "give another --out" if label == TASK else "give another --out, or the keep set another `name`"
            raise RunDirError(f"{path.parent} holds draws of another origin:\n" + "\n".join(changed) + f"\n{remedy}")


def _draw(
    run: RunDir, config: Config, policy: Policy, prompts: Sequence[EncodedPrompts], progress: Progress
) -> list[Drawn]:
    """All draws of all tasks; the sampler's memory is given back before the anchors are scored."""
    rules, speed = rules_of(config.anchor), Speed()
    drawn = []
    with closing(make_sampler(config, policy)) as sampler:
        for some in prompts:
            name = some.task.name
            shards = SampleFiles(run.draws(name))
            label = "pre-sample" if name == TASK else f"pre-sample {name}"
            found, cost = draw_in_waves(some, rules, sampler, shards, progress, label)
            drawn.append(Drawn(some, found, shards))
            speed += cost
    if speed.tokens:
        write_json(run.presample / "speed.json", {"seconds": round(speed.seconds, 3), "tokens": speed.tokens})
    return drawn


def finish(
    run: RunDir, config: Config, policy: Policy, drawn: Sequence[Drawn], print_of: Mapping[str, str], progress: Progress
) -> None:
    """Sets and anchors from the draws; partition.json is written last, so it says that all is there.

    Raises:
        EmptyAnchorStore: the task or a keep set gives no anchor; the partition is written then, and no store.
    """
    rules = rules_of(config.anchor)
    selections = [select(tuple(d.prompts.encoded), _flat(d.found), rules) for d in drawn]
    content = _content(config, drawn, selections, progress)
    for some, selection in zip(drawn, selections, strict=True):
        if not selection.candidates:
            discard(run)
            write_json(run.partition, content)
            name = some.prompts.task.name
            require_anchors(selection, rules, "" if name == TASK else f"keep set {name!r}: ")
    picked = [choose(d.prompts, s, d.shards, rules.per_prompt) for d, s in zip(drawn, selections, strict=True)]
    store_anchors(run, config, policy, picked, print_of, made_as(config), progress)
    write_json(run.partition, content)


def made_as(config: Config) -> dict[str, Any]:
    """How the anchors are made, for the manifest of their store: what they depend on beside the policy."""
    values = to_dict(config)
    sampling = {k: values["sampling"][k] for k in ("backend", "temperature", "top_p", "max_new_tokens", "stop_tokens")}
    return {
        "seed": config.seed,
        "sampling": sampling,
        "task": values["task"],
        "anchor": made_with(config)["anchor"],
        "dphrl": versions()["dphrl"],
    }


def _content(
    config: Config, drawn: Sequence[Drawn], selections: Sequence[Selection], progress: Progress
) -> dict[str, Any]:
    """All of partition.json: the task's own sets at the top, those of the keep sets under `also`."""
    rules = rules_of(config.anchor)
    parts = [partition_content(d.prompts, s, d.found, rules) for d, s in zip(drawn, selections, strict=True)]
    content = {
        **parts[0],
        "threshold": rules.threshold,
        "presamples": rules.presamples,
        "debias": rules.debias,
        "also": {d.prompts.task.name: part for d, part in list(zip(drawn, parts, strict=True))[1:]},
        "settings": made_with(config),
    }
    band = config.train.exploration_filter
    if band is not None:
        ids = trained_on(config, content)
        kept, line = filtered(content, ids, band)
        content["filter"] = {"band": band, "kept": len(kept), "of": len(ids)}
        content["reward"]["unfiltered"] = mean_reward(content["counts"], ids)
        content["reward"]["filtered"] = mean_reward(content["counts"], kept)
        progress("filter prompts", len(ids), len(ids), line)
    return content


def _flat(found: Outcomes) -> Iterator[Completion]:
    return (c for mine in found.values() for c in mine.values())
