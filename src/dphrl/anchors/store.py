"""A sealed store, opened: a sequence of anchors that lie on disk and are read when they are asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import index as as_index
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int32, Integer

from dphrl.anchors.columns import KEY, Key, Shard
from dphrl.anchors.manifest import Manifest, ShardInfo, check_file, check_fingerprint, read_manifest
from dphrl.errors import AnchorError, nearest
from dphrl.types import Anchor

CHECKS = ("sizes", "full")


class AnchorStore(Sequence[Anchor]):
    """Anchors of a sealed store; `open_store` makes one. Every read checks the anchor's checksum.

    Its memory does not grow with the number of anchors, but for the 4 bytes of each in the mapped lengths index.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, shards: Sequence[Shard], lengths: Int32[np.ndarray, anchors]
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.shards = shards
        self.lengths = lengths
        """Completion tokens of each anchor."""
        self._starts = list(accumulate(map(len, shards), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> Anchor: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Anchor, ...]: ...
    def __getitem__(self, index: int | slice | np.integer) -> Anchor | tuple[Anchor, ...]:
        """One anchor, or the anchors of a slice.

        Raises:
            IndexError: out of range. AnchorError: the anchor on disk is not what was written.
        """
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        place = as_index(index)
        place += len(self) if place < 0 else 0
        if not 0 <= place < len(self):
            raise IndexError(f"anchor {index} of {len(self)}")
        number = bisect_right(self._starts, place) - 1
        shard = self.shards[number]
        try:
            anchor = shard.anchor(place - self._starts[number])
            if len(anchor.completion_ids) != self.lengths[place]:
                raise ValueError(f"anchor {place} is longer or shorter than the index says")
        except (ValueError, OSError) as error:
            raise AnchorError(
                f"{shard.path} is damaged: {error}; run `dphrl anchors verify {self.folder}`, then copy it again "
                f"from its source, or delete {self.folder} and run `dphrl presample` again"
            ) from None
        return anchor


def open_store(folder: Path | str, fingerprint: Mapping[str, str] | None, *, check: str = "sizes") -> AnchorStore:
    """Open a sealed store for the policy with this fingerprint.

    Args:
        folder: where the store lies.
        fingerprint: of the policy (`models.fingerprint`); None leaves it unchecked, for tools that only look.
        check: `sizes` looks at the manifest, the lengths index, and each shard's size and footer, under a second at
            any size; `full` also reads all shards and compares their SHA-256. A single anchor's checksum is compared
            at each read, so damage never trains unnoticed.
    Raises:
        AnchorError: no store, not sealed, of another schema or policy, with a file missing, truncated or damaged.
    """
    if check not in CHECKS:
        raise AnchorError(f"check={check!r} is not one of {', '.join(CHECKS)}{nearest(check, CHECKS)}")
    folder = Path(folder)
    manifest = read_manifest(folder)
    if not manifest.sealed or manifest.index is None:
        raise AnchorError(
            f"{folder} is not sealed: {manifest.anchors} anchors are scored and others are still missing; "
            "run `dphrl presample` again with the same config, it goes on from there"
        )
    if fingerprint is not None:
        check_fingerprint(folder, manifest.fingerprint, fingerprint)
    check_file(folder, manifest.index, checksum=True)
    for shard in manifest.shards:
        check_file(folder, shard, checksum=check == "full")
    shards = [open_shard(folder, shard, manifest.topk) for shard in manifest.shards]
    lengths = read_index(folder / manifest.index.file)
    if len(lengths) != manifest.anchors:
        raise AnchorError(
            f"{folder} has an index of {len(lengths)} anchors and {manifest.anchors} in its shards; "
            f"delete {folder} and run `dphrl presample` again"
        )
    return AnchorStore(folder, manifest, shards, lengths)


def anchor_lengths(anchors: Sequence[Anchor]) -> Integer[np.ndarray, anchors]:
    """Completion tokens of each anchor: a store's index, so that no anchor is read for it, or counted."""
    if isinstance(anchors, AnchorStore):
        return anchors.lengths
    return np.array([len(a.completion_ids) for a in anchors], dtype=np.int64)


def open_shard(folder: Path, shard: ShardInfo, topk: int) -> Shard:
    """Map a shard.

    Raises:
        AnchorError: no whole Arrow file of these columns, or another number of rows than its manifest says.
    """
    rows = Shard(folder / shard.file, topk)
    if len(rows) != shard.anchors:
        raise AnchorError(
            f"{rows.path} holds {len(rows)} anchors, its manifest says {shard.anchors}; copy it again from its "
            f"source, or delete {folder} and run `dphrl presample` again"
        )
    return rows


def write_index(path: Path, lengths: Integer[np.ndarray, anchors]) -> None:
    """The lengths index: an Arrow file with the completion tokens of each anchor."""
    batch = pa.record_batch({"tokens": pa.array(lengths, pa.int32())})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def read_index(path: Path) -> Int32[np.ndarray, anchors]:
    """The lengths index, mapped."""
    with pa.memory_map(str(path)) as file:
        batch = pa.ipc.open_file(file).get_batch(0)
    return np.frombuffer(batch.column("tokens").buffers()[1], np.int32)[: batch.num_rows]


def doubled(shards: Sequence[Shard]) -> list[Key]:
    """Some of the keys that come more than once, sorted; empty when every key is of one anchor."""
    keys = pa.Table.from_batches([s.batch().select(list(KEY)) for s in shards])
    counts = keys.group_by(list(KEY)).aggregate([([], "count_all")])
    many = counts.filter(pc.greater(counts["count_all"], 1)).select(list(KEY)).slice(0, 10)
    return sorted((row["task"], row["prompt_id"], row["draw"]) for row in many.to_pylist())
