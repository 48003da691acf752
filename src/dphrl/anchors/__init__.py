"""The anchor store: shards and a manifest that ties them to a model; docs/anchors.md."""

from dphrl.anchors.arrow_files import AnchorKey, anchor_key
from dphrl.anchors.manifest import Manifest, is_sealed
from dphrl.anchors.store import AnchorStore, anchor_lengths, mean_prompt_length, open_store, prompt_numbers
from dphrl.anchors.writer import StoreWriter, merge_stores

__all__ = [
    "AnchorKey",
    "AnchorStore",
    "Manifest",
    "StoreWriter",
    "anchor_key",
    "anchor_lengths",
    "is_sealed",
    "mean_prompt_length",
    "merge_stores",
    "open_store",
    "prompt_numbers",
]
