"""What a checkpoint of verl's holds beside its own: whose anchors were trained on, in which order, and the weight."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dphrl.anchors import AnchorStore
from dphrl.engines.common.anchor_term import AnchorSettings
from dphrl.engines.verl.settings import VerlSettings
from dphrl.errors import AnchorError
from dphrl.files import read_json, write_json

FILE = "dphrl.json"


@dataclass(frozen=True, slots=True)
class SavedState:
    """The anchors of an update follow from these and its number; a training that goes on must have the same."""

    anchors: str
    """Digest of the store's manifest."""
    seed: int
    anchors_per_step: int
    anchors_per_prompt: int
    eta: float
    """Of the next update."""

    @classmethod
    def now(cls, dph: VerlSettings, settings: AnchorSettings, store: AnchorStore) -> SavedState:
        return cls(store.manifest.digest, dph.seed, settings.per_step, settings.per_prompt or 1, dph.objective.eta)

    def write(self, folder: Path, eta: float) -> None:
        """Write FOLDER/dphrl.json, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILE, asdict(replace(self, eta=eta)))

    def check(self, folder: Path) -> SavedState:
        """What a checkpoint holds.

        Raises:
            AnchorError: nothing, nothing readable, or what would change the anchors of coming updates.
        """
        path = folder / FILE
        try:
            saved = SavedState(**read_json(path))
        except FileNotFoundError:
            raise AnchorError(
                f"{folder} was not trained with anchors: it has no {FILE}; start from its exported model with another "
                "trainer.default_local_dir, or go on in verl's own trainer mode"
            ) from None
        except (ValueError, TypeError):
            raise AnchorError(f"{path} is damaged; take another checkpoint (trainer.resume_mode=resume_path)") from None
        names = [n for n in ("anchors", "seed", "anchors_per_step", "anchors_per_prompt")
                 if getattr(self, n) != getattr(saved, n)]  # fmt: skip
        if names:
            lines = [f"  {name}: {getattr(saved, name)!r} there, {getattr(self, name)!r} now\n" for name in names]
            raise AnchorError(
                f"the training of {folder} had other anchors, or another order of them:\n{''.join(lines)}"
                "set them as they were, or start anew with another trainer.default_local_dir"
            )
        return saved
