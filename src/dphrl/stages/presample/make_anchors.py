"""From candidates to the anchor store: distinct completions are chosen, scored by the training stack and stored."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile

import numpy as np

from dphrl.anchors import AnchorKey, StoreWriter
from dphrl.anchors.manifest import Made, made_as_json, read_manifest
from dphrl.config.root import Config
from dphrl.method.partition import Selection
from dphrl.models.policy import Policy
from dphrl.models.scoring import score
from dphrl.progress import Progress
from dphrl.runs.run_dir import RunDir
from dphrl.runs.samples import DrawKey, draw_key
from dphrl.sampling.encoded_prompts import EncodedPrompts
from dphrl.stages.presample.waves import Presamples
from dphrl.types import Anchor

CHUNK = 512
"""Anchors scored between two writes: what a killed run scores again. Chunks follow the order of the anchors alone, so
that padding, and with it the last bits of the log-probabilities, are the same however often a run was interrupted."""


@dataclass(frozen=True, slots=True)
class ChosenDraws:
    """The draws of one task that become anchors, before they are scored."""

    presamples: Presamples
    keys: tuple[DrawKey, ...]
    """In the order of the prompts."""


def choose_draws(presamples: Presamples, selection: Selection, per_prompt: int) -> ChosenDraws:
    """The first `per_prompt` candidates of each prompt that are different solutions (`Task.solution`)."""
    task = presamples.prompts.task
    several = {i: c for i, c in selection.candidates.items() if len(c) > 1 and per_prompt > 1}
    wanted = [draw_key(c) for candidates in several.values() for c in candidates]
    solutions = {draw_key(c): task.solution(c.text) for c in presamples.files.take(wanted)}
    keys: list[DrawKey] = []
    for prompt_id, candidates in selection.candidates.items():
        firsts: dict[str | int, DrawKey] = {}
        for i, key in enumerate(map(draw_key, candidates)):
            firsts.setdefault(solutions[key] if prompt_id in several else i, key)
        keys += list(firsts.values())[:per_prompt]
    return ChosenDraws(presamples, tuple(keys))


def store_anchors(
    run: RunDir,
    config: Config,
    policy: Policy,
    chosen: Sequence[ChosenDraws],
    policy_fingerprint: Mapping[str, str],
    made: Made,
    progress: Progress,
) -> None:
    """Score what the store does not hold yet and seal it; a store of other anchors is replaced.

    Args:
        chosen: of the task and of each keep set; at least one anchor in all.
        policy_fingerprint: `models.fingerprint` of the policy.
        made: how the anchors are made, for the manifest.
    """
    parts = [(draws, draws.keys[at : at + CHUNK]) for draws in chosen for at in range(0, len(draws.keys), CHUNK)]
    chunks = [[(draws.presamples.prompts.task.name, *key) for key in keys] for draws, keys in parts]
    total = sum(map(len, chunks))
    writer = _writer(run, config, policy_fingerprint, made, chunks)
    tokens: dict[str, dict[DrawKey, np.ndarray]] = {}
    progress("score anchors", len(writer.done), total)
    for (draws, keys), chunk in zip(parts, chunks, strict=True):
        if chunk[0] in writer.done:
            continue
        prompts, files = draws.presamples.prompts, draws.presamples.files
        name = prompts.task.name
        if name not in tokens:  # one pass over the files of a task; only one task's tokens are held
            tokens = {name: {draw_key(c): np.array(c.token_ids, np.int32) for c in files.take(draws.keys)}}
        writer.add(_scored(config, policy, prompts, keys, tokens[name]))
        progress("score anchors", len(writer.done), total)
    writer.seal()


def discard_store(run: RunDir) -> None:
    """Remove the store, its manifest first: killed in between, it is no store any more, not a damaged one."""
    (run.anchors / "manifest.json").unlink(missing_ok=True)
    shutil.rmtree(run.anchors, ignore_errors=True)


def _writer(
    run: RunDir,
    config: Config,
    policy_fingerprint: Mapping[str, str],
    made: Made,
    chunks: Sequence[Sequence[AnchorKey]],
) -> StoreWriter:
    """A writer that goes on with what is stored, or starts anew where that is not the beginning of what is wanted."""
    topk = config.anchor.topk
    if (run.anchors / "manifest.json").exists():
        stored = read_manifest(run.anchors)
        if stored.made != made_as_json(made) or stored.topk != topk:
            discard_store(run)
    writer = StoreWriter(run.anchors, policy_fingerprint, made, topk)
    beginning = takewhile(lambda chunk: chunk[0] in writer.done, chunks)
    whole = list(chain.from_iterable(beginning))
    if list(writer.done) != whole or (writer.sealed and len(whole) != sum(map(len, chunks))):
        discard_store(run)
        writer = StoreWriter(run.anchors, policy_fingerprint, made, topk)
    return writer


def _scored(
    config: Config,
    policy: Policy,
    prompts: EncodedPrompts,
    keys: Sequence[DrawKey],
    tokens: Mapping[DrawKey, np.ndarray],
) -> list[Anchor]:
    """One forward through the training stack gives the reference log-probabilities."""
    completions = [tuple(tokens[key].tolist()) for key in keys]
    scores = score(
        policy.model,
        [prompts.encoded[i] for i, _ in keys],
        completions,
        pad_id=policy.tokenizer.pad_token_id,
        temperature=config.sampling.temperature,
        batch_size=config.anchor.batch_size,
        autocast=policy.precision.autocast,
        topk=config.anchor.topk,
    )
    return [
        Anchor(i, prompts.encoded[i], ids, s.logps, prompts.task.name, draw, s.topk_ids, s.topk_logps)
        for (i, draw), ids, s in zip(keys, completions, scores, strict=True)
    ]
