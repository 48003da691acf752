"""What a trained policy says of the anchors, token by token: one forward over some of them, kept in RUN/drift.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dphrl.errors import DphrlError
from dphrl.files import checked, damage_refused, read_json, write_json
from dphrl.progress import Progress, silent
from dphrl.report.page.drift_view import AnchorDrift, DriftedAnchor
from dphrl.types import as_json

if TYPE_CHECKING:
    from dphrl.config.root import Config
    from dphrl.runs.run_dir import RunDir
    from dphrl.types import Anchor

SCHEMA = 1
ANCHORS = 200
"""Most anchors that are looked at, evenly over the store (count)."""
TOKENS = 100_000
"""Most completion tokens of them together: at 4,000 tokens an anchor 25 are enough to read (count)."""
PART = 25
"""Anchors scored between two writes; a killed run loses at most these."""
WINDOW = 4
"""Tokens decoded together: some tokenizers write a space or a letter only beside other tokens."""
PROMPT_LETTERS = 2_000
"""Letters of a prompt that are kept: its end, where the question stands."""


def anchor_drift(run: Path, *, measure: bool = True, progress: Progress = silent) -> AnchorDrift | str:
    """RUN/drift.json, made or finished where the trained model and its anchors are at hand.

    Args:
        run: a run directory; its anchors may lie in its `base_run`.
        measure: score what is not scored yet; else only read what is there.
    Returns:
        The content of drift.json, or a text: why there is none.
    Raises:
        RunDirError: drift.json is damaged, or a file of the trained model that is to be read.
    """
    from dphrl.runs.checkpoints import refuse_damaged
    from dphrl.runs.run_dir import base_of, read_run

    path = run / "drift.json"
    if not measure:
        return _saved(path) or "not measured"
    try:
        folder, config = read_run(run)
        anchors = base_of(config, folder).anchors
    except DphrlError as error:
        return _saved(path) or str(error)
    saved = _saved(path)
    if not folder.is_trained:
        return saved or "its trained model is not here"
    if not (anchors / "manifest.json").exists():
        return saved or "it has no anchors"
    key = _key(folder.final, anchors)
    if saved is None or saved.key != key:
        saved = AnchorDrift(key, 0, False, ())
    if saved.complete:
        return saved
    refuse_damaged(folder.final)
    from torch import OutOfMemoryError

    try:
        return _measured(config, folder, anchors, path, saved, progress)
    except OutOfMemoryError:  # of a GPU; the evaluation may have had several
        return "its trained model does not fit the memory of one GPU"
    except DphrlError as error:
        return str(error)


def evenly_chosen(lengths: Sequence[int]) -> list[int]:
    """Places of the anchors that are looked at: evenly over the store, at most ANCHORS and TOKENS in all.

    Args:
        lengths: completion tokens of each anchor of the store.
    """
    count = min(len(lengths), ANCHORS)
    even = [i * len(lengths) // count for i in range(count)]
    mean = sum(int(lengths[i]) for i in even) / max(count, 1)
    fewer = max(1, min(count, int(TOKENS / max(mean, 1))))
    return [even[i * count // fewer] for i in range(fewer)] if count else []


def _measured(
    config: Config, run: RunDir, anchors: Path, path: Path, drift: AnchorDrift, progress: Progress
) -> AnchorDrift:
    """Score the chosen anchors that are not in `drift` yet, and write them to `path` in parts."""
    from dphrl.anchors import open_store
    from dphrl.models.policy import load_policy
    from dphrl.models.scoring import score

    store = open_store(anchors, None)  # its fingerprint is the base's; training checked it
    places = evenly_chosen(store.lengths.tolist())
    policy = load_policy(config, str(run.final))
    try:
        while len(drift.rows) < len(places):
            part = [store[i] for i in places[len(drift.rows) : len(drift.rows) + PART]]
            scored = score(
                policy.model,
                [a.prompt_ids for a in part],
                [a.completion_ids for a in part],
                pad_id=policy.tokenizer.pad_token_id,
                temperature=config.sampling.temperature,
                batch_size=config.anchor.batch_size,
                autocast=policy.precision.autocast,
            )
            rows = (*drift.rows, *(_row(policy.tokenizer, a, s.logps) for a, s in zip(part, scored, strict=True)))
            drift = AnchorDrift(drift.key, len(store), len(rows) >= len(places), rows)
            write_json(path, {"schema": SCHEMA, **as_json(drift)})
            progress(f"anchors of {run.root.name}", len(rows), len(places))
    finally:
        policy.release()
    return drift


def _row(tokenizer: Any, anchor: Anchor, logps: Sequence[float]) -> DriftedAnchor:
    prompt = str(tokenizer.decode(list(anchor.prompt_ids), skip_special_tokens=True))
    return DriftedAnchor(
        task=anchor.task,
        prompt_id=anchor.prompt_id,
        draw=anchor.draw,
        prompt=prompt[-PROMPT_LETTERS:],
        tokens=tuple(pieces(tokenizer, anchor.completion_ids)),
        log_u=tuple(round(now - before, 3) for now, before in zip(logps, anchor.ref_logps, strict=True)),
    )


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """What each token adds to the text; together they read as the text does."""
    texts = []
    for i in range(len(ids)):
        before = tokenizer.decode(list(ids[max(0, i - WINDOW) : i]))
        whole = tokenizer.decode(list(ids[max(0, i - WINDOW) : i + 1]))
        texts.append(whole[len(before) :] if whole.startswith(before) else tokenizer.decode([ids[i]]))
    return texts


def _key(final: Path, anchors: Path) -> dict[str, list[object]]:
    """What the numbers depend on, told without reading weights: when they and the anchors were written."""
    weights = [p.stat() for p in sorted(final.glob("*.safetensors"))]
    manifest = (anchors / "manifest.json").stat()
    return {
        "weights": [[s.st_size, s.st_mtime_ns] for s in weights],
        "anchors": [manifest.st_size, manifest.st_mtime_ns],
    }


def _saved(path: Path) -> AnchorDrift | None:
    """drift.json as it is, whatever the model says now; None where there is none or it is of another schema."""
    if not path.exists():
        return None
    with damage_refused(path, "delete it"):
        values = read_json(path)
        rows = tuple(
            DriftedAnchor(**{**row, "tokens": tuple(row["tokens"]), "log_u": tuple(row["log_u"])})
            for row in values["rows"]
        )
        saved = AnchorDrift(values["key"], values["store"], values["complete"], rows)
        return checked(saved) if values["schema"] == SCHEMA else None
