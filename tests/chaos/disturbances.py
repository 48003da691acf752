"""What is done to a run: signals, disks and damage."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from commands import Command

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
DISK_BYTES = 96 << 20


class Disk:
    """A small disk of its own, where this user may mount one; else an ordinary folder, and no trial of disks."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
        self.mounted = os.geteuid() == 0 and not subprocess.run(command, capture_output=True, check=False).returncode

    def fill(self, left: int) -> None:
        """Leave so many bytes of room."""
        room = shutil.disk_usage(self.folder).free
        with (self.folder / "stuffing").open("wb") as file:
            file.write(bytes(max(0, room - left)))

    def read_only(self) -> bool:
        """Whether it is so now; a disk on which a file is being written cannot be made so."""
        return self._remount("ro")

    def mend(self) -> None:
        """Writable, with room."""
        if self.mounted:
            self._remount("rw")
        (self.folder / "stuffing").unlink(missing_ok=True)

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def _remount(self, options: str) -> bool:
        command = ["mount", "-o", f"remount,{options}", str(self.folder)]
        return not subprocess.run(command, capture_output=True, check=False).returncode


def stop_for_a_while(command: Command, seconds: float) -> None:
    command.send(signal.SIGSTOP)
    time.sleep(seconds)
    command.send(signal.SIGCONT)


def flip(path: Path, chance: random.Random) -> None:
    """Change one bit; an empty file gets a byte."""
    content = bytearray(path.read_bytes() or b"\0")
    place = chance.randrange(len(content))
    content[place] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def cut(path: Path, chance: random.Random) -> None:
    """Cut a file short, also to nothing."""
    os.truncate(path, chance.randrange(max(1, path.stat().st_size)))


def remove(path: Path, chance: random.Random) -> None:
    del chance
    path.unlink()


DAMAGE = {"flip": flip, "cut": cut, "remove": remove}
