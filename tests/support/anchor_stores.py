"""Stores of anchors for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dphrl.anchors import StoreWriter
from dphrl.types import Anchor


def write_anchors(
    folder: Path, anchors: Sequence[Anchor], fingerprint: Mapping[str, str], made: Mapping[str, Any]
) -> None:
    """A sealed store, made in one go."""
    writer = StoreWriter(folder, fingerprint, made)
    writer.add(anchors)
    writer.seal()
