"""OUT/prompts/TASK.jsonl of an evaluation directory: the prompts and golds that other tools' samples came with."""

from __future__ import annotations

import json
from pathlib import Path

from dphrl.files import damage_refused, with_checksum, without_checksum, write_text
from dphrl.report.page.sample_browser import AskedPrompt, AskedPrompts

FOLDER = "prompts"


def write_asked_prompts(root: Path, asked: AskedPrompts) -> None:
    """Write ROOT/prompts/TASK.jsonl: {"id", "prompt", "gold"} a line."""
    for task, prompts in asked.items():
        rows = ({"id": i, "prompt": p.prompt, "gold": p.gold} for i, p in prompts.items())
        write_text(root / FOLDER / f"{task}.jsonl", "".join(f"{json.dumps(with_checksum(row))}\n" for row in rows))


def read_asked_prompts(root: Path) -> AskedPrompts:
    """The prompts that a directory holds; none where it was made from prompts that can be read elsewhere.

    Raises:
        RunDirError: a damaged file.
    """
    asked = {}
    for path in sorted((root / FOLDER).glob("*.jsonl")):
        with damage_refused(path, "delete it"):
            rows = [without_checksum(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
            asked[path.stem] = {str(row["id"]): AskedPrompt(str(row["prompt"]), str(row["gold"])) for row in rows}
    return asked
