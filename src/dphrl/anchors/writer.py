"""Making a store: files are added while scoring; sealing joins them, so that only the anchors and their order count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, KeysView, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dphrl.anchors.arrow_files import (
    KEY,
    AnchorFile,
    AnchorKey,
    anchor_key,
    anchor_table,
    list_lengths,
    row_bytes,
    write_anchor_file,
)
from dphrl.anchors.manifest import (
    SCHEMA,
    Made,
    Manifest,
    StoredFile,
    check_file,
    check_same,
    made_as_json,
    read_manifest,
    sha256_of,
)
from dphrl.anchors.store import AnchorStore, open_anchor_files, open_store, write_index
from dphrl.errors import AnchorError, EmptyAnchorStore
from dphrl.files import replaced, replaced_dir
from dphrl.types import Anchor

FILE_BYTES = 256_000_000
"""Size of a sealed file: few files at 1e7 anchors, and sealing holds only one of them in memory."""


class StoreWriter:
    """A store while its anchors are scored. Each `add` is one file, whole or not at all; a later writer goes on from
    what an earlier one added. Its memory grows with the keys (about 500 bytes an anchor), not with the tokens.

    Args:
        folder: made if it is missing; only one writer at a time may have it open.
        fingerprint: of the policy that draws and scores (`models.fingerprint`).
        made: how the anchors are made: sampling settings, tasks, verifier version, seed; what JSON can hold.
        topk: likeliest tokens stored at each position (count, >= 0).
    Raises:
        AnchorError: the folder holds another policy's anchors, anchors made otherwise, or a damaged store.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, str], made: Made, topk: int = 0) -> None:
        self.folder = folder
        self._manifest = Manifest("scoring", dict(fingerprint), made_as_json(made), topk, ())
        if (folder / "manifest.json").exists():
            stored = read_manifest(folder)
            check_same(folder, stored, self._manifest)
            self._manifest = stored
            _sweep(folder, stored)
        self._keys = {key: None for file in self._checked_files() for key in file.read_keys()}

    @property
    def done(self) -> KeysView[AnchorKey]:
        """(task, prompt_id, draw) of the anchors that are stored, in the order in which they were added."""
        return self._keys.keys()

    @property
    def sealed(self) -> bool:
        """Whether the store is finished; nothing can be added then."""
        return self._manifest.sealed

    def add(self, anchors: Sequence[Anchor]) -> None:
        """Store one file of anchors; they are safe once this returns.

        Raises:
            AnchorError: the store is sealed, an anchor is stored already or comes twice, its top-K are of another
                size, or a log-probability is not finite; nothing of the anchors is stored then.
            OSError: the disk is full; what was stored before is whole.
        """
        if self.sealed:
            raise AnchorError(f"{self.folder} is sealed; delete it, or give another --out, to store other anchors")
        keys = [anchor_key(a) for a in anchors]
        twice = [key for key, count in Counter(keys).items() if count > 1 or key in self._keys]
        if twice:
            raise AnchorError(f"{self.folder} would hold an anchor twice: {twice[:3]}; leave out those in `done`")
        if not keys:
            return
        name = f"scored-{len(self._manifest.shards):05d}.arrow"
        file = _write(self.folder / name, anchor_table(anchors, self._manifest.topk), write_anchor_file)
        manifest = replace(self._manifest, shards=(*self._manifest.shards, file))
        manifest.write(self.folder)
        self._manifest = manifest
        self._keys |= dict.fromkeys(keys)

    def seal(self) -> None:
        """Finish the store: the same anchors, added in the same order, give the same bytes. Sealing twice is no error.

        Raises:
            EmptyAnchorStore: nothing is stored.
            AnchorError: a file was damaged.
            OSError: the disk is full (the store takes its size twice for a moment); what was stored before is whole.
        """
        if not self._keys:
            raise EmptyAnchorStore(
                f"no anchor to seal in {self.folder}: no prompt gave one; "
                "lower anchor.threshold or draw more presamples"
            )
        if not self.sealed:
            self._manifest = write_sealed(self.folder, self._manifest, joined_table(self._checked_files()))
            _sweep(self.folder, self._manifest)

    def _checked_files(self) -> list[AnchorFile]:
        """The files of the store; what is copied from them must be what was written."""
        for file in self._manifest.shards:
            check_file(self.folder, file, checksum=True)
        return open_anchor_files(self.folder, self._manifest)


