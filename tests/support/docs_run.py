"""Acts out a page: writes its files, runs its commands, in a folder of its own."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from docs_pages import ROOT, Block, blocks
from made_once import made_once

from dphrl.cli.main import main

QUICKSTART = ROOT / "docs" / "quickstart.md"
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}


def run_page(page: Path, folder: Path) -> None:
    """Act out a page in a folder."""
    names: dict[str, object] = {}
    with contextlib.chdir(folder):
        for block in blocks(page.read_text()):
            where = f"{page.name}:{block.line}"
            if block.why_not is not None:
                continue
            if block.file is not None:
                Path(block.file).write_text(block.text)
            elif block.language == "bash":
                run_lines(block, where)
            elif block.language == "python":
                exec(compile(block.text, where, "exec"), names)


def run_lines(block: Block, where: str) -> None:
    for line in block.lines():
        status, said = run_line(line)
        assert status == 0, f"{where}: {line}\nended with status {status}: {said}"


def run_line(line: str) -> tuple[int, str]:
    """A line of a shell: `dphrl` in this process, which has paid for its imports; `make` without doing it."""
    words = shlex.split(line)
    if words[0] == "make":
        words = ["make", "--dry-run", "--directory", str(ROOT), *words[1:]]
    if words[0] == "dphrl" and not set(line) & set("|<>&$;"):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(words[1:])
        return status, out.getvalue() + err.getvalue()
    command = line if words[0] != "make" else shlex.join(words)
    done = subprocess.run(["bash", "-ec", command], env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def quickstart_folder(factory: pytest.TempPathFactory) -> Path:
    """The folder that the quickstart leaves."""
    return made_once(factory, "quickstart", lambda folder: run_page(QUICKSTART, folder))
