"""A real browser: Debian's chromium through playwright, headless; without them the tests are skipped, with a reason."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The browser, started once; no page of it can reach the network."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-browser")
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium, or name one in CHROMIUM; make test-browser")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


Opened = Callable[..., Any]


@pytest.fixture
def opened(browser: Any) -> Opened:
    """`with opened(path, width=..., dark=..., scripts=...) as page`: the page once its charts are live.

    What the browser complains of, whatever asks for an address and every dialog fail the test at the end.
    """

    @contextmanager
    def open_page(path: Path, *, width: int = 1200, dark: bool = False, scripts: bool = True) -> Iterator[Any]:
        trouble: list[str] = []
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
        )
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda said: trouble.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda asked: trouble.append(asked.url) if asked.url != path.as_uri() else None)
        page.on("dialog", lambda dialog: (trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(path.as_uri())
        if scripts:
            page.locator("html[data-charts=live]").wait_for(state="attached")
        yield page
        context.close()
        assert trouble == []

    return open_page
