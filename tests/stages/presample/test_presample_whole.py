"""Stage 1 disturbed: shares of the prompts and their merge, Ctrl-C, a full disk, kills at random moments."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from presample_runs import PROMPTS, config_of, made, result, stored

from dphrl.cli.main import main
from dphrl.config.root import Config
from dphrl.errors import ConfigError, RunDirError
from dphrl.files import read_json, write_json
from dphrl.runs import draw_and_store as drawing
from dphrl.runs import samples
from dphrl.runs.lock import exclusive
from dphrl.runs.run_dir import RunDir, open_run
from dphrl.runs.samples import SampleFiles
from dphrl.sampling.transformers_sampler import TransformersSampler
from dphrl.stages.presample.merge_shares import merge_shares
from dphrl.stages.presample.prompt_share import PromptShare, parse_share
from dphrl.types import Completion


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that nothing disturbed."""
    return made(config_of(tmp_path_factory.mktemp("whole")))


def shares(tmp_path: Path, of: int = 3) -> list[Path]:
    anchor = {"also": [{"task": "demo:reversal", "prompts": 5}]}
    return [made(config_of(tmp_path / f"s{i}", anchor=anchor), shard=PromptShare(i, of)).root for i in range(1, of + 1)]


def test_merged_shares_are_what_one_run_makes(tmp_path: Path) -> None:
    folders = shares(tmp_path)
    one = made(config_of(tmp_path / "one", anchor={"also": [{"task": "demo:reversal", "prompts": 5}]}))
    merged = merge_shares(folders[::-1], tmp_path / "merged")
    assert result(merged) == result(one)
    assert all(stored(merged, label) == stored(one, label) for label in ("task", "reversal"))
    made(config_of(merged.root, anchor={"also": [{"task": "demo:reversal", "prompts": 5}]}))
    shutil.rmtree(merged.anchors)
    merged.partition.unlink()
    assert result(merge_shares(folders, merged.root)) == result(one), "an interrupted merge goes on"
    SampleFiles(merged.draws("task")).paths()[0].unlink()
    with pytest.raises(RunDirError, match="holds presamples already, others than these shares"):
        merge_shares(folders, merged.root)


def test_shares_that_do_not_join_are_named(tmp_path: Path, whole: RunDir) -> None:
    cut_off = open_run(config_of(tmp_path / "s1", anchor={"also": [{"task": "demo:reversal", "prompts": 5}]}))
    cut_off.presample.mkdir()  # the disk was full before anything was drawn
    first, second, third = shares(tmp_path)
    with pytest.raises(RunDirError, match="share 2/3 is missing; every share must be given once"):
        merge_shares([first, third], tmp_path / "m")
    with pytest.raises(RunDirError, match=r"s1 and .*s1 hold the same share"):
        merge_shares([first, second, third, first], tmp_path / "m")
    with pytest.raises(RunDirError, match="holds no share of the prompts"):
        merge_shares([first, second, whole.root], tmp_path / "m")
    anchor = {"also": [{"task": "demo:reversal", "prompts": 5}]}
    with pytest.raises(RunDirError, match=r"s1 holds share 1/3 of the prompts; go on with --shard 1/3"):
        made(config_of(first, anchor=anchor))
    with pytest.raises(RunDirError, match="holds presamples of all prompts; give --shard 1/3 another --out"):
        made(config_of(whole.root), shard=PromptShare(1, 3))
    other = made(config_of(tmp_path / "o", anchor={**anchor, "threshold": 3}), shard=PromptShare(3, 3)).root
    with pytest.raises(RunDirError, match=r"(?s)o is of another config than .*s1:\n  anchor.threshold: there 4, now 3"):
        merge_shares([first, second, other], tmp_path / "m")
    copied = next(iter(SampleFiles(third / "presample").paths()))
    shutil.copy(copied, second / "presample" / "completions-00099.parquet")
    with pytest.raises(RunDirError, match=r"s2 holds draws of prompt .*not in its share 2/3"):
        merge_shares([first, second, third], tmp_path / "m")
    (second / "presample" / "completions-00099.parquet").unlink()
    copied.unlink()
    with pytest.raises(RunDirError, match=r"s3: draws of 8 prompts are missing, first .*finish it with .*--shard 3/3"):
        merge_shares([first, second, third], tmp_path / "m")
    drawn_by = read_json(third / "presample/drawn.json")
    drawn_by["fingerprint"]["weights"] = "0" * 32
    write_json(third / "presample/drawn.json", drawn_by)
    with pytest.raises(
        RunDirError,
        match=r"(?s)s3 was drawn by another policy, or for other prompts, than here:\n  fingerprint.weights",
    ):
        merge_shares([first, second, third], tmp_path / "m")
    for name in ("drawn.json", "shard.json"):
        (third / "presample" / name).write_text("{")
        with pytest.raises(RunDirError, match=rf"{name} is damaged \(JSONDecodeError"):
            merge_shares([first, second, third], tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/3/5", "-1/3"])
def test_a_share_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"must be i/N with 1 <= i <= N"):
        parse_share(text)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run")
    (tmp_path / "run").mkdir()
    with exclusive(tmp_path / "run"), pytest.raises(RunDirError, match=r"another process is at work in .*run"):
        made(config)


