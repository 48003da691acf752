"""Stage 1: draw from the initial policy until every prompt is settled, partition, score the anchors, store them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from dphrl.anchors import is_sealed
from dphrl.anchors.manifest import Made
from dphrl.config.load import to_dict
from dphrl.config.root import Config
from dphrl.engines.trl import missing_packages
from dphrl.engines.trl.config_to_trl import check_options_of_trl
from dphrl.files import write_json
from dphrl.method.partition import require_anchors, select
from dphrl.models.fingerprint import fingerprint
from dphrl.models.policy import Policy, load_policy
from dphrl.progress import Progress, silent
from dphrl.runs.draw_and_store import Speed
from dphrl.runs.lock import disk_errors, exclusive, sweep
from dphrl.runs.run_dir import RunDir, changed_settings, installed_versions, open_run
from dphrl.runs.samples import SampleFiles
from dphrl.sampling.backends import make_sampler
from dphrl.sampling.encoded_prompts import EncodedPrompts, encode_prompts, pick_prompts, task_for_policy
from dphrl.stages.model_check import check_before_drawing
from dphrl.stages.presample.draw_origin import claim_draws, keep_set_origin, task_origin
from dphrl.stages.presample.make_anchors import choose_draws, discard_store, store_anchors
from dphrl.stages.presample.make_partition import make_partition, rules_of
from dphrl.stages.presample.partition_file import read_partition, write_partition
from dphrl.stages.presample.prompt_share import PromptShare, check_share, prompts_of_share, write_share
from dphrl.stages.presample.training_prompts import check_filter, partition_settings
from dphrl.stages.presample.waves import Presamples, draw_in_waves
from dphrl.verifiers.workers.pool import spent_so_far

TASK = "task"
"""What the anchors of `config.task` are called; keep sets have their own names."""


def presample(
    config: Config, *, base_dir: Path = Path(), progress: Progress = silent, shard: PromptShare | None = None
) -> RunDir:
    """Make RUN/presample and RUN/anchors. Draws made before are kept, whatever sets and anchors come of them.

    Args:
        base_dir: folder of the config file, to which its relative paths refer.
        shard: draw for this share of the prompts only, and leave sets and anchors to `dphrl merge`.
    Returns:
        The run: `read_partition(run)` gives its sets, `open_store(run.anchors, None)` its anchors.
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
    if not missing_packages():
        check_options_of_trl(config)  # training would refuse them after the draws
    with exclusive(run.root), disk_errors(run.root):
        sweep(run.presample)
        policy = load_policy(config)
        prompts = load_all_prompts(config, policy, base_dir, progress)
        policy_fingerprint = fingerprint(policy, config)
        claim_draws(run.draws(TASK), task_origin(policy_fingerprint, prompts[0]), "give another --out")
        for keep, chosen in zip(config.anchor.also, prompts[1:], strict=True):
            remedy = "give another --out, or the keep set another `name`"
            claim_draws(run.draws(keep.label), keep_set_origin(keep.task, chosen), remedy)
        if shard is not None:
            write_share(run, shard, base_dir)
        if config.sampling.backend == "transformers":  # an engine of its own leaves no memory for the weights
            check_before_drawing(config, policy)
        presamples = _draw(run, config, policy, [prompts_of_share(p, shard) for p in prompts], progress)
        if shard is None:
            make_sets_and_anchors(run, config, policy, presamples, policy_fingerprint, progress)
    return run


def is_done(run: RunDir, config: Config) -> bool:
    """Whether partition and anchors are complete and were made with these settings."""
    if not run.partition.exists() or not is_sealed(run.anchors):
        return False
    settings = partition_settings(config)
    return not changed_settings(read_partition(run).settings, settings, settings)


def load_all_prompts(config: Config, policy: Policy, base_dir: Path, progress: Progress) -> list[EncodedPrompts]:
    """The prompts of the task and of each keep set, those chosen from it.

    Raises:
        DphrlError: a task that cannot be loaded, or of which no prompt fits.
    """
    loaded = [encode_prompts(task_for_policy(TASK, config.task, policy, base_dir=base_dir), policy, config, progress)]
    for keep in config.anchor.also:
        task = task_for_policy(keep.label, keep.task, policy, base_dir=base_dir)
        loaded.append(encode_prompts(pick_prompts(task, keep.prompts, config.seed), policy, config, progress))
    return loaded


def make_sets_and_anchors(
    run: RunDir,
    config: Config,
    policy: Policy,
    presamples: Sequence[Presamples],
    policy_fingerprint: Mapping[str, str],
    progress: Progress,
) -> None:
    """Sets and anchors from the draws; partition.json is written last, so a run that has it is complete.

    Args:
        presamples: of the task, then of each keep set.
    Raises:
        EmptyAnchorStore: the task or a keep set gives no anchor; the partition is written then, and no store.
    """
    rules = rules_of(config.anchor)
    selections = [
        select(tuple(one.prompts.encoded), (c for draws in one.outcomes.values() for c in draws.values()), rules)
        for one in presamples
    ]
    partition = make_partition(config, presamples, selections, progress)
    for one, selection in zip(presamples, selections, strict=True):
        if not selection.candidates:
            discard_store(run)
            write_partition(run, partition)
            name = one.prompts.task.name
            require_anchors(selection, rules, "" if name == TASK else f"keep set {name!r}: ")
    chosen = [choose_draws(p, s, rules.per_prompt) for p, s in zip(presamples, selections, strict=True)]
    store_anchors(run, config, policy, chosen, policy_fingerprint, _made(config), progress)
    write_partition(run, partition)


def _draw(
    run: RunDir, config: Config, policy: Policy, prompts: Sequence[EncodedPrompts], progress: Progress
) -> list[Presamples]:
    """All draws of all tasks; the sampler's memory is given back before the anchors are scored."""
    rules, speed, spent = rules_of(config.anchor), Speed(), spent_so_far()
    presamples = []
    with closing(make_sampler(config, policy)) as sampler:
        for one in prompts:
            name = one.task.name
            files = SampleFiles(run.draws(name))
            label = "pre-sample" if name == TASK else f"pre-sample {name}"
            outcomes, cost = draw_in_waves(one, rules, sampler, files, progress, label)
            presamples.append(Presamples(one, outcomes, files))
            speed += cost
    if speed.tokens:
        share = (spent_so_far() - spent).timeout_share
        if share:
            progress("judging", speed.tokens, speed.tokens, f"{100 * share:.0f} % of the verifier's time on timeouts")
        numbers = {"seconds": round(speed.seconds, 3), "tokens": speed.tokens, "timeout_share": round(share, 4)}
        write_json(run.presample / "speed.json", numbers)
    return presamples


def _made(config: Config) -> Made:
    """How the anchors are made, for the manifest of their store: what they depend on beside the policy."""
    values = to_dict(config)
    sampling = {k: values["sampling"][k] for k in ("backend", "temperature", "top_p", "max_new_tokens", "stop_tokens")}
    return {
        "seed": config.seed,
        "sampling": sampling,
        "task": values["task"],
        "anchor": partition_settings(config)["anchor"],
        "dphrl": installed_versions()["dphrl"],
    }
