"""Making a store: shards are added while scoring; sealing rewrites them, so that only anchors and their order count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from dphrl.anchors.columns import Key, Rows, Shard, batch_of, key_of, schema, write_shard
from dphrl.anchors.manifest import (
    Manifest,
    ShardInfo,
    check_file,
    check_fingerprint,
    check_made,
    plain,
    read_manifest,
    sha256_of,
)
from dphrl.anchors.store import AnchorStore, doubled, open_shard, open_store, write_index
from dphrl.errors import AnchorError, EmptyAnchorStore
from dphrl.files import replaced, replaced_dir
from dphrl.types import Anchor

INDEX = "index.arrow"

SHARD_BYTES = 256_000_000
"""Size of a sealed shard: few files at 1e7 anchors, and sealing holds only a few of them in memory."""


class StoreWriter:
    """A store while its anchors are scored. Each `add` is one shard, whole or not at all; a later writer goes on from
    what an earlier one added. Its memory grows with the keys (about 500 bytes an anchor), not with the tokens.

    Args:
        folder: made if it is missing; only one writer at a time may have it open.
        fingerprint: of the policy that draws and scores (`models.fingerprint`).
        made: how the anchors are made: sampling settings, tasks, verifier version, seed; what JSON can hold.
        topk: likeliest tokens stored at each position (count, >= 0).
    Raises:
        AnchorError: the folder holds another policy's anchors, anchors made otherwise, or a damaged store.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, str], made: Mapping[str, Any], topk: int = 0) -> None:
        self.folder = folder
        self.topk = topk
        self._manifest = Manifest("scoring", dict(fingerprint), plain(made), topk, ())
        if (folder / "manifest.json").exists():
            found = read_manifest(folder)
            check_fingerprint(folder, found.fingerprint, fingerprint)
            ours = {**self._manifest.made, "topk": topk}
            check_made(folder, {**found.made, "topk": found.topk}, ours, "this run")
            self._manifest = found
            _sweep(folder, found)
        for shard in self._manifest.shards:  # keys are read from them, so they must be what was written
            check_file(folder, shard, checksum=True)
        self._shards = [open_shard(folder, shard, topk) for shard in self._manifest.shards]
        self._places = _places(self._shards)

    @property
    def done(self) -> KeysView[Key]:
        """(task, prompt_id, draw) of the anchors that are stored."""
        return self._places.keys()

    @property
    def sealed(self) -> bool:
        """Whether the store is finished; nothing can be added then."""
        return self._manifest.sealed

    def add(self, anchors: Sequence[Anchor]) -> None:
        """Store one shard of anchors; they are safe once this returns.

        Raises:
            AnchorError: the store is sealed, an anchor is stored already or comes twice, its top-K are of another
                size, a log-probability is not finite, or the disk is full; nothing of the shard is stored then.
        """
        if self.sealed:
            raise AnchorError(f"{self.folder} is sealed; delete it, or give another --out, to store other anchors")
        keys = [key_of(a) for a in anchors]
        twice = [key for key, count in Counter(keys).items() if count > 1 or key in self._places]
        if twice:
            raise AnchorError(f"{self.folder} would hold an anchor twice: {twice[:3]}; leave out those in `done`")
        if not keys:
            return
        name = f"scored-{len(self._manifest.shards):05d}.arrow"
        batch = batch_of(anchors, self.topk)
        with _disk_errors(self.folder):
            info = _write(self.folder / name, batch, self.topk)
            manifest = replace(self._manifest, shards=(*self._manifest.shards, info))
            manifest.write(self.folder)
        self._manifest = manifest
        self._shards.append(open_shard(self.folder, info, self.topk))
        self._places |= {key: len(self._places) + i for i, key in enumerate(keys)}

    def seal(self, order: Iterable[Key] | None = None) -> None:
        """Finish the store: the same anchors in the same order give the same bytes, however they were added.

        Args:
            order: keys of exactly the anchors that are stored; None keeps the order in which they were added.
        Raises:
            EmptyAnchorStore: nothing is stored.
            AnchorError: `order` names other anchors, a shard was damaged, the disk is full, or the store is sealed in
                another order.
        """
        keys = list(self._places if order is None else order)
        if not keys:
            raise EmptyAnchorStore(
                f"no anchor to seal in {self.folder}: no prompt gave one; "
                "lower anchor.threshold or draw more presamples"
            )
        self._check_order(keys)
        if self.sealed:
            if keys != list(self._places):
                raise AnchorError(f"{self.folder} is sealed in another order; delete it to store the anchors again")
            return
        for shard in self._manifest.shards:
            check_file(self.folder, shard, checksum=True)
        places = np.fromiter((self._places[key] for key in keys), np.int64, len(keys))
        with _disk_errors(self.folder):
            self._manifest = write_sealed(self.folder, self._manifest, arranged(self._shards, places, self.topk))
        self._shards = [open_shard(self.folder, shard, self.topk) for shard in self._manifest.shards]
        self._places = {key: place for place, key in enumerate(keys)}
        _sweep(self.folder, self._manifest)

    def _check_order(self, keys: Sequence[Key]) -> None:
        wanted = set(keys)
        missing, extra = sorted(wanted - self.done)[:3], sorted(self.done - wanted)[:3]
        if missing or extra or len(wanted) != len(keys):
            what = f"stored, but not in the order: {extra}" if extra else "one comes twice"
            what = f"not stored: {missing}" if missing else what
            raise AnchorError(
                f"{self.folder} cannot be sealed: the order has {len(keys)} keys, {len(self._places)} anchors are "
                f"stored ({what}); score what is missing, or delete {self.folder} and run `dphrl presample` again"
            )


