"""`dphrl anchors`: inspect, verify, merge and export, as a user calls them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from anchor_stores import write_anchors

from dphrl.anchors import StoreWriter, open_store
from dphrl.anchors.arrow_files import anchor_table
from dphrl.anchors.writer import write_sealed
from dphrl.cli.main import main
from dphrl.runs.run_dir import RunDir
from dphrl.stages.presample.partition_file import PartitionFile, write_partition
from dphrl.types import Anchor

PRINT = {"weights": "w"}
ANCHORS = tuple(
    Anchor(f"p{i}", (5, 6), (7,) * i, (-0.5,) * i, "arithmetic" if i > 7 else "task", 0) for i in range(1, 10)
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed store in a run directory."""
    write_anchors(tmp_path / "run" / "anchors", ANCHORS, PRINT, {"seed": 3})
    return tmp_path / "run" / "anchors"


@pytest.fixture
def called(capsys: pytest.CaptureFixture[str]) -> Any:
    """The command with its exit status and what it printed."""

    def call(*arguments: Any) -> tuple[int, str, str]:
        status = main(["anchors", *map(str, arguments)])
        return status, *capsys.readouterr()

    return call


def test_inspect_says_what_a_store_holds(folder: Path, called: Any) -> None:
    partition = PartitionFile(
        near_perfect=(),
        exploration=(),
        dropped={},
        counts={},
        statuses={"correct": 12, "wrong": 3},
        reward={},
        threshold=1,
        presamples=1,
        debias=True,
        also={},
        settings={},
    )
    write_partition(RunDir(folder.parent), partition)
    status, out, err = called("inspect", folder)
    assert (status, err) == (0, "")
    for text in (
        "sealed, 9 anchors in 1 shards",
        "tokens: 45 of completions (mean 5.0), 18 of prompts",
        "policy: weights w",
        "made with:\n  seed: 3\n",
        "draws: correct 12, wrong 3",
        "tasks: task 7, arithmetic 2",
        "shortest 1, median 5, 90 % up to 8, longest 9",
        "anchor 0: task task, prompt p1, draw 0, 1 tokens, mean log-probability -0.500 nats",
        "anchor 8: task arithmetic, prompt p9",
        "  7 (-0.50) 7 (-0.50)",
    ):
        assert text in out
    bars = [line.split() for line in out.splitlines() if line.endswith("#")]
    assert len(bars) == 9 and {(bar[1], len(bar[2])) for bar in bars} == {("1", 40)}
    assert called("inspect", folder, "--show", 0)[1] == out[: out.index("\n\nanchor 0")] + "\n"


def test_inspect_decodes_with_the_model_s_own_tokenizer(folder: Path, called: Any, tmp_path: Path) -> None:
    from dphrl.config.sources import ModelConfig
    from dphrl.models.policy import load_tokenizer

    tokenizer = load_tokenizer(ModelConfig(path="demo"))
    out = called("inspect", folder, "--model", "demo")[1]
    assert f"  completion: {tokenizer.decode([7] * 9)}\n" in out and "(-0.50)" not in out
    write_anchors(tmp_path / "big", [Anchor("p", (), (100_000,), (-1.0,))], PRINT, {})
    status, _, err = called("inspect", tmp_path / "big", "--model", "demo")
    assert status == 2 and "token 100000 of anchor 0 is not in the tokenizer of --model demo" in err


def test_an_unsealed_store_is_described_but_not_used(folder: Path, called: Any, tmp_path: Path) -> None:
    StoreWriter(tmp_path / "u", PRINT, {}).add(ANCHORS)
    status, out, _ = called("inspect", tmp_path / "u")
    assert status == 0 and "scoring, 9 anchors" in out and "not sealed: run `dphrl presample`" in out
    for action in (
        ("verify", tmp_path / "u"),
        ("export", tmp_path / "u", "--out", tmp_path / "o"),
        ("merge", folder, tmp_path / "u", "--out", tmp_path / "o"),
    ):
        status, out, err = called(*action)
        assert (status, out) == (2, "") and "is not sealed" in err
    assert not (tmp_path / "o").exists()


