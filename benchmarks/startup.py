"""How long `dphrl --help` takes, beside an empty Python program in the same run (medians of 15). One JSON line."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time


def seconds(*arguments: str) -> float:
    times = []
    for _ in range(15):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


empty, help_, settings = (
    seconds("-c", "pass"),
    seconds("-m", "dphrl", "--help"),
    seconds("-m", "dphrl", "train", "--help"),
)
print(
    json.dumps(
        {
            "help_over_empty": round(help_ / empty, 2),
            "stage_help_over_empty": round(settings / empty, 2),
            "help_seconds": round(help_, 3),
            "stage_help_seconds": round(settings, 3),
        }
    )
)