def write_anchors(
    folder: Path, anchors: Sequence[Anchor], fingerprint: Mapping[str, str], made: Mapping[str, Any]
) -> None:
    """Write a sealed store at once, whole or not at all.

    Args:
        folder: replaced if it exists.
        anchors: at least one.
        fingerprint, made: as for `StoreWriter`.
    Raises:
        EmptyAnchorStore: no anchor. AnchorError: one that comes twice, or cannot be stored.
    """
    if not anchors:
        raise EmptyAnchorStore(f"no anchor to write to {folder}; lower anchor.threshold or draw more presamples")
    with replaced_dir(folder) as staging:
        writer = StoreWriter(staging, fingerprint, made)
        writer.add(anchors)
        writer.seal()


def write_sealed(folder: Path, manifest: Manifest, batches: Iterable[pa.RecordBatch]) -> Manifest:
    """Write shards, lengths index and, last, the manifest that makes them a sealed store.

    Args:
        manifest: gives fingerprint, `made` and top-K; its shards are replaced.
        batches: one a shard, of `schema(topk)`.
    Returns:
        The manifest as written.
    """
    shards: list[ShardInfo] = []
    lengths: list[np.ndarray] = []
    for number, batch in enumerate(batches):
        shards.append(_write(folder / f"part-{number:05d}.arrow", batch, manifest.topk))
        lengths.append(Rows(batch, manifest.topk).tokens().astype(np.int32))
    with replaced(folder / INDEX) as staging:
        write_index(staging, np.concatenate(lengths))
    index = ShardInfo(
        INDEX,
        sum(s.anchors for s in shards),
        sum(s.prompt_tokens for s in shards),
        sum(s.tokens for s in shards),
        (folder / INDEX).stat().st_size,
        sha256_of(folder / INDEX),
    )
    sealed = Manifest("sealed", manifest.fingerprint, manifest.made, manifest.topk, tuple(shards), index)
    sealed.write(folder)
    return sealed


def arranged(shards: Sequence[Shard], places: Int64[np.ndarray, anchors], topk: int) -> Iterator[pa.RecordBatch]:
    """The anchors at `places`, counted through all shards, in batches of at most about SHARD_BYTES."""
    starts = np.cumsum([0, *map(len, shards)])
    prompts = np.concatenate([s.prompt_tokens() for s in shards])[places]
    tokens = np.concatenate([s.tokens() for s in shards])[places]
    ends = np.cumsum(4 * prompts + (8 + 8 * topk) * tokens + 64)  # 64: names, offsets and checksum of a row
    first = 0
    while first < len(places):
        before = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, before + SHARD_BYTES, side="right")), first + 1)
        yield _taken(shards, starts, places[first:last], topk)
        first = last


