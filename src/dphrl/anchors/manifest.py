"""manifest.json of a store: what its anchors belong to, how they were made, and the files that hold them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from dphrl.errors import AnchorError
from dphrl.files import json_text, write_text

SCHEMA = 3
"""Version of the store's files: 1 was a single Parquet file, 2 had one record batch in each Arrow file."""
READABLE = (2, 3)

Made = Mapping[str, Any]
"""How anchors are made: sampling settings, tasks, seed; what JSON holds. It is compared and shown, never used."""

REMEDIES = {
    "weights": "pre-sample again with this model, or train the model that they were made with",
    "tokenizer": "take the tokenizer that they were made with, or pre-sample again with this one",
    "chat_template": "take the chat template and model.chat_template_args they were made with, or pre-sample again",
    "stop_ids": "set sampling.stop_tokens as it was, or pre-sample again",
    "dtype": "set model.dtype, and lora.r beside bfloat16, as they were, or pre-sample again",
    "temperature": "set sampling.temperature as it was, or pre-sample again",
}
"""What to do about a part of the fingerprint that differs."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a store."""

    file: str
    anchors: int
    prompt_tokens: int
    tokens: int
    """Completion tokens."""
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The record of a store; anchors and tokens are the sums over its shards."""

    status: Literal["scoring", "sealed"]
    fingerprint: Mapping[str, str]
    """Fingerprint of the policy that drew and scored the anchors (`models.fingerprint`)."""
    made: Made
    topk: int
    """Likeliest tokens stored at each position; 0 = none."""
    shards: tuple[StoredFile, ...]
    index: StoredFile | None = None
    """File with the completion tokens of each anchor; a sealed store has one."""
    schema: int = SCHEMA

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All files of the store beside the manifest."""
        return self.shards if self.index is None else (*self.shards, self.index)

    @property
    def sealed(self) -> bool:
        return self.status == "sealed"

    @property
    def anchors(self) -> int:
        return sum(s.anchors for s in self.shards)

    @property
    def tokens(self) -> int:
        """Completion tokens."""
        return sum(s.tokens for s in self.shards)

    @property
    def digest(self) -> str:
        """SHA-256 of all that the file says, as hex digits."""
        return _digest(self._content())

    def write(self, folder: Path) -> None:
        """Write FOLDER/manifest.json, whole or not at all."""
        current = replace(self, schema=SCHEMA)
        write_text(folder / "manifest.json", json_text({"digest": current.digest, **current._content()}))

    def _content(self) -> dict[str, Any]:
        return {"schema": self.schema, "anchors": self.anchors, "tokens": self.tokens, **asdict(self)}


def made_as_json(made: Made) -> Made:
    """A mapping as JSON gives it back, so that it can be compared with a manifest's."""
    content: Made = json.loads(json.dumps(dict(made), allow_nan=False))
    return content


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a store, sealed or not.

    Raises:
        AnchorError: none there, of another schema, or damaged.
    """
    path = folder / "manifest.json"
    if not path.exists():
        raise AnchorError(f"{folder} holds no anchors; run `dphrl presample` with this config first")
    try:
        content = json.loads(path.read_bytes())
        version = content.get("schema", content.get("format"))
    except (ValueError, AttributeError):
        raise AnchorError(f"{path} is damaged: no JSON object; {remedy(path)}") from None
    if isinstance(version, int) and version > SCHEMA:
        raise AnchorError(
            f"{path} has schema {version}, newer than the {SCHEMA} that this version reads; "
            "install the dphrl that wrote it, or a later one"
        )
    if version not in READABLE:
        raise AnchorError(
            f"{path} has schema {version}, made by an older dphrl; this version reads {READABLE[0]} to {SCHEMA}; "
            f"delete {folder} and run `dphrl presample` again: the draws are kept, and only scoring is done anew"
        )
    if content.pop("digest", None) != _digest(content):
        raise AnchorError(f"{path} is damaged or was edited: its digest differs; {remedy(path)}")
    values = {f.name: content[f.name] for f in fields(Manifest)}
    index = values["index"] and StoredFile(**values["index"])
    return Manifest(**{**values, "shards": tuple(StoredFile(**s) for s in values["shards"]), "index": index})


def is_sealed(folder: Path) -> bool:
    """Whether the folder holds a finished store; False when it holds none at all.

    Raises:
        AnchorError: its manifest is of another schema, or damaged.
    """
    return (folder / "manifest.json").exists() and read_manifest(folder).sealed


def check_fingerprint(
    folder: Path, stored: Mapping[str, str], ours: Mapping[str, str], whose: str = "this run"
) -> None:
    """Check that the anchors are of this policy.

    Args:
        whose: what `ours` is, for the message.
    Raises:
        AnchorError: names what differs, both sides, and a remedy for each.
    """
    different = _different(stored, ours)
    if "dtype" in different:  # another type has other bytes, whatever the weights were made from
        different = [part for part in different if part != "weights"]
    if different:
        lines = [f"  {k}: anchors {stored.get(k)!r}, {whose} {ours.get(k)!r}" for k in different]
        todo = dict.fromkeys(REMEDIES.get(k, "pre-sample again") for k in different)
        raise AnchorError(
            f"the anchors in {folder} were made with another {', '.join(different)}:\n"
            + "\n".join([*lines, *todo])
            + f"\n(to pre-sample again, give another --out, or delete {folder})"
        )


def check_same(folder: Path, stored: Manifest, ours: Manifest, whose: str = "this run") -> None:
    """Check that the stored anchors and ours are of one policy and were made with the same settings.

    Args:
        stored: the manifest in `folder`.
        whose: what `ours` is, for the message.
    Raises:
        AnchorError: names what differs, and both sides.
    """
    check_fingerprint(folder, stored.fingerprint, ours.fingerprint, whose)
    made, ours_made = ({**manifest.made, "topk": manifest.topk} for manifest in (stored, ours))
    if different := _different(made, ours_made):
        lines = [f"  {k}: there {made.get(k)!r}, {whose} {ours_made.get(k)!r}" for k in different]
        raise AnchorError(
            f"the anchors in {folder} were made with other settings:\n"
            + "\n".join(lines)
            + f"\ngive another --out, the same settings, or delete {folder}"
        )


def sha256_of(path: Path) -> str:
    """Hex digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(folder: Path, file: StoredFile, *, checksum: bool) -> None:
    """Check that a file is there and has the size in the manifest, and with `checksum` also its SHA-256.

    Raises:
        AnchorError: it is missing, of another size (both are named), or its bytes differ.
    """
    path = folder / file.file
    if not path.exists():
        raise AnchorError(f"{path} is missing: the manifest gives it {file.anchors} anchors; {remedy(path)}")
    size = path.stat().st_size
    if size != file.bytes:
        how = "truncated" if size < file.bytes else "longer than it was"
        raise AnchorError(f"{path} is {how}: {size} bytes, the manifest says {file.bytes}; {remedy(path)}")
    if checksum and sha256_of(path) != file.sha256:
        raise AnchorError(f"{path} is damaged: its SHA-256 differs from its manifest; {remedy(path)}")


def remedy(path: Path) -> str:
    """What to do about a file of a store that is damaged."""
    return f"copy {path.name} again from its source, or delete {path.parent} and run `dphrl presample` again"


def _different(one: Made, other: Made) -> list[str]:
    return [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]


def _digest(content: Made) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
