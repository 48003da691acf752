"""`dphrl merge`: the draws of all shares in one run, then sets and anchors as one run would have made them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dphrl.config.load import to_dict
from dphrl.config.root import Config
from dphrl.errors import RunDirError
from dphrl.files import read_json, replaced_dir
from dphrl.models.policy import fingerprint, load_policy
from dphrl.progress import Progress, silent
from dphrl.runs.lock import disk_errors, exclusive
from dphrl.runs.run_dir import RunDir, changed_settings, open_run, read_run
from dphrl.runs.samples import HEAVY, SampleFiles
from dphrl.sampling.encoded_prompts import EncodedPrompts
from dphrl.stages.presample.keep_sets import rules_of
from dphrl.stages.presample.presample import ORIGIN, TASK, Drawn, finish, load_all, origin
from dphrl.stages.presample.prompt_share import PromptShare, prompts_of_share, read_share
from dphrl.stages.presample.waves import Outcomes, require_complete, stored_outcomes


@dataclass(frozen=True, slots=True)
class _Part:
    """One share that was drawn."""

    run: RunDir
    config: Config
    shard: PromptShare
    base_dir: Path


def merge(folders: Sequence[Path], out: Path, *, base_dir: Path | None = None, progress: Progress = silent) -> RunDir:
    """Join the runs of `dphrl presample --shard i/N`.

    Args:
        folders: a run for each share, in any order.
        out: the new run; its anchors and partition are those of a run that drew everything.
        base_dir: folder that relative paths of the config refer to; None = as the shares had it.
    Raises:
        RunDirError: a share is missing, doubled, incomplete, of another config or policy; `out` holds presamples.
        DphrlError: as `presample`.
    """
    parts = _parts(folders)
    config = replace(parts[0].config, out=str(out))
    if RunDir(out).presample.exists():
        raise RunDirError(
            f"{out} holds presamples already; give another --out, or go on with `dphrl presample` in it if a merge "
            "was interrupted there"
        )
    base_dir = base_dir or parts[0].base_dir
    policy = load_policy(config)
    print_of = fingerprint(policy, config)
    prompts = load_all(config, policy, base_dir, progress)
    _check_origins(parts, origin(print_of, prompts[0]))
    found = [_gathered(parts, some, config) for some in prompts]
    run = open_run(config)
    with exclusive(run.root), disk_errors(run.root):
        _copy(parts, run, [some.task.name for some in prompts])
        drawn = [Drawn(p, f, SampleFiles(run.draws(p.task.name))) for p, f in zip(prompts, found, strict=True)]
        finish(run, config, policy, drawn, print_of, progress)
    return run


def _parts(folders: Sequence[Path]) -> list[_Part]:
    """The shares in order, each once, all of one config."""
    parts = []
    for folder in folders:
        run, config = read_run(folder)
        there = read_share(run)
        if there is None:
            raise RunDirError(f"{folder} holds no share of the prompts; make it with `dphrl presample --shard i/N`")
        parts.append(_Part(run, config, *there))
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


def _check_origins(parts: Sequence[_Part], ours: Mapping[str, Any]) -> None:
    """All shares were drawn by the policy that is to score them, for these prompts."""
    for part in parts:
        theirs = read_json(part.run.draws(TASK) / ORIGIN)
        changed = changed_settings(theirs, ours, ours)
        if changed:
            raise RunDirError(
                f"{part.run.root} was drawn by another policy, or for other prompts, than here:\n" + "\n".join(changed)
            )


def _gathered(parts: Sequence[_Part], prompts: EncodedPrompts, config: Config) -> Outcomes:
    """The draws of all shares of one task: none missing, none twice."""
    rules = rules_of(config.anchor)
    owner: dict[str, Path] = {}
    found: Outcomes = {}
    for part in parts:
        shards = SampleFiles(part.run.draws(prompts.task.name))
        mine = prompts_of_share(prompts, part.shard)
        foreign = [c.prompt_id for c in shards.read(without=HEAVY) if c.prompt_id not in mine.encoded]
        if foreign:
            whose = f", which {owner[foreign[0]]} holds" if foreign[0] in owner else ""
            raise RunDirError(
                f"{part.run.root} holds draws of prompt {foreign[0]!r}{whose}: not in its share {part.shard}"
            )
        drawn = stored_outcomes(mine, shards)
        remedy = f"finish it with `dphrl presample --shard {part.shard}`"
        require_complete(drawn, rules, str(part.run.root), remedy)
        owner |= dict.fromkeys(drawn, part.run.root)
        found |= drawn
    return {i: found[i] for i in prompts.encoded}


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