def _taken(shards: Sequence[Shard], starts: np.ndarray, places: Int64[np.ndarray, some], topk: int) -> pa.RecordBatch:
    """Rows of many shards in one batch: taken shard by shard, since taking from them joined would copy them whole."""
    numbers = np.searchsorted(starts, places, side="right") - 1
    by_shard = np.argsort(numbers, kind="stable")
    tables = []
    for number in np.unique(numbers):
        rows = places[numbers == number] - starts[number]
        tables.append(pa.Table.from_batches([shards[number].batch().take(pa.array(rows))]))
    joined = pa.concat_tables(tables).combine_chunks()
    back = np.argsort(by_shard, kind="stable")
    return joined.take(pa.array(back)).cast(schema(topk)).combine_chunks().to_batches()[0]


def merge_stores(folders: Sequence[Path], out: Path, order: Iterable[Key] | None = None) -> AnchorStore:
    """One sealed store of the anchors of several, whole or not at all.

    Args:
        folders: sealed stores of one policy, made in one way; every shard's SHA-256 is compared.
        out: must not exist yet, or be empty.
        order: as for `StoreWriter.seal`; None puts one store behind the other.
    Raises:
        AnchorError: a store that cannot be opened, another fingerprint, `made` or top-K than the first one's, an
            anchor that several stores hold, or an `order` of other anchors.
    """
    if not folders:
        raise AnchorError("no store to merge; name them, e.g. `dphrl anchors merge a/anchors b/anchors --out c`")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AnchorError(f"{out} is there already; give another --out")
    stores = [open_store(folder, None, check="full") for folder in folders]
    first = stores[0].manifest
    for store in stores[1:]:
        check_fingerprint(store.folder, store.manifest.fingerprint, first.fingerprint, str(folders[0]))
        ours = {**first.made, "topk": first.topk}
        check_made(store.folder, {**store.manifest.made, "topk": store.manifest.topk}, ours, str(folders[0]))
    shards = [shard for store in stores for shard in store.shards]
    if twice := doubled(shards):
        raise AnchorError(f"more than one of the stores holds anchor {twice[:3]}; merge stores of different prompts")
    places = np.arange(sum(map(len, shards))) if order is None else _ordered(_places(shards), order)
    with _disk_errors(out), replaced_dir(out) as staging:
        write_sealed(staging, first, arranged(shards, places, first.topk))
    return open_store(out, None)


def _places(shards: Sequence[Shard]) -> dict[Key, int]:
    """Where each anchor lies, counted through all shards."""
    return {key: place for place, key in enumerate(key for shard in shards for key in shard.read_keys())}


def _ordered(known: Mapping[Key, int], order: Iterable[Key]) -> Int64[np.ndarray, anchors]:
    keys = list(order)
    if len(keys) != len(known) or set(keys) != set(known):
        raise AnchorError(f"the order names {len(keys)} anchors, the stores hold {len(known)}; it must name those")
    return np.fromiter((known[key] for key in keys), np.int64, len(keys))


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AnchorError(
            f"{folder} cannot be written: {error.strerror or error}; what was stored before is whole: "
            "mend that (sealing needs the store's size once more) and run the same command again"
        ) from None


def _write(path: Path, batch: pa.RecordBatch, topk: int) -> ShardInfo:
    with replaced(path) as staging:
        write_shard(staging, batch)
        size, digest = staging.stat().st_size, sha256_of(staging)
    rows = Rows(batch, topk)
    return ShardInfo(path.name, len(rows), int(rows.prompt_tokens().sum()), int(rows.tokens().sum()), size, digest)


def _sweep(folder: Path, manifest: Manifest) -> None:
    """Remove what a kill left behind: shards and temporary files that the manifest does not name."""
    named = {s.file for s in (*manifest.shards, *filter(None, [manifest.index]))}
    for pattern in ("*.arrow", ".*.tmp"):
        for path in folder.glob(pattern):
            if path.name not in named:
                path.unlink()
