"""The anchor store: what goes in comes out, damage and foreign stores are refused, a killed writer goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anchor_stores import write_anchors
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from dphrl.anchors import (
    StoreWriter,
    anchor_key,
    anchor_lengths,
    is_sealed,
    mean_prompt_length,
    merge_stores,
    open_store,
    prompt_numbers,
)
from dphrl.anchors import writer as writer_module
from dphrl.errors import AnchorError, EmptyAnchorStore
from dphrl.files import read_json, write_json
from dphrl.types import Anchor

PRINT = {"weights": "w", "tokenizer": "t", "chat_template": "c"}
MADE = {"seed": 3, "tasks": ["task", "math"]}


def anchor(number: int, task: str = "task", draw: int = 0, topk: int = 0) -> Anchor:
    rng = np.random.default_rng([number, draw])
    tokens = int(rng.integers(1, 9))

    def logps(*shape: int) -> Any:
        return (-rng.exponential(1, shape)).astype(np.float32).tolist()

    return Anchor(
        f"prompt {number} é",
        tuple(rng.integers(0, 2**31 - 1, rng.integers(0, 5)).tolist()),
        tuple(rng.integers(0, 99, tokens).tolist()),
        tuple(logps(tokens)),
        task,
        draw,
        tuple(map(tuple, rng.integers(0, 99, (tokens, topk)).tolist())) if topk else (),
        tuple(map(tuple, logps(tokens, topk))) if topk else (),
    )


ANCHORS = (anchor(0), anchor(0, draw=1), anchor(0, task="math"), anchor(1), anchor(2))
KEYS = [anchor_key(a) for a in ANCHORS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed store."""
    write_anchors(tmp_path / "s", ANCHORS, PRINT, MADE)
    return tmp_path / "s"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@given(
    keys=st.lists(st.tuples(st.text(max_size=3), st.text(max_size=5), st.integers(-1, 9)), min_size=1, unique=True),
    topk=st.integers(0, 3),
    data=st.data(),
)
@settings(max_examples=25, deadline=None)
def test_what_goes_in_comes_out_in_order(
    keys: list[tuple[str, str, int]], topk: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = [replace(anchor(i, topk=topk), task=t, prompt_id=p, draw=d) for i, (t, p, d) in enumerate(keys)]
    cut = data.draw(st.integers(0, len(made)))
    path = tmp_path_factory.mktemp("store")
    writer = StoreWriter(path, PRINT, MADE, topk)
    writer.add(made[:cut])
    writer.add(made[cut:])
    assert list(writer.done) == keys
    writer.seal()
    store = open_store(path, PRINT)
    assert list(store) == made
    assert store.lengths.tolist() == [len(a.completion_ids) for a in store] == anchor_lengths(tuple(store)).tolist()
    assert store.manifest.tokens == store.lengths.sum() and store.manifest.anchors == len(store) == len(keys)


def test_an_anchor_has_a_logp_for_each_token() -> None:
    with pytest.raises(ValueError, match="2 completion tokens and 1"):
        Anchor("a", (1,), (2, 3), (-1.0,))


def test_a_store_is_a_sequence(folder: Path) -> None:
    store = open_store(folder, PRINT)
    assert store[-1] == ANCHORS[-1] == store[np.int64(4)]
    assert store[1:3] == ANCHORS[1:3] and store[::-1] == ANCHORS[::-1]
    assert ANCHORS[2] in store and store.index(ANCHORS[2]) == 2
    for place in (5, -6):
        with pytest.raises(IndexError, match=f"{place} of 5"):
            store[place]
    assert anchor_lengths(store) is store.lengths
    assert store[:] == ANCHORS


def test_the_bytes_depend_on_the_anchors_and_their_order_alone(folder: Path, tmp_path: Path) -> None:
    for cuts in ((1, 2, 3, 4), (3,)):
        path = tmp_path / str(cuts)
        for part in np.split(np.arange(5), cuts):  # a new writer each time: a run that was killed and goes on
            StoreWriter(path, PRINT, MADE).add([ANCHORS[i] for i in part])
        StoreWriter(path, PRINT, MADE).seal()
        assert contents(path) == contents(folder)


def test_many_shards_are_one_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [anchor(i) for i in range(40)]
    monkeypatch.setattr(writer_module, "FILE_BYTES", 500)
    monkeypatch.setattr("dphrl.anchors.arrow_files.BATCH_BYTES", 200)
    write_anchors(tmp_path / "s", made, PRINT, MADE)
    store = open_store(tmp_path / "s", PRINT, check="full")
    assert len(store.files) > 5 and list(store) == made
    assert [made[i] for i in (17, 3, 39)] == [store[i] for i in (17, 3, 39)]


def test_a_store_of_schema_2_is_read_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schema 2 had one record batch in each file; all else was the same."""
    with monkeypatch.context() as patch:
        patch.setattr("dphrl.anchors.manifest.SCHEMA", 2)
        patch.setattr("dphrl.anchors.arrow_files.BATCH_BYTES", 10**12)
        write_anchors(tmp_path / "old", ANCHORS, PRINT, MADE)
        StoreWriter(tmp_path / "half", PRINT, MADE).add(ANCHORS[:3])
    assert read_json(tmp_path / "old" / "manifest.json")["schema"] == 2
    store = open_store(tmp_path / "old", PRINT, check="full")
    assert store.manifest.schema == 2 and tuple(store) == ANCHORS
    half = StoreWriter(tmp_path / "half", PRINT, MADE)
    half.add(ANCHORS[3:])
    half.seal()
    new = merge_stores([tmp_path / "old"], tmp_path / "new")
    assert new.manifest.schema == 3 and tuple(new) == ANCHORS and contents(tmp_path / "half") == contents(new.folder)


def test_what_was_killed_before_its_manifest_leaves_the_store_as_it_was(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t"
    writer = StoreWriter(path, PRINT, MADE)
    writer.add(ANCHORS[:2])

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    for step in (lambda: writer.add(ANCHORS[2:]), writer.seal):
        with monkeypatch.context() as patch:
            patch.setattr("dphrl.anchors.manifest.write_text", killed)
            with pytest.raises(KeyboardInterrupt):
                step()
        assert len(list(path.glob("*.arrow"))) > 1  # files that no manifest names
        assert not is_sealed(path) and set(StoreWriter(path, PRINT, MADE).done) == set(KEYS[:2])
        assert [p.name for p in path.glob("*.arrow")] == ["scored-00000.arrow"]
    again = StoreWriter(path, PRINT, MADE)
    again.add([a for a in ANCHORS if anchor_key(a) not in again.done])
    again.seal()
    assert contents(path) == contents(folder)


def test_a_full_disk_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = StoreWriter(tmp_path, PRINT, MADE)
    writer.add(ANCHORS[:2])
    before = contents(tmp_path)

    def full(path: Path, anchors: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for step in (lambda: writer.add(ANCHORS[2:]), writer.seal):
        with monkeypatch.context() as patch, pytest.raises(OSError, match=r"No space left"):
            patch.setattr(writer_module, "write_anchor_file", full)
            step()
        assert contents(tmp_path) == before
    writer.add(ANCHORS[2:])
    writer.seal()
    assert tuple(open_store(tmp_path, PRINT)) == ANCHORS


def test_anchors_that_cannot_be_stored_are_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path, PRINT, MADE, topk=2)
    good = anchor(0, topk=2)
    writer.add([])
    writer.add([good])
    for bad, message in (
        ([good], r"twice: \[\('task', 'prompt 0 é', 0\)\]"),
        ([anchor(1, topk=2), anchor(1, topk=2)], "twice"),
        ([anchor(1)], "topk=2"),
        ([anchor(1, topk=3)], "topk=2"),
        ([anchor(1, topk=2), replace(anchor(2), completion_ids=(1,), ref_logps=(float("nan"),))], "not finite"),
    ):
        with pytest.raises(AnchorError, match=message):
            writer.add(bad)
    assert list(writer.done) == [anchor_key(good)]
    writer.seal()
    assert tuple(open_store(tmp_path, PRINT)) == (good,)


def test_an_empty_store_cannot_be_sealed(tmp_path: Path) -> None:
    with pytest.raises(EmptyAnchorStore, match="threshold"):
        StoreWriter(tmp_path, PRINT, MADE).seal()
    assert not is_sealed(tmp_path)


def test_a_sealed_store_takes_no_more_but_may_be_sealed_again(folder: Path) -> None:
    before = contents(folder)
    writer = StoreWriter(folder, PRINT, MADE)
    assert writer.sealed and list(writer.done) == KEYS
    with pytest.raises(AnchorError, match="is sealed; delete it"):
        writer.add([anchor(9)])
    writer.seal()
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("prints", "made", "topk", "message"),
    [
        ({**PRINT, "weights": "x"}, MADE, 0, "another weights(.|\n)*anchors 'w', this run 'x'"),
        (PRINT, {**MADE, "seed": 4}, 0, "seed: there 3, this run 4(.|\n)*another --out"),
        (PRINT, MADE, 2, "topk: there 0, this run 2"),
    ],
)
def test_a_writer_goes_on_only_with_the_same_policy_and_settings(
    prints: Any, made: Any, topk: int, message: str, tmp_path: Path
) -> None:
    StoreWriter(tmp_path, PRINT, MADE).add(ANCHORS)
    with pytest.raises(AnchorError, match=message):
        StoreWriter(tmp_path, prints, made, topk)


@pytest.mark.parametrize(
    ("part", "remedy"),
    [("weights", "train the model"), ("tokenizer", "take the tokenizer"), ("chat_template", "take the chat template")],
)
def test_a_foreign_policy_is_refused_and_both_sides_are_named(part: str, remedy: str, folder: Path) -> None:
    with pytest.raises(AnchorError, match=rf"another {part}:(.|\n)*anchors '{part[0]}', this run 'x'(.|\n)*{remedy}"):
        open_store(folder, {**PRINT, part: "x"})


def flip(path: Path, place: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def edit(folder: Path, **changes: Any) -> None:
    write_json(folder / "manifest.json", {**read_json(folder / "manifest.json"), **changes})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "part-00000.arrow").unlink(), "is missing.*5 anchors.*copy part-00000.arrow again.*presample"),
        (lambda f: os.truncate(f / "part-00000.arrow", 100), "is truncated: 100 bytes.*presample"),
        (lambda f: os.truncate(f / "part-00000.arrow", 100_000), "is longer than it was"),
        (lambda f: flip(f / "part-00000.arrow", -1), "no whole file"),
        (lambda f: flip(f / "index.arrow", 200), "index.arrow is damaged.*presample"),
        (lambda f: (f / "index.arrow").unlink(), "index.arrow is missing"),
        (lambda f: edit(f, schema=99), "schema 99, newer than the 3.*install"),
        (
            lambda f: write_json(f / "manifest.json", {"format": 1}),
            "schema 1.*presample.*draws are kept",
        ),
        (lambda f: edit(f, topk=4), "manifest.json is damaged or was edited"),
        (lambda f: (f / "manifest.json").write_text("{"), "no JSON object.*presample"),
        (lambda f: (f / "manifest.json").unlink(), "holds no anchors; run `dphrl presample`"),
    ],
)
def test_a_store_that_is_not_whole_is_refused_at_opening(
    damage: Callable[[Path], Any], message: str, folder: Path
) -> None:
    damage(folder)
    with pytest.raises(AnchorError, match=message):
        open_store(folder, PRINT)


def test_an_unsealed_store_is_refused(tmp_path: Path) -> None:
    StoreWriter(tmp_path, PRINT, MADE).add(ANCHORS)
    with pytest.raises(AnchorError, match=r"not sealed: 5 anchors.*`dphrl presample` again"):
        open_store(tmp_path, PRINT)
    flip(tmp_path / "scored-00000.arrow", 900)
    with pytest.raises(AnchorError, match=r"scored-00000.arrow is damaged: its SHA-256"):
        StoreWriter(tmp_path, PRINT, MADE)


def test_what_to_check_is_one_of_two(folder: Path) -> None:
    with pytest.raises(AnchorError, match="'ful' is not one of sizes, full; did you mean 'full'"):
        open_store(folder, PRINT, check="ful")


def test_no_flipped_bit_is_read_unnoticed(tmp_path: Path) -> None:
    """One bit after the other: refused at opening or at the read, or it lies in padding and changes nothing."""
    made = anchor(1, topk=2)
    writer = StoreWriter(tmp_path, PRINT, MADE, topk=2)
    writer.add([made])
    writer.seal()
    path = tmp_path / "part-00000.arrow"
    whole = path.read_bytes()
    places = range(0, len(whole), 5)
    refused = 0
    for place in places:
        flip(path, place, place % 8)
        try:
            assert open_store(tmp_path, PRINT)[0] == made
        except (AnchorError, TypeCheckError):  # the latter: the tests' type checks read an anchor of what is returned
            refused += 1
        path.write_bytes(whole)
    assert refused * 5 > 24 * len(made.completion_ids) + 4 * len(made.prompt_ids)
    assert open_store(tmp_path, PRINT)[0] == made


def test_a_bit_that_flips_after_opening_is_noticed_at_the_read(folder: Path) -> None:
    store = open_store(folder, PRINT, check="full")
    path = folder / "part-00000.arrow"
    ids = np.array(ANCHORS[3].completion_ids, np.int32).tobytes()
    flip(path, path.read_bytes().rindex(ids))
    assert store[4] == ANCHORS[4]
    with pytest.raises(AnchorError, match=r"damaged: the checksum of row 3.*anchors verify.*presample"):
        store[3]
    os.truncate(path, 64)
    with pytest.raises(AnchorError, match=r"part-00000.arrow is damaged.*anchors verify"):
        store[4]


def test_stores_of_one_policy_are_merged(folder: Path, tmp_path: Path) -> None:
    for name, part in (("a", ANCHORS[:3]), ("b", ANCHORS[3:])):
        write_anchors(tmp_path / name, part, PRINT, MADE)
    parts = [tmp_path / "a", tmp_path / "b"]
    assert tuple(merge_stores(parts, tmp_path / "ab")) == ANCHORS
    assert contents(tmp_path / "ab") == contents(folder)
    assert tuple(merge_stores(parts[::-1], tmp_path / "ba")) == (*ANCHORS[3:], *ANCHORS[:3])


@pytest.mark.parametrize(
    ("anchors", "prints", "made", "message"),
    [
        ((anchor(9), ANCHORS[4]), PRINT, MADE, r"anchor \[\('task', 'prompt 2 é', 0\)\]"),
        ((anchor(9),), {**PRINT, "tokenizer": "x"}, MADE, "another tokenizer(.|\n)*anchors 'x'"),
        ((anchor(9),), PRINT, {**MADE, "seed": 1}, "seed: there 1"),
    ],
)
def test_stores_that_do_not_belong_together_are_not_merged(
    anchors: Any, prints: Any, made: Any, message: str, folder: Path, tmp_path: Path
) -> None:
    write_anchors(tmp_path / "b", anchors, prints, made)
    with pytest.raises(AnchorError, match=message):
        merge_stores([folder, tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_merge_needs_stores_and_a_new_folder(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AnchorError, match="no store to merge"):
        merge_stores([], tmp_path / "out")
    with pytest.raises(AnchorError, match="is there already"):
        merge_stores([folder], folder)


def test_a_store_numbers_its_prompts_as_its_anchors_do(folder: Path) -> None:
    """Neighbours of one task and prompt share a number: anchor 0 twice; of another task, anchors 1 and 2."""
    store = open_store(folder, None)
    assert prompt_numbers(store).tolist() == prompt_numbers(tuple(store)).tolist()
    names = [(a.task, a.prompt_id) for a in store]
    assert [a == b for a, b in pairwise(prompt_numbers(store).tolist())] == [a == b for a, b in pairwise(names)]
    assert mean_prompt_length(store) == mean_prompt_length(tuple(store))
