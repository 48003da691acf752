"""Anchors on disk: token ids and reference log-probabilities in Parquet, and what they belong to in manifest.json."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dphrl.errors import AnchorError, EmptyAnchorStore
from dphrl.files import read_json, replaced_dir, write_json
from dphrl.types import Anchor

FORMAT = 1
_SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("completion_ids", pa.list_(pa.int32())),
        ("ref_logps", pa.list_(pa.float32())),
    ]
)


def write_anchors(
    folder: Path, anchors: Sequence[Anchor], fingerprint: Mapping[str, str], sampling: Mapping[str, Any]
) -> None:
    """Write the store, whole or not at all.

    Args:
        folder: replaced if it exists.
        anchors: at least one.
        fingerprint: of the policy that drew and scored them (`models.fingerprint`).
        sampling: how they were drawn, kept in the manifest.
    Raises:
        EmptyAnchorStore: no anchor.
    """
    if not anchors:
        raise EmptyAnchorStore(
            f"no anchor to write to {folder}: no near-perfect prompt; lower anchor.threshold or draw more presamples"
        )
    columns = {name: [getattr(a, name) for a in anchors] for name in _SCHEMA.names}
    with replaced_dir(folder) as staging:
        pq.write_table(pa.table(columns, schema=_SCHEMA), staging / "anchors.parquet")
        manifest = {
            "format": FORMAT,
            "anchors": len(anchors),
            "tokens": sum(len(a.completion_ids) for a in anchors),
            "fingerprint": dict(fingerprint),
            "sampling": dict(sampling),
            "sha256": {"anchors.parquet": _sha256(staging / "anchors.parquet")},
        }
        write_json(staging / "manifest.json", manifest)


def read_anchors(folder: Path, fingerprint: Mapping[str, str]) -> tuple[Anchor, ...]:
    """Read the store for the policy with this fingerprint.

    Raises:
        AnchorError: missing, of another format, damaged, doubled ids, or made with another policy (names both sides).
    """
    manifest_path = folder / "manifest.json"
    if not manifest_path.exists():
        raise AnchorError(f"{folder} holds no anchors; run `dphrl presample` with this config first")
    manifest = read_json(manifest_path)
    if manifest.get("format") != FORMAT:
        raise AnchorError(f"{manifest_path} has format {manifest.get('format')}; this version reads {FORMAT}")
    _check_fingerprint(folder, manifest["fingerprint"], fingerprint)
    path = folder / "anchors.parquet"
    if not path.exists() or _sha256(path) != manifest["sha256"]["anchors.parquet"]:
        raise AnchorError(f"{path} is missing or differs from its manifest; run `dphrl presample` again")
    rows = pq.read_table(path).to_pylist()
    ids = [row["prompt_id"] for row in rows]
    if not rows or len(set(ids)) != len(ids):
        raise AnchorError(f"{path} is empty or holds a prompt twice; run `dphrl presample` again")
    return tuple(
        Anchor(r["prompt_id"], tuple(r["prompt_ids"]), tuple(r["completion_ids"]), tuple(r["ref_logps"])) for r in rows
    )


def _check_fingerprint(folder: Path, theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    different = [k for k in sorted({*theirs, *ours}) if theirs.get(k) != ours.get(k)]
    if different:
        lines = [f"  {k}: anchors {theirs.get(k)!r}, this run {ours.get(k)!r}" for k in different]
        raise AnchorError(
            f"the anchors in {folder} were made with another {', '.join(different)}:\n"
            + "\n".join(lines)
            + "\npre-sample again with this model, or train the model that they were made with"
        )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
