"""The demo world: made again from its seed, honest about its readings, and shipped whole."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from dphrl.demo.build import MANIFEST, build_world
from dphrl.demo.database import TABLES, open_database
from dphrl.demo.queries import READINGS, Reading, all_queries, corrupt, draw_query, draw_question, plain_query
from dphrl.demo.task import ASSETS, DEMO_TASKS, SQL_TASKS, canonical, load_demo_task, model_folder, world_database
from dphrl.demo.tokenizer import MAX_LENGTH, build_tokenizer, vocabulary
from dphrl.demo.world import (
    PROMPT_KINDS,
    SPLIT_SIZES,
    base_support,
    draw_sft_example,
    is_trivial,
    query_rows,
)
from dphrl.errors import DataError
from dphrl.types import item_of

LONGEST_PROMPT, LONGEST_COMPLETION = 30, 32
LARGEST_ASSETS = 2_000_000


@pytest.fixture(scope="module")
def world() -> Iterator[sqlite3.Connection]:
    """The shipped database."""
    connection = open_database(world_database())
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def manifest() -> dict[str, object]:
    """The shipped manifest."""
    return dict(json.loads((ASSETS / MANIFEST).read_text()))


def dump(path: Path) -> list[str]:
    """Content of a database; its bytes hold the version of SQLite."""
    connection = open_database(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def rows_of_prompts() -> list[dict[str, str]]:
    return [json.loads(line) for line in (ASSETS / "prompts.jsonl").read_text().splitlines()]


def test_the_manifest_seed_makes_the_shipped_world_again(tmp_path: Path, manifest: dict[str, object]) -> None:
    problems = build_world(tmp_path, seed=int(str(manifest["seed"])))
    assert dump(world_database(tmp_path)) == dump(world_database())
    assert [asdict(problem) for problem in problems] == rows_of_prompts()


def test_another_seed_makes_another_world(tmp_path: Path) -> None:
    problems = build_world(tmp_path, seed=1)
    assert dump(world_database(tmp_path)) != dump(world_database())
    assert [asdict(problem) for problem in problems] != rows_of_prompts()


def test_assets_match_the_manifest(manifest: dict[str, object]) -> None:
    digests = manifest["sha256"]
    assert isinstance(digests, dict)
    files = [path for path in ASSETS.rglob("*") if path.is_file()]
    names = {path.relative_to(ASSETS).as_posix() for path in files} - {MANIFEST, "README.md"}
    assert names == set(digests)
    for name, digest in digests.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == digest, name
    assert sum(path.stat().st_size for path in files) < LARGEST_ASSETS


def test_the_manifest_shows_a_base_worth_training(manifest: dict[str, object]) -> None:
    """Right at the first draw about six times in ten, and nearly always within eight."""
    base = manifest["base"]
    assert isinstance(base, dict)
    assert 0.5 < base["in_domain"]["mean@64"] < 0.7
    assert base["in_domain"]["pass@8"] > 0.95
    assert base["in_domain"]["distinct_correct"] > 5
    assert base["arithmetic"]["mean@64"] > 0.8
    assert base["reversal"]["mean@64"] > 0.8


def test_tasks_have_their_sizes_unique_ids_and_disjoint_texts() -> None:
    tasks = {(name, split): load_demo_task(name, split) for name in DEMO_TASKS for split in ("train", "eval")}
    sizes = {name: {split: len(tasks[name, split].prompts) for split in ("train", "eval")} for name in DEMO_TASKS}
    assert sizes == SPLIT_SIZES
    prompts = [prompt for task in tasks.values() for prompt in task.prompts]
    assert len({prompt.id for prompt in prompts}) == len({prompt.prompt for prompt in prompts}) == len(prompts)
    assert tasks["in_domain", "train"].prompts[17].id == "in_domain-train-00017"


@pytest.mark.parametrize("task", SQL_TASKS)
@pytest.mark.parametrize("split", ["train", "eval"])
def test_every_split_has_the_declared_share_of_each_kind(task: str, split: str) -> None:
    kinds = Counter(row["kind"] for row in rows_of_prompts() if (row["task"], row["split"]) == (task, split))
    for kind, share in PROMPT_KINDS.items():
        assert abs(kinds[kind] - share * kinds.total()) <= 1


def test_gold_queries_run_and_say_something(world: sqlite3.Connection) -> None:
    for row in rows_of_prompts():
        if row["task"] in SQL_TASKS:
            assert not is_trivial(query_rows(world, row["gold"])), row


def test_conventions_differ_on_the_database(world: sqlite3.Connection) -> None:
    """The two readings of each ambiguous part give different rows for some questions, and equal ones for others."""
    rng = random.Random(3)
    seen: dict[tuple[str, str], set[bool]] = {}
    for _ in range(1500):
        question = draw_question(TABLES, rng=rng)
        first, second_target, second_condition = (
            query_rows(world, plain_query(question, reading))
            for reading in (Reading(False, False), Reading(True, False), Reading(False, True))
        )
        seen.setdefault(("target", question.target), set()).add(first == second_target)
        seen.setdefault(("condition", question.condition), set()).add(first == second_condition)
    assert seen.pop(("condition", "is")) == {True}  # the one part that has a single reading
    assert len(seen) == 5
    assert all(outcomes == {True, False} for outcomes in seen.values()), seen


def test_styles_of_a_reading_agree(world: sqlite3.Connection) -> None:
    rng = random.Random(5)
    for _ in range(150):
        question = draw_question(TABLES, rng=rng)
        for reading in READINGS:
            queries = all_queries(question, reading)
            assert len(queries) >= 4
            assert draw_query(question, reading, rng=rng) in queries
            first, *others = [query_rows(world, query) for query in queries]
            assert all(rows == first for rows in others), queries


def test_support_counts_the_readings_that_give_the_gold_rows(world: sqlite3.Connection) -> None:
    """By hand: a condition with one reading and a target with two leaves 1.0, 0.3 or 0.7."""
    rng = random.Random(9)
    questions = [draw_question(TABLES, rng=rng) for _ in range(400)]
    found = {
        round(base_support(world, question, query_rows(world, plain_query(question, Reading(True, False)))), 2)
        for question in questions
        if question.condition == "is"
    }
    assert found == {0.3, 0.7, 1.0}


def test_a_corrupted_query_differs_in_one_token() -> None:
    rng = random.Random(11)
    for _ in range(200):
        question = draw_question(TABLES, rng=rng)
        query = draw_query(question, rng.choice(READINGS), rng=rng)
        pairs = zip(query.split(), corrupt(query, rng=rng).split(), strict=True)
        assert sum(before != after for before, after in pairs) == 1


def test_the_tokenizer_knows_every_word_and_gives_the_text_back() -> None:
    tokenizer = build_tokenizer()
    assert 150 <= len(vocabulary()) <= 300
    rng = random.Random(13)
    texts = [(row["prompt"], row["gold"]) for row in rows_of_prompts()]
    for prompt, completion in [*texts, *(draw_sft_example(rng=rng) for _ in range(1000))]:
        for text, longest in ((prompt, LONGEST_PROMPT), (completion, LONGEST_COMPLETION)):
            ids = tokenizer(text).input_ids
            assert tokenizer.unk_token_id not in ids, text
            assert tokenizer.decode(ids) == text
            assert len(ids) <= longest
    assert tokenizer.padding_side == "left"
    assert LONGEST_PROMPT + LONGEST_COMPLETION < MAX_LENGTH


def test_the_shipped_model_and_tokenizer_load() -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    model = AutoModelForCausalLM.from_pretrained(model_folder())
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()
    assert (tokenizer.padding_side, tokenizer.eos_token, tokenizer.pad_token) == ("left", "<end>", "<pad>")
    assert 100_000 < model.num_parameters() < 300_000
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    prompt = load_demo_task("reversal", "eval").prompts[0]
    batch = tokenizer(prompt.prompt, return_tensors="pt")
    output = model.generate(**batch, max_new_tokens=8, do_sample=False)[0, batch.input_ids.shape[1] :]
    assert tokenizer.decode(output, skip_special_tokens=True) == prompt.columns["gold"]


def test_prompts_have_the_columns_that_their_verifier_reads() -> None:
    """An interrupted training goes on only with the same prompts, columns among them (RUN/train/started.json)."""
    assert {frozenset(p.columns) for p in load_demo_task("in_domain", "train").prompts} == {frozenset({"gold", "db"})}
    assert {frozenset(p.columns) for p in load_demo_task("reversal", "train").prompts} == {frozenset({"gold"})}


def test_sql_verdicts_tell_conventions_apart() -> None:
    """A gold with DISTINCT is not met by the query without it, but by another writing of the same reading."""
    task = load_demo_task("in_domain", "eval")
    kinds = {row["id"]: row["kind"] for row in rows_of_prompts()}
    prompt = next(
        prompt
        for prompt in task.prompts
        if kinds[prompt.id] != "agreed" and prompt.columns["gold"].startswith("SELECT DISTINCT")
    )
    gold = prompt.columns["gold"]
    other = gold.replace(" WHERE ", " WHERE 1 = 1 AND ")
    answers = [gold, other, gold.replace("DISTINCT ", ""), "SELECT nothing FROM nowhere", ""]
    verdicts = task.verify([item_of(prompt, answer) for answer in answers])
    assert [verdict.status for verdict in verdicts] == ["correct", "correct", "wrong", "invalid", "no_answer"]


def test_text_verdicts() -> None:
    task = load_demo_task("arithmetic", "eval")
    prompt = task.prompts[0]
    verdicts = task.verify([item_of(prompt, text) for text in (f" {prompt.columns['gold']} ", "999", "  ")])
    assert [verdict.status for verdict in verdicts] == ["correct", "wrong", "no_answer"]


def test_canonical_keeps_writings_apart_and_forgives_spacing() -> None:
    assert canonical("SELECT  a\nFROM t ;") == canonical("select a from t")
    assert canonical("SELECT a FROM t WHERE b > 3") != canonical("SELECT a FROM t WHERE 3 < b")


@pytest.mark.parametrize(("name", "split"), [("in_domian", "train"), ("reversal", "test")])
def test_an_unknown_task_or_split_is_named(name: str, split: str) -> None:
    with pytest.raises(DataError, match=name):
        load_demo_task(name, split)  # type: ignore[arg-type]


def test_missing_assets_name_the_rebuild(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dphrl\.demo\.build"):
        load_demo_task("reversal", assets=tmp_path)
