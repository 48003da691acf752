"""Every command in README and docs is run, or its page says in words what it needs that is not here.

A page is one test. Its blocks act in their order in a folder of its own, which begins as the quickstart left it: a
block with a name is written as that file, ```bash is run line by line, ```python without a name is executed.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from docs_pages import PAGES, ROOT, blocks
from docs_run import QUICKSTART, quickstart_folder, run_page

ELSEWHERE = {"own-verifier.md": "testing/test_attack.py", "verifiers.md": "docs/test_verifiers_page.py"}
"""Pages that another test runs as a whole."""
MOST_NOT_RUN = 19
"""Blocks that may say that no test runs them: a new one is to be weighed."""


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quickstart_folder(tmp_path_factory)


def acts(page: Path) -> bool:
    """Whether there is something to run on a page, and no other test runs it."""
    found = (b for b in blocks(page.read_text()) if b.why_not is None and b.language in ("bash", "python"))
    return page != QUICKSTART and page.name not in ELSEWHERE and any(found)


@pytest.mark.slow
def test_the_quickstart_runs(quickstart: Path) -> None:
    assert (quickstart / "runs/first/report/index.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if acts(page)], ids=lambda page: page.name)
def test_a_page_runs(page: Path, quickstart: Path, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    shutil.copytree(quickstart, folder)
    run_page(page, folder)


def test_pages_say_what_no_test_runs() -> None:
    why = Counter((page.name, b.why_not) for page in PAGES for b in blocks(page.read_text()) if b.why_not is not None)
    assert sum(why.values()) <= MOST_NOT_RUN, why
    assert all((ROOT / "tests" / test).exists() for test in ELSEWHERE.values())


def test_a_command_that_fails_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```bash\ntrue\nfalse  # why\n```\n")
    with pytest.raises(AssertionError, match=r"page.md:1: false\n"):
        run_page(page, tmp_path)
    page.write_text(
        "*Needs a GPU; no test runs this.*\n```bash\nfalse\n```\n# a\n`x.txt`, a file:\n```text\nhello\n```\n"
    )
    run_page(page, tmp_path)
    assert (tmp_path / "x.txt").read_text() == "hello\n"
    with pytest.raises(AssertionError, match="not one of Needs a GPU"):
        blocks("*Needs luck; no test runs this.*\n```bash\nfalse\n```\n")
