"""README and docs: commands parse, YAML loads, links, pictures and make targets exist, the site holds all pages."""

from __future__ import annotations

import html.parser
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from docs_pages import PAGES, README, ROOT, SITE_PAGES, blocks, outside_blocks

from dphrl.cli.main import dphrl
from dphrl.config.load import build_config

SITE = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]


def commands(text: str) -> list[str]:
    """Every `dphrl` command of a page: in its sentences, and the lines of its blocks."""
    inline = re.findall(r"`(dphrl [^`|]+)`", outside_blocks(text))
    shown = [line for block in blocks(text) if block.language == "bash" for line in block.lines()]
    return inline + [line for line in shown if line.startswith("dphrl ")]


def names_of(command: click.Command, name: str = "dphrl") -> Iterator[str]:
    """Each command that can be called."""
    if command is not dphrl:
        yield name
    if isinstance(command, click.Group):
        for word, child in command.commands.items():
            yield from names_of(child, f"{name} {word}")


NAMES = list(names_of(dphrl))


def parse(words: list[str]) -> None:
    """Read a command line as `dphrl` would, without running it.

    Raises:
        click.UsageError, ConfigError: it is none.
    """
    command: click.Command = dphrl
    while isinstance(command, click.Group) and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    command.make_context("dphrl", list(words))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_on_a_page_parse(page: Path) -> None:
    for command in commands(page.read_text()):
        if "|" in command or "..." in command:
            continue
        words = shlex.split(command.partition(" > ")[0].replace("FOLDER", "folder"))[1:]
        if words == ["--help"] or words[-1] == "--help":
            words = words[:-1]
        if not words or " ".join(["dphrl", *words]) in NAMES:  # a command that is only named
            continue
        parse([*words, "--out", "x"] if words[0] in ("compare", "import") else words)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_stand_in_bash_blocks(page: Path) -> None:
    """Where they are run, or say what they need: not in blocks of no language, nor indented."""
    text = page.read_text()
    lines = [line for b in blocks(text) if b.language != "bash" for line in b.text.splitlines()]
    lines += re.findall(r"^(?: {4}|\t)(.*)$", outside_blocks(text), re.MULTILINE)
    assert not [line for line in lines if re.match(r"\s*(\$ )?(dphrl|make|pip|python|accelerate|torchrun) ", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_yaml_on_a_page_loads(page: Path) -> None:
    for block in blocks(page.read_text()):
        if block.language == "yaml":
            build_config(yaml.safe_load(block.text))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_pictures_and_make_targets_on_a_page_exist(page: Path) -> None:
    """The site's builder knows nothing of pictures, and README is no page of the site."""
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
    assert not re.findall(r"!\[\]\(", text), "a picture needs words for those who cannot see it"
    made = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([\w-]+)`", text)) <= made


def test_every_page_stands_in_the_navigation() -> None:
    shown = [name for section in SITE["nav"] for pages in section.values() for name in pages]
    assert sorted(shown) == sorted(str(page.relative_to(ROOT / "docs")) for page in SITE_PAGES)


def test_readme_has_a_table_of_all_commands() -> None:
    rows = dict(re.findall(r"^\| `(dphrl [\w-]+)` \| (.+) \|$", README.read_text(), re.MULTILINE))
    assert rows.keys() == {name for name in NAMES if name.count(" ") == 1}
    for name in NAMES:
        command, _, action = name.removeprefix("dphrl ").partition(" ")
        assert not action or f"`{action}`" in rows[f"dphrl {command}"], name


class Loaded(html.parser.HTMLParser):
    """What a browser fetches for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        if tag != "a":  # a link is followed by the reader alone
            self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "data") and value]


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_a_network(tmp_path: Path) -> None:
    for name in ("zensical.toml", "zensical_docstrings.py"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("docs", "src"):
        shutil.copytree(ROOT / name, tmp_path / name)
    built = subprocess.run(
        [Path(sys.executable).parent / "zensical", "build", "--strict"], cwd=tmp_path, capture_output=True, text=True
    )
    assert built.returncode == 0, re.sub(r"\x1b\[[0-9;]*m", "", built.stdout + built.stderr)
    pages = {page.relative_to(tmp_path / "site"): page.read_text() for page in (tmp_path / "site").rglob("*.html")}
    assert {page.relative_to(ROOT / "docs").with_suffix(".html") for page in SITE_PAGES} <= pages.keys()
    for name, text in pages.items():
        loaded = Loaded()
        loaded.feed(text)
        away = [url for url in loaded.found if re.match(r"(https?:)?//", url)]
        assert not away, f"{name} loads {away}"
    assert "u - 1 - ln u" in pages[Path("formulas.html")]  # the docstring of forward_kl
    styles = "".join(path.read_text() for path in (tmp_path / "site").rglob("*.css"))
    assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", styles)
