"""RUN/train/checkpoint-N: which checkpoints are whole, and at which step each was saved; in order of steps, never of
times, since clocks are set back and differ between machines."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from dphrl.errors import RunDirError
from dphrl.files import read_json, write_json

CHECKPOINT_DONE = "dphrl-complete"
"""The file that the trainer writes into a checkpoint last, a `Seal`; a kill while saving leaves a checkpoint without
it."""

DAMAGED = "damaged-"
"""What the name of a damaged checkpoint begins with once it was put aside."""

BLOCK = 1 << 22
"""Bytes that are read at once."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file as it was written: its size in bytes, and the CRC-32 of its content in 8 hex digits."""

    bytes: int
    crc32: str


@dataclass(frozen=True, slots=True)
class Seal:
    """What a whole checkpoint holds."""

    files: Mapping[str, Written]
    """Path within the checkpoint -> the file; every file but the seal."""
    weights: Sequence[Mapping[str, str]]
    """Name in memory -> CRC-32 of a trained weight's bytes: of each process where weights are divided, else one."""

    def write(self, checkpoint: Path) -> None:
        """The mark that the checkpoint is whole; to be written behind all its files."""
        write_json(checkpoint / CHECKPOINT_DONE, asdict(self))

    @classmethod
    def read(cls, checkpoint: Path) -> Seal:
        """As it was written.

        Raises:
            RunDirError: it is missing, empty, damaged, or of a dphrl that wrote no checksums.
        """
        path = checkpoint / CHECKPOINT_DONE
        try:
            if not path.stat().st_size:
                raise RunDirError(f"{path} is empty: damaged, or saved by a dphrl that wrote no checksums")
            content = read_json(path)
            files = {name: Written(**written) for name, written in content["files"].items()}
            return cls(files, content["weights"])
        except OSError as error:
            raise RunDirError(f"{path} cannot be read: {_reason(error)}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RunDirError(f"{path} is not as it was written") from None


def checksums(checkpoint: Path, *, rank: int = 0, count: int = 1) -> dict[str, Written]:
    """The files of a checkpoint as they are on the disk, of several processes this one's share."""
    names = sorted(p.relative_to(checkpoint).as_posix() for p in checkpoint.rglob("*") if p.is_file())
    own = [name for name in names if name != CHECKPOINT_DONE][rank::count]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return dict(zip(own, pool.map(lambda name: _written(checkpoint / name), own), strict=True))


def damage(checkpoint: Path, *, rank: int = 0, count: int = 1) -> list[str]:
    """What is wrong with a marked checkpoint: of several processes this one's share, sentences that name the files.

    A file that the seal does not know is none of ours and does no harm.
    """
    try:
        seal = Seal.read(checkpoint)
    except RunDirError as error:
        return [str(error)]
    own = sorted(seal.files)[rank::count]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = pool.map(lambda name: _harm(checkpoint / name, seal.files[name]), own)
        return [f"{checkpoint / name} {harm}" for name, harm in zip(own, found, strict=True) if harm]


def refuse_damaged(model: Path) -> None:
    """Look at the files of a trained model or checkpoint that has a seal; of a folder without one nothing is known.

    Reads every file once: half a second to a second for a gigabyte.

    Raises:
        RunDirError: names a file that is not as it was written.
    """
    if (model / CHECKPOINT_DONE).exists() and (found := damage(model)):
        raise RunDirError(
            f"{found[0]}; copy the model back, or remove {model} and run `dphrl train`: it goes on from its last "
            "checkpoint"
        )


def _harm(path: Path, wanted: Written) -> str:
    """Empty for a file that is as it was written."""
    try:
        size = path.stat().st_size
        if size != wanted.bytes:
            return f"has {size:,} bytes, {wanted.bytes:,} were written"
        found = _written(path).crc32
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {_reason(error)}"
    return "" if found == wanted.crc32 else f"has the checksum {found}, {wanted.crc32} was written"


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _written(path: Path) -> Written:
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return Written(size, f"{crc:08x}")


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step that is marked whole; one that was torn by a kill does not count."""
    return next(iter(marked_checkpoints(folder)), None)


def marked_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints that are marked whole, the highest step first."""
    return [path for path in _by_step(folder) if (path / CHECKPOINT_DONE).exists()]


def checkpoint_step(checkpoint: Path | None) -> int:
    """Optimiser steps that were done when the checkpoint was saved; 0 without a checkpoint."""
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])


def remove_torn_checkpoints(folder: Path) -> None:
    """Remove torn checkpoints, which would count among those that are kept and push out the last whole one."""
    for path in _by_step(folder):
        if not (path / CHECKPOINT_DONE).exists():
            shutil.rmtree(path)


def remove_old_checkpoints(folder: Path, kept: int, also: Path | None = None) -> None:
    """Remove all checkpoints but those of the `kept` highest steps.

    Args:
        also: one that is kept in any case.
    """
    for path in _by_step(folder)[kept:]:
        if also is None or path.name != also.name:
            shutil.rmtree(path)


def put_aside(checkpoint: Path) -> Path:
    """Rename a damaged checkpoint, so that none is taken for it, nor it for one that is kept; where it is now."""
    target = checkpoint.with_name(DAMAGED + checkpoint.name)
    if target.exists():
        shutil.rmtree(target)
    return checkpoint.rename(target)


def all_damaged(found: Sequence[str]) -> RunDirError:
    """No checkpoint can be gone on from; beginning anew in silence would throw a training away."""
    return RunDirError(
        "no checkpoint can be gone on from, all of them are damaged:\n"
        + "\n".join(f"  {text}" for text in found)
        + "\nput these files back as they were, or delete the checkpoints to begin the training anew"
    )


def _by_step(folder: Path) -> list[Path]:
    """The highest step first."""
    paths = [p for p in folder.glob("checkpoint-*") if p.is_dir() and p.name.rpartition("-")[2].isdigit()]
    return sorted(paths, key=checkpoint_step, reverse=True)