def merge_stores(folders: Sequence[Path], out: Path) -> AnchorStore:
    """One sealed store of the anchors of several, one store behind the other, whole or not at all.

    Args:
        folders: sealed stores of one policy, made in one way; the SHA-256 of every file is compared.
        out: must not exist yet, or be empty.
    Raises:
        AnchorError: a store that cannot be opened, another fingerprint, `made` or top-K than the first one's, or an
            anchor that several stores hold.
    """
    if not folders:
        raise AnchorError("no store to merge; name them, e.g. `dphrl anchors merge a/anchors b/anchors --out c`")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AnchorError(f"{out} is there already; give another --out")
    stores = [open_store(folder, None, check="full") for folder in folders]
    first = stores[0].manifest
    for store in stores[1:]:
        check_same(store.folder, store.manifest, first, str(folders[0]))
    files = [file for store in stores for file in store.files]
    if twice := doubled_keys(files):
        raise AnchorError(f"more than one of the stores holds anchor {twice[:3]}; merge stores of different prompts")
    with replaced_dir(out) as staging:
        write_sealed(staging, first, joined_table(files))
    return open_store(out, None)


def write_sealed(folder: Path, manifest: Manifest, table: pa.Table) -> Manifest:
    """Write files, lengths index and, last, the manifest that makes them a sealed store.

    Args:
        manifest: gives fingerprint, `made` and top-K; its files are replaced.
        table: all anchors, of `anchor_schema(topk)`; it may be larger than memory where its files are mapped.
    Returns:
        The manifest as written.
    """
    files = [_write(folder / f"part-{i:05d}.arrow", part, write_anchor_file) for i, part in enumerate(_parts(table))]
    index = _write(folder / "index.arrow", table, write_index)
    sealed = replace(manifest, status="sealed", shards=tuple(files), index=index, schema=SCHEMA)
    sealed.write(folder)
    return sealed


def doubled_keys(files: Sequence[AnchorFile]) -> list[AnchorKey]:
    """Some of the keys that come more than once, sorted; empty when every key is of one anchor."""
    counts = joined_table(files).select(list(KEY)).group_by(list(KEY)).aggregate([([], "count_all")])
    many = counts.filter(pc.greater(counts["count_all"], 1)).slice(0, 10)
    return sorted(zip(*(many[name].to_pylist() for name in KEY), strict=True))


def joined_table(files: Sequence[AnchorFile]) -> pa.Table:
    return pa.concat_tables(file.table() for file in files)


def _parts(table: pa.Table) -> Iterator[pa.Table]:
    """The rows in order, in tables of at most about FILE_BYTES."""
    ends = np.cumsum(row_bytes(table))
    first = 0
    while first < len(table):
        before = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, before + FILE_BYTES, side="right")), first + 1)
        yield table.slice(first, last - first)
        first = last


def _write(path: Path, table: pa.Table, write: Callable[[Path, pa.Table], None]) -> StoredFile:
    with replaced(path) as staging:
        write(staging, table)
        size, digest = staging.stat().st_size, sha256_of(staging)
    prompt_tokens, tokens = (int(list_lengths(table, name).sum()) for name in ("prompt_ids", "completion_ids"))
    return StoredFile(path.name, len(table), prompt_tokens, tokens, size, digest)


def _sweep(folder: Path, manifest: Manifest) -> None:
    """Remove what a kill left behind: Arrow files and temporary files that the manifest does not name."""
    named = {file.file for file in manifest.files}
    for path in [*folder.glob("*.arrow"), *folder.glob(".*.tmp")]:
        if path.name not in named:
            path.unlink()
