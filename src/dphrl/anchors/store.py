"""A sealed store as a sequence of anchors, which are read from disk when they are asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from operator import index as as_index
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int32, Integer

from dphrl.anchors.arrow_files import AnchorFile, list_lengths
from dphrl.anchors.manifest import Manifest, check_file, check_fingerprint, read_manifest, remedy
from dphrl.errors import AnchorError, nearest
from dphrl.types import Anchor

CHECKS = ("sizes", "full")


class AnchorStore(Sequence[Anchor]):
    """Anchors of a sealed store; `open_store` makes one. Every read checks the anchor's checksum.

    Its memory does not grow with the number of anchors, but for the 4 bytes of each in the mapped lengths index.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, files: Sequence[AnchorFile], lengths: Int32[np.ndarray, anchors]
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.files = files
        self.lengths = lengths
        """Completion tokens of each anchor."""
        self._starts = list(accumulate(map(len, files), initial=0))

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
        file = self.files[number]
        try:
            anchor = file.anchor(place - self._starts[number])
            if len(anchor.completion_ids) != self.lengths[place]:
                raise ValueError(f"anchor {place} is longer or shorter than the index says")
        except (ValueError, OSError, pa.ArrowException) as error:
            raise AnchorError(
                f"{file.path} is damaged: {error}; run `dphrl anchors verify {self.folder}`, then {remedy(file.path)}"
            ) from None
        return anchor


def open_store(folder: Path | str, fingerprint: Mapping[str, str] | None, *, check: str = "sizes") -> AnchorStore:
    """Open a sealed store for the policy with this fingerprint.

    Args:
        folder: where the store lies.
        fingerprint: of the policy (`models.fingerprint`); None leaves it unchecked, for tools that only look.
        check: `sizes` looks at the manifest, the lengths index, and each file's size and footer, under a second at
            any size; `full` also reads all files and compares their SHA-256. A single anchor's checksum is compared
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
    for file in manifest.shards:
        check_file(folder, file, checksum=check == "full")
    lengths = read_index(folder / manifest.index.file)
    return AnchorStore(folder, manifest, open_anchor_files(folder, manifest), lengths)


def anchor_lengths(anchors: Sequence[Anchor]) -> Integer[np.ndarray, anchors]:
    """Completion tokens of each anchor: a store's index, so that no anchor is read for it, or counted."""
    if isinstance(anchors, AnchorStore):
        return anchors.lengths
    return np.array([len(a.completion_ids) for a in anchors], dtype=np.int64)


def prompt_numbers(anchors: Sequence[Anchor]) -> Int32[np.ndarray, anchors]:
    """A number for each anchor's prompt: neighbours with the same task and prompt id have the same, others not.

    A store is written prompt by prompt; of it only these two columns are read.
    """
    if not isinstance(anchors, AnchorStore):
        keys = [(a.task, a.prompt_id) for a in anchors]
        return np.cumsum([0, *(a != b for a, b in pairwise(keys))], dtype=np.int32)
    parts = [file.table().select(["task", "prompt_id"]) for file in anchors.files]
    both = pa.concat_tables(parts)
    new = np.zeros(len(both), dtype=bool)
    for name in both.column_names:
        column = both[name]
        new[1:] |= pc.not_equal(column[1:], column[:-1]).to_numpy()
    return np.cumsum(new, dtype=np.int32)


def mean_prompt_length(anchors: Sequence[Anchor]) -> float:
    """Prompt tokens of an anchor, on average; of a store only the lengths are read."""
    if isinstance(anchors, AnchorStore):
        return float(sum(list_lengths(file.table(), "prompt_ids").sum() for file in anchors.files) / len(anchors))
    return float(np.mean([len(a.prompt_ids) for a in anchors]))


def open_anchor_files(folder: Path, manifest: Manifest) -> list[AnchorFile]:
    """The files of a store, for reading.

    Raises:
        AnchorError: one is no whole Arrow file of these columns, or has another number of rows than the manifest says.
    """
    mapped = manifest.schema == 2
    return [AnchorFile(folder / f.file, manifest.topk, f.anchors, mapped=mapped) for f in manifest.shards]


def write_index(path: Path, anchors: pa.Table) -> None:
    """The lengths index of a store's anchors: an Arrow file with the completion tokens of each."""
    lengths = pa.table({"tokens": pa.array(list_lengths(anchors, "completion_ids"), pa.int32())})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, lengths.schema) as writer:
        writer.write_table(lengths)


def read_index(path: Path) -> Int32[np.ndarray, anchors]:
    """The lengths index, mapped."""
    return np.from_dlpack(pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)["tokens"])
