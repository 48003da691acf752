"""`dphrl merge`: the draws of all shares in one run, then sets and anchors as one run would have made them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dphrl.config.load import to_dict
from dphrl.config.root import Config
from dphrl.errors import RunDirError
from dphrl.files import replaced_dir
from dphrl.method.verdict_counts import by_draw
from dphrl.models.fingerprint import fingerprint
from dphrl.models.policy import load_policy
from dphrl.progress import Progress, silent
from dphrl.runs.lock import disk_errors, exclusive, sweep
from dphrl.runs.run_dir import RunDir, Sections, changed_settings, open_run, read_run
from dphrl.runs.samples import HEAVY, SampleFiles
from dphrl.sampling.encoded_prompts import EncodedPrompts
from dphrl.stages.presample.draw_origin import ORIGIN, differing_origin, task_origin
from dphrl.stages.presample.make_partition import rules_of
from dphrl.stages.presample.presample import TASK, is_done, load_all_prompts, make_sets_and_anchors
from dphrl.stages.presample.prompt_share import PromptShare, prompts_of_share, read_share
from dphrl.stages.presample.waves import Outcomes, Presamples, require_complete


@dataclass(frozen=True, slots=True)
class _Part:
    """One share that was drawn."""

    run: RunDir
    config: Config
    shard: PromptShare
    base_dir: Path


def merge_shares(
    folders: Sequence[Path], out: Path, *, base_dir: Path | None = None, progress: Progress = silent
) -> RunDir:
    """Join the runs of `dphrl presample --shard i/N`.

    Args:
        folders: a run for each share, in any order.
        out: the new run; its anchors and partition are those of a run that drew everything.
        base_dir: folder that relative paths of the config refer to; None = as the shares had it.
    Raises:
        RunDirError: a share is missing, doubled, incomplete, of another config or policy; `out` holds presamples of
            others. Those of these shares are what an earlier merge left, and it goes on.
        DphrlError: as `presample`.
    """
    parts = _parts(folders)
    config = replace(parts[0].config, out=str(out))
    policy = load_policy(config)
    policy_fingerprint = fingerprint(policy, config)
    prompts = load_all_prompts(config, policy, base_dir or parts[0].base_dir, progress)
    _check_origins(parts, task_origin(policy_fingerprint, prompts[0]))
    outcomes = [_gathered(parts, one, config) for one in prompts]
    run = open_run(config)
    with exclusive(run.root), disk_errors(run.root):
        sweep(run.root)
        if run.presample.exists():
            _check_same(run, prompts, outcomes)
        else:
            _copy(parts, run, [one.task.name for one in prompts])
        if is_done(run, config):
            return run
        presamples = [
            Presamples(one, drawn, SampleFiles(run.draws(one.task.name)))
            for one, drawn in zip(prompts, outcomes, strict=True)
        ]
        make_sets_and_anchors(run, config, policy, presamples, policy_fingerprint, progress)
    return run


def _parts(folders: Sequence[Path]) -> list[_Part]:
    """The shares in order, each once, all of one config."""
    parts = []
    for folder in folders:
        run, config = read_run(folder)
        stored = read_share(run)
        if stored is None:
            raise RunDirError(f"{folder} holds no share of the prompts; make it with `dphrl presample --shard i/N`")
        parts.append(_Part(run, config, *stored))
    if not parts:
        raise RunDirError("no run to merge; name the runs of `dphrl presample --shard i/N`")
    parts.sort(key=lambda part: part.shard.index)
    of = sorted({part.shard.of for part in parts})
    if len(of) > 1:
        raise RunDirError(f"the runs are shares of different divisions, by {' and by '.join(map(str, of))}")
    indices = [part.shard.index for part in parts]
    missing = [f"{i}/{of[0]}" for i in range(1, of[0] + 1) if i not in indices]
    twice = [str(part.run.root) for part in parts if indices.count(part.shard.index) > 1]
    if missing or twice:
        what = f"share {', '.join(missing)} is missing" if missing else f"{' and '.join(twice)} hold the same share"
        raise RunDirError(f"{what}; every share must be given once")
    for part in parts[1:]:
        changed = changed_settings(to_dict(parts[0].config), to_dict(part.config), to_dict(part.config))
        if changed:
            raise RunDirError(f"{part.run.root} is of another config than {parts[0].run.root}:\n" + "\n".join(changed))
    return parts


def _check_origins(parts: Sequence[_Part], origin: Sections) -> None:
    """All shares were drawn by the policy that is to score them, for these prompts."""
    for part in parts:
        changed = differing_origin(part.run.draws(TASK), origin)
        if changed:
            raise RunDirError(
                f"{part.run.root} was drawn by another policy, or for other prompts, than here:\n" + "\n".join(changed)
            )


def _gathered(parts: Sequence[_Part], prompts: EncodedPrompts, config: Config) -> Outcomes:
    """The draws of all shares of one task: none missing, none twice."""
    rules = rules_of(config.anchor)
    owner: dict[str, Path] = {}
    gathered: Outcomes = {}
    for part in parts:
        root, own = part.run.root, prompts_of_share(prompts, part.shard)
        stored = by_draw(SampleFiles(part.run.draws(prompts.task.name)).read(without=HEAVY))
        foreign = next((i for i in stored if i not in own.encoded), None)
        if foreign is not None:
            whose = f", which {owner[foreign]} holds" if foreign in owner else ""
            raise RunDirError(f"{root} holds draws of prompt {foreign!r}{whose}: not in its share {part.shard}")
        outcomes = {i: stored.get(i, {}) for i in own.encoded}
        require_complete(outcomes, rules, str(root), f"finish it with `dphrl presample --shard {part.shard}`")
        owner |= dict.fromkeys(outcomes, root)
        gathered |= outcomes
    return {i: gathered[i] for i in prompts.encoded}


def _check_same(run: RunDir, prompts: Sequence[EncodedPrompts], outcomes: Sequence[Outcomes]) -> None:
    """The presamples that are there already are those of the shares."""
    for one, drawn in zip(prompts, outcomes, strict=True):
        stored = by_draw(SampleFiles(run.draws(one.task.name)).read(without=HEAVY))
        if stored != {i: draws for i, draws in drawn.items() if draws}:
            raise RunDirError(f"{run.root} holds presamples already, others than these shares; give another --out")


def _copy(parts: Sequence[_Part], run: RunDir, names: Sequence[str]) -> None:
    """The files of all shares, renumbered, whole or not at all."""
    with replaced_dir(run.presample) as staging:
        for name in names:
            target = SampleFiles(staging / run.draws(name).relative_to(run.presample))
            target.folder.mkdir(exist_ok=True)
            shutil.copy(parts[0].run.draws(name) / ORIGIN, target.folder)
            for part in parts:
                for path in SampleFiles(part.run.draws(name)).paths():
                    shutil.copy(path, target.next())