def test_verify_names_every_damaged_file(folder: Path, called: Any) -> None:
    status, out, _ = called("verify", folder)
    assert status == 0 and "9 anchors in 1 shards, every checksum is right, no anchor twice" in out
    part = folder / "part-00000.arrow"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 4
    part.write_bytes(data)
    os.truncate(folder / "index.arrow", 10)
    status, out, err = called("verify", folder)
    assert (status, out) == (2, "")
    assert "part-00000.arrow is damaged: its SHA-256" in err and "index.arrow is truncated: 10 bytes" in err


def test_verify_finds_what_checksums_cannot(
    folder: Path, called: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that was written wrong: an anchor in two shards, an index of other lengths."""
    manifest = open_store(folder, PRINT).manifest
    (tmp_path / "twice").mkdir()
    write_sealed(tmp_path / "twice", manifest, anchor_table((*ANCHORS[:2], *ANCHORS[1:3]), 0))
    status, _, err = called("verify", tmp_path / "twice")
    assert status == 2 and "holds anchors twice: [('task', 'p2', 0)]" in err
    store = open_store(folder, PRINT)
    store.lengths = store.lengths[::-1]
    monkeypatch.setattr("dphrl.stages.inspect_anchors.open_store", lambda *arguments: store)
    status, _, err = called("verify", folder)
    assert status == 2 and "the lengths index of" in err


def test_merge_joins_stores(folder: Path, called: Any, tmp_path: Path) -> None:
    more = [Anchor("q", (1,), (2,), (-1.0,))]
    write_anchors(tmp_path / "b", more, PRINT, {"seed": 3})
    status, out, _ = called("merge", folder, tmp_path / "b", "--out", tmp_path / "m")
    assert status == 0 and "10 anchors of 2 stores" in out
    assert list(open_store(tmp_path / "m", PRINT)) == [*ANCHORS, *more]
    status, out, err = called("merge", folder, folder, "--out", tmp_path / "n")
    assert (status, out) == (2, "") and err.count("\n") == 1 and "('arithmetic', 'p8', 0)" in err


def test_a_full_disk_is_one_message_and_leaves_no_half_store(
    folder: Path, called: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, anchors: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("dphrl.anchors.writer.write_anchor_file", full)
    status, _, err = called("merge", folder, "--out", tmp_path / "m")
    assert status == 2 and "could not be written: No space left" in err and not (tmp_path / "m").exists()


def test_export_writes_a_folder_of_datasets(folder: Path, called: Any, tmp_path: Path) -> None:
    wide = [Anchor("p", (), (1, 2), (-1.0, -2.0), "t", 4, ((1, 2), (3, 4)), ((-1.0, -2.0), (-3.0, -4.0)))]
    writer = StoreWriter(tmp_path / "wide", PRINT, {}, topk=2)
    writer.add(wide)
    writer.seal()
    for store, anchors in ((folder, ANCHORS), (tmp_path / "wide", wide)):
        out = tmp_path / f"{store.name}-out"
        status, text, err = called("export", store, "--out", out)
        assert status == 0 and not err and f"{len(anchors)} anchors" in text
        found = datasets.load_from_disk(out)
        assert "crc32" not in found.column_names and len(found) == len(anchors)
        for row, anchor in zip(found, anchors, strict=True):
            assert {k: row[k] for k in ("task", "prompt_id", "draw")} == {
                k: getattr(anchor, k) for k in ("task", "prompt_id", "draw")
            }
            for name in found.column_names[3:]:
                assert np.array(row[name]).tolist() == np.array(getattr(anchor, name)).tolist()
    status, _, err = called("export", folder, "--out", tmp_path / "wide-out")
    assert status == 2 and "is there already" in err


@pytest.mark.parametrize("action", [("inspect",), ("verify",), ("export", "--out", "x"), ("merge", "--out", "x")])
def test_a_folder_without_a_store_is_one_message(action: Any, called: Any, tmp_path: Path) -> None:
    status, out, err = called(action[0], tmp_path / "none", *action[1:])
    assert (status, out) == (2, "") and err.count("\n") == 1 and "holds no anchors" in err
    assert called("inspect", tmp_path, "--show", -1)[0] == 2