def interrupted(batches: int, error: Callable[[], BaseException], patch: pytest.MonkeyPatch) -> None:
    """The error comes when this many batches are drawn."""
    inner = TransformersSampler.draw
    left = iter(range(batches))

    def draw(self: Any, requests: Any) -> Iterator[list[Completion]]:
        for batch in inner(self, requests):
            if next(left, None) is None:
                raise error()
            yield batch

    patch.setattr(TransformersSampler, "draw", draw)


@pytest.mark.parametrize("batches", [0, 1, 5, 9])
def test_ctrl_c_keeps_what_was_drawn_and_the_end_is_the_same(batches: int, whole: RunDir, tmp_path: Path) -> None:
    config = config_of(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        interrupted(batches, KeyboardInterrupt, patch)
        with pytest.raises(KeyboardInterrupt):
            made(config)
    kept = stored(RunDir(tmp_path / "run"))
    assert (len(kept) > 0) == (batches > 0)
    assert result(made(config)) == result(whole)
    assert kept.items() <= stored(RunDir(tmp_path / "run")).items() == stored(whole).items()


def test_ctrl_c_ends_the_command_with_130(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    sampling = {"max_new_tokens": 12, "batch_size": 16}
    task = {"data": "demo:arithmetic", "limit": PROMPTS}
    path.write_text(json.dumps({"model": {"path": "demo", "device": "cpu"}, "task": task, "sampling": sampling}))
    with pytest.MonkeyPatch.context() as patch:
        interrupted(1, KeyboardInterrupt, patch)
        assert main(["presample", "--config", str(path), "--out", str(tmp_path / "run"), "--threads", "1"]) == 130
    assert "goes on" in capsys.readouterr().err and stored(RunDir(tmp_path / "run"))


@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_full_disk_is_named_and_what_was_stored_stays(write: int, whole: RunDir, tmp_path: Path) -> None:
    """The disk is full from the n-th shard of completions on; room is made, and the same command goes on."""
    inner, times = samples.pq.write_table, iter(range(1, write))

    def full(table: Any, where: Path, **options: Any) -> None:
        if next(times, None) is None:
            where.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(where))
        inner(table, where, **options)

    config = config_of(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples.pq, "write_table", full)
        with pytest.raises(RunDirError, match=r"completions-.*could not be written: No space left on device.*goes on"):
            made(config)
    kept = stored(RunDir(tmp_path / "run"))
    assert (len(kept) > 0) == (write > 1) and not list((tmp_path / "run").rglob("*.tmp"))
    assert result(made(config)) == result(whole)


def test_a_limit_on_file_sizes_is_a_clear_error_too(tmp_path: Path) -> None:
    """A real failing write, in a process of its own: no file may grow beyond 2,500 bytes."""
    import resource

    config = config_of(tmp_path / "run", task={"limit": 100})
    status = in_child(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500)), config)
    assert status == 2, (tmp_path / "error").read_text() if (tmp_path / "error").exists() else status
    made(config)


def in_child(before: Callable[[], None], config: Config) -> int:
    """The stage in a forked copy of this process: exit status 0 done, 2 a RunDirError that names a file, 3 another
    end, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        status = 3
        try:
            before()
            made(config)
            status = 0
        except RunDirError as error:
            status = 2 if "could not be written" in str(error) and config.out in str(error) else 3
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


FILE_EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "shutil.rmtree", "mmap.__new__", "os.truncate"})


def killed_at(event: int) -> Callable[[], None]:
    """In the child: SIGKILL just before its n-th operation on files of runs."""

    def arm() -> None:
        count = 0

        def hook(name: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if name in FILE_EVENTS and "kill-me" in str(arguments):
                count += 1
                if count == event:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)

    return arm


@pytest.mark.slow
def test_killed_at_thirty_random_moments_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """Small shards, so that there is much to tear apart; each kill comes before a random file operation."""
    sections: dict[str, Any] = {"task": {"limit": 12}, "anchor": {"also": [{"task": "demo:reversal", "prompts": 4}]}}
    rng = random.Random(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "FILE_COMPLETIONS", 5)
        patch.setattr("dphrl.stages.presample.make_anchors.CHUNK", 3)
        whole = made(config_of(tmp_path / "whole", **sections))
        kills = round_ = 0
        while kills < 30:
            round_ += 1
            config = config_of(tmp_path / f"kill-me-{round_}", **sections)
            run = RunDir(Path(config.out))
            labels = ("task", "reversal")
            kept: dict[str, dict[tuple[str, int], Completion]] = {label: {} for label in labels}
            while (status := in_child(killed_at(rng.randint(1, 120)), config)) == -signal.SIGKILL:
                kills += 1
                now = {label: stored(run, label) for label in labels}
                assert all(kept[label].items() <= now[label].items() for label in labels), "committed draws are kept"
                kept = now
            assert status == 0
            assert result(run) == result(whole)
            assert all(stored(run, label) == stored(whole, label) for label in labels)
            assert not list(run.presample.rglob("*.tmp")), "what a kill left is swept away"
