"""Launches of two ranks on gloo out of one process that has imported everything: a fork costs no import.

python tests/support/forked_ranks.py LAUNCHES.json

The file holds a list of launches: `environment` of all ranks (what a launcher sets), `arguments` of `dphrl`, `said`
the file that takes what both ranks say. They run one after another; the first that fails ends this with its status.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint  # noqa: F401
from fsdp2_on_cpu import honour_fsdp

import dphrl.engines.trl.trainer
import dphrl.stages.train.train  # noqa: F401
from dphrl.cli.main import main

RANKS = 2


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def rank_of(launch: dict[str, Any], rank: int, port: int) -> int:
    """Start one rank; its process id."""
    if child := os.fork():
        return child
    status = 1
    try:
        told = os.open(launch["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(told, 1)
        os.dup2(told, 2)
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": RANKS, "LOCAL_WORLD_SIZE": RANKS, "MASTER_PORT": port}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", **launch["environment"], **{k: str(v) for k, v in ranks.items()}}
        honour_fsdp()
        status = main(launch["arguments"])
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    for wanted in json.loads(Path(sys.argv[1]).read_text()):
        port = free_port()
        children = [rank_of(wanted, rank, port) for rank in range(RANKS)]
        failed = [status for child in children if (status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))]
        if failed:
            sys.exit(f"{wanted['arguments']} ended with {failed}:\n{Path(wanted['said']).read_text()[-4000:]}")
