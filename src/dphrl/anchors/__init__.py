"""The anchor store: one Parquet file and a manifest that ties it to a model."""

from dphrl.anchors.store import read_anchors, write_anchors

__all__ = ["read_anchors", "write_anchors"]
