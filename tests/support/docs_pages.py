"""Pages as tests read them: fenced blocks, the files that some of them are, and what no test can run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
SITE_PAGES = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [README, ROOT / "CONTRIBUTING.md", *SITE_PAGES]

REASONS = (
    "Needs a GPU",
    "Needs several machines",
    "Needs a network",
    "Needs your own model and data",
    "Needs a server",
    "Takes minutes",
)
"""Why a block is not run. A page says so in words, in the line before the block: `*Needs a GPU; no test runs this.*`"""

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"\*(?P<why>[^*;]+); no test runs this\.\*")
_NAMED_BEFORE = re.compile(r"`(?P<name>[\w.-]+\.\w+)`")
_NAMED_INSIDE = re.compile(r"(?:#|--|//) (?P<name>[\w.-]+\.(?:ya?ml|py|jsonl?|sqlite|txt))\n")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    """Of its opening fence, from 1."""
    why_not: str | None
    """What the page says it needs; None: it is run."""
    file: str | None
    """Name of the file that it is: in its first line as a comment, or at the start of the line before it."""

    def lines(self) -> list[str]:
        """Its commands, continued lines joined, comments and empty lines left out."""
        joined = self.text.replace("\\\n", " ").splitlines()
        return [line.split("  #")[0].strip() for line in joined if line.strip() and not line.lstrip().startswith("#")]


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in its order.

    Raises:
        AssertionError: a block says that no test runs it, for a reason that is not one of REASONS.
    """
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()].rstrip().rpartition("\n")[2]
        mark = _MARK.fullmatch(before)
        assert mark is None or mark["why"] in REASONS, f"{before}: not one of {', '.join(REASONS)}"
        named = _NAMED_INSIDE.match(match["text"]) or _NAMED_BEFORE.match(before)
        found.append(
            Block(
                language=match["language"],
                text=match["text"],
                line=text.count("\n", 0, match.start()) + 1,
                why_not=None if mark is None else mark["why"],
                file=None if named is None or match["language"] == "bash" else named["name"],
            )
        )
    return found


def outside_blocks(text: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", text)
