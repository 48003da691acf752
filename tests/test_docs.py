"""README and docs: their commands parse, their YAML loads, their links and make targets exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from dphrl.cli import _parser
from dphrl.config_io import build_config, parse_overrides

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(text: str) -> list[str]:
    inline = re.findall(r"`(dphrl [^`|]+)`", text)
    blocks = [line.strip() for block in re.findall(r"```(?:\w+)?\n(.*?)```", text, re.S) for line in block.splitlines()]
    shown = [line.removeprefix("$ ").split("  #")[0] for line in blocks if line.removeprefix("$ ").startswith("dphrl ")]
    return inline + shown


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_on_a_page_parse(page: Path) -> None:
    for command in commands(page.read_text()):
        if "|" in command or "..." in command:
            continue
        words = shlex.split(command.replace("FOLDER", "folder"))[1:]
        if words == ["--help"] or words[-1] == "--help":
            words = words[:-1]
        if not words:
            continue
        options, rest = _parser().parse_known_args(words if words[0] != "compare" else [*words, "--out", "x"])
        if hasattr(options, "config"):
            parse_overrides(rest)
        else:
            assert not rest, command


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_yaml_on_a_page_loads(page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S):
        build_config(yaml.safe_load(block))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_make_targets_on_a_page_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
    made = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make (\w+)`", text)) <= made
