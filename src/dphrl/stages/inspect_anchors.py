"""`dphrl anchors`: look at a store, check every byte of it, join several, or write it as a plain `datasets` folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from dphrl.anchors.arrow_files import CHECKSUM, list_lengths
from dphrl.anchors.manifest import Manifest, check_file, read_manifest
from dphrl.anchors.store import AnchorStore, open_store
from dphrl.anchors.writer import doubled_keys, joined_table, merge_stores
from dphrl.config.sources import ModelConfig
from dphrl.errors import AnchorError
from dphrl.files import replaced_dir
from dphrl.runs.lock import disk_errors
from dphrl.runs.run_dir import RunDir
from dphrl.stages.presample.partition_file import read_partition
from dphrl.types import Anchor

BINS = 10
"""Bars of the histogram of lengths (count)."""

BAR = 40
"""Longest bar (characters)."""

TOKENS_SHOWN = 24
"""Tokens of an anchor that are listed where no tokenizer can decode them (count)."""


def inspect_store(folder: Path, *, model: str | None = None, show: int = 3) -> str:
    """What a store holds, in words: status, counts, lengths, how it was made, and a few of its anchors.

    Args:
        folder: a store; one that is not sealed is described by its manifest alone.
        model: folder or name whose tokenizer decodes the anchors; token ids are shown without it.
        show: anchors shown, spread evenly over the store (count, >= 0).
    Raises:
        AnchorError: no store, a damaged one, a negative `show`, or token ids that the tokenizer does not have.
        ModelError: the tokenizer cannot be loaded.
    """
    from dphrl.models.policy import load_tokenizer, quiet_libraries

    if show < 0:
        raise AnchorError(f"--show {show} must be 0 or more; 0 shows no anchor")
    manifest = read_manifest(folder)
    lines = [*_facts(folder, manifest), *_statuses(folder)]
    if not manifest.sealed:
        return "\n".join([*lines, "not sealed: run `dphrl presample` again with the same config to finish it"])
    store = open_store(folder, None)
    tasks = pc.value_counts(joined_table(store.files)["task"]).to_pylist()
    lines += ["tasks: " + ", ".join(f"{task['values']} {task['counts']}" for task in tasks), *_histogram(store)]
    tokenizer = None
    if model:
        quiet_libraries()
        tokenizer = load_tokenizer(ModelConfig(path=model))
    for place in np.unique(np.linspace(0, len(store) - 1, show).astype(int)) if show else ():
        lines += ["", *_rendered(int(place), store[int(place)], tokenizer, model)]
    return "\n".join(lines)


def verify_store(folder: Path) -> str:
    """Compare the SHA-256 of every file, the lengths index with the anchors, and look for doubled anchors.

    Returns:
        One line that says what was found right.
    Raises:
        AnchorError: anything is wrong; every damaged file is named.
    """
    wrong = []
    for file in read_manifest(folder).files:
        try:
            check_file(folder, file, checksum=True)
        except AnchorError as error:
            wrong.append(str(error))
    if wrong:
        raise AnchorError("\n".join(wrong))
    store = open_store(folder, None)
    if not np.array_equal(list_lengths(joined_table(store.files), "completion_ids"), store.lengths):
        raise AnchorError(f"the lengths index of {folder} is not of its anchors; delete {folder} and pre-sample again")
    if twice := doubled_keys(store.files):
        raise AnchorError(f"{folder} holds anchors twice: {twice[:3]}; delete it and run `dphrl presample` again")
    return f"{folder}: {len(store)} anchors in {len(store.files)} shards, every checksum is right, no anchor twice"


def join_stores(folders: Sequence[Path], out: Path) -> str:
    """Join stores of one policy that were made in one way into OUT; see `anchors.merge_stores`."""
    with disk_errors(out):
        store = merge_stores(folders, out)
    return f"{out}: {len(store)} anchors of {len(folders)} stores"


def export_store(folder: Path, out: Path) -> str:
    """Write a store as a folder that `datasets.load_from_disk` reads; its checksums are compared first.

    Raises:
        AnchorError: a store that cannot be opened or is damaged, or `out` is there already.
        RunDirError: the disk is full.
    """
    from datasets import Dataset, disable_progress_bars

    if out.exists():
        raise AnchorError(f"{out} is there already; give another --out")
    store = open_store(folder, None, check="full")
    disable_progress_bars()  # they would write over what we print
    with disk_errors(out), replaced_dir(out) as staging:
        Dataset(joined_table(store.files).drop_columns(CHECKSUM)).save_to_disk(staging)
    return f"{out}: {len(store)} anchors; datasets.load_from_disk({str(out)!r}) reads them"


def _facts(folder: Path, manifest: Manifest) -> list[str]:
    size = sum(file.bytes for file in manifest.shards) / 1e6
    mean = manifest.tokens / max(manifest.anchors, 1)
    prompt_tokens = sum(file.prompt_tokens for file in manifest.shards)
    return [
        f"{folder}: {manifest.status}, {manifest.anchors} anchors in {len(manifest.shards)} shards, {size:.1f} MB",
        f"tokens: {manifest.tokens} of completions (mean {mean:.1f}), {prompt_tokens} of prompts",
        f"top-K log-probabilities: {f'{manifest.topk} a position' if manifest.topk else 'not stored'}",
        "policy: " + ", ".join(f"{k} {v}" for k, v in manifest.fingerprint.items()),
        "made with:" + ("" if manifest.made else " nothing recorded"),
        *(f"  {name}: {value}" for name, value in manifest.made.items()),
    ]


def _statuses(folder: Path) -> list[str]:
    """What the verifier said of the draws, where the store lies in a run directory."""
    run = RunDir(folder.parent)
    counts = read_partition(run).statuses if run.partition.exists() else {}
    return ["draws: " + ", ".join(f"{name} {count}" for name, count in counts.items())] if counts else []


def _histogram(store: AnchorStore) -> list[str]:
    low, middle, high, longest = np.percentile(store.lengths, [0, 50, 90, 100], method="nearest")
    edges = np.unique(np.linspace(low, longest + 1, BINS + 1).astype(int))
    counts, _ = np.histogram(store.lengths, bins=edges)
    lines = [f"completion tokens: shortest {low}, median {middle}, 90 % up to {high}, longest {longest}"]
    for first, last, count in zip(edges, edges[1:] - 1, counts, strict=False):
        bar = "#" * max(round(BAR * count / counts.max()), int(count > 0))
        lines.append(f"  {f'{first}-{last}':>13} {count:>9} {bar}".rstrip())
    return lines


def _rendered(place: int, anchor: Anchor, tokenizer: Any | None, model: str | None) -> list[str]:
    logps = anchor.ref_logps
    head = (
        f"anchor {place}: task {anchor.task}, prompt {anchor.prompt_id}, draw {anchor.draw}, {len(logps)} tokens, "
        f"mean log-probability {sum(logps) / len(logps):.3f} nats, lowest {min(logps):.3f}"
    )
    if tokenizer is None:
        pairs = [f"{i} ({p:.2f})" for i, p in zip(anchor.completion_ids, logps, strict=True)]
        more = f" ... {len(pairs) - TOKENS_SHOWN} more" if len(pairs) > TOKENS_SHOWN else ""
        return [head, f"  prompt: {len(anchor.prompt_ids)} tokens", "  " + " ".join(pairs[:TOKENS_SHOWN]) + more]
    if (most := max((*anchor.prompt_ids, *anchor.completion_ids))) >= len(tokenizer):
        raise AnchorError(
            f"token {most} of anchor {place} is not in the tokenizer of --model {model} ({len(tokenizer)} tokens); "
            "give the model that the anchors were made with"
        )
    return [
        head,
        f"  prompt: {tokenizer.decode(list(anchor.prompt_ids))}",
        f"  completion: {tokenizer.decode(list(anchor.completion_ids))}",
    ]
