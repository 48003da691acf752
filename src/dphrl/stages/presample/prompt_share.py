"""A run that holds one share of the prompts: `dphrl presample --shard 2/8`; `dphrl merge` joins the shares."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from dphrl.errors import ConfigError, RunDirError
from dphrl.files import checked, damage_refused, read_json, write_json
from dphrl.runs.run_dir import RunDir
from dphrl.sampling.encoded_prompts import EncodedPrompts


@dataclass(frozen=True, slots=True)
class PromptShare:
    """One share of the prompts."""

    index: int
    """1 .. of."""
    of: int

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


def parse_share(text: str) -> PromptShare:
    """'2/8' -> the second of eight shares.

    Raises:
        ConfigError: not of this form, or out of range.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(
            f"--shard {text!r} must be i/N with 1 <= i <= N, e.g. --shard 1/4 on the first of four machines"
        )
    return PromptShare(int(match[1]), int(match[2]))


def prompts_of_share(prompts: EncodedPrompts, shard: PromptShare | None) -> EncodedPrompts:
    """The prompts of a share: every N-th, so that all shares have about the same work; the same everywhere."""
    if shard is None:
        return prompts
    own = prompts.task.prompts[shard.index - 1 :: shard.of]
    ids = {p.id for p in own}
    return EncodedPrompts(
        replace(prompts.task, prompts=own),
        {i: tokens for i, tokens in prompts.encoded.items() if i in ids},
        {i: why for i, why in prompts.dropped.items() if i in ids},
    )


def check_share(run: RunDir, shard: PromptShare | None) -> None:
    """A share's run takes no other prompts, and a whole run becomes no share.

    Raises:
        RunDirError: the run holds something else.
    """
    stored = read_share(run)
    if stored is None and shard is not None and any(run.presample.rglob("*.parquet")):  # no draw, no claim
        raise RunDirError(f"{run.root} holds presamples of all prompts; give --shard {shard} another --out")
    if stored is not None and stored[0] != shard:
        raise RunDirError(
            f"{run.root} holds share {stored[0]} of the prompts; go on with --shard {stored[0]}, or join all shares "
            f"with `dphrl merge SHARD_RUN... --out RUN`"
        )


def write_share(run: RunDir, shard: PromptShare, base_dir: Path) -> None:
    """Mark the run as a share, with the folder that relative paths of its config refer to."""
    write_json(run.shard, {"index": shard.index, "of": shard.of, "base_dir": str(base_dir.absolute())})


def read_share(run: RunDir) -> tuple[PromptShare, Path] | None:
    """Which share a run holds and where its config lay; None for a run of all prompts."""
    if not run.shard.exists():
        return None
    with damage_refused(run.shard, "delete the run, or take shard.json from a copy of it"):
        content = read_json(run.shard)
        return checked(PromptShare(content["index"], content["of"])), Path(content["base_dir"])
