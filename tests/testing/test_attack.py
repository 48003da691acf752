"""The attack on verifiers: ours hold, and every kind of bad verifier is found out, with the text that did it."""

from __future__ import annotations

import math
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dphrl.cli.main import main
from dphrl.config.load import build_config
from dphrl.errors import DataError
from dphrl.tasks import load_task
from dphrl.testing import check_verifier, hostile_texts
from dphrl.types import Item, Verdict, VerifyFn, item_of
from dphrl.verifiers import load_verifier
from dphrl.verifiers.user_function import from_reward_function

ROOT = Path(__file__).parents[2]
HONEST: list[Item] = [
    {"completion": "7 + 5 = 12", "gold": "12", "prompt": "What is 7 + 5?"},
    {"completion": "It is 977", "gold": "977", "prompt": [{"role": "user", "content": "Which prime?"}]},
]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad verifiers write where they run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def last_word(text: str) -> str:
    return (text.split() or [""])[-1]


def judged(correct: bool) -> Verdict:
    return Verdict(correct, float(correct), "correct" if correct else "wrong")


def good(items: Sequence[Item]) -> list[Verdict]:
    return [judged(last_word(item["completion"]) == item["gold"]) for item in items]


def faults(verify: Callable[..., Any], **options: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        check_verifier(verify, items=HONEST, **options)
    return str(caught.value)


def rewards(completions: Sequence[Any], gold: Sequence[str], **_: Any) -> list[float]:
    texts = [text if isinstance(text, str) else text[0]["content"] for text in completions]
    return [float(last_word(text) == right) for text, right in zip(texts, gold, strict=True)]


@pytest.mark.parametrize(
    "verify", [good, from_reward_function(rewards, "rewards")], ids=["verifier", "reward function"]
)
def test_a_good_verifier_passes(verify: VerifyFn) -> None:
    check_verifier(verify, items=HONEST)


def cannot_do_nothing(items: Sequence[Item]) -> list[Verdict]:
    items[0]
    return good(items)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "items"),
    [
        ("exact", [{"completion": " yes\n", "gold": "yes"}, {"completion": "{}", "gold": "{}", "prompt": "braces?"}]),
        ("math", [{"completion": r"so \boxed{1 + x}", "gold": "x+1", "prompt": "What is $x$ plus one?"}]),
    ],
)
def test_ours_pass(task: str, items: list[Item]) -> None:
    check_verifier(load_verifier(task, {}), items=items)


def test_ours_for_sql_passes(tmp_path: Path) -> None:
    """The database lies in the current directory, which nothing may touch."""
    with closing(sqlite3.connect("shop.sqlite")) as connection:
        connection.executescript("CREATE TABLE t(a INTEGER, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, 'y')")
    item = {"gold": "SELECT a, b FROM t ORDER BY a", "db": "shop.sqlite", "prompt": "All of t?"}
    items = [
        {**item, "completion": "```sql\nSELECT a, b FROM t ORDER BY 1\n```"},
        {**item, "completion": "SELECT * FROM t", "mode": "bird"},
    ]
    check_verifier(load_verifier("sql", {}), items=items)
    assert [path.name for path in tmp_path.iterdir()] == ["shop.sqlite"]


def evaluates(items: Sequence[Item]) -> list[Verdict]:
    verdicts = []
    for item in items:
        try:
            right = bool(eval(item["completion"][:500]) == item["gold"])
        except Exception:
            right = good([item])[0].correct
        verdicts.append(judged(right))
    return verdicts


def dies_of_surrogates(items: Sequence[Item]) -> list[Verdict]:
    for item in items:
        item["completion"].encode()
    return good(items)


def likes_silence(items: Sequence[Item]) -> list[Verdict]:
    return [judged(item["completion"] == "" or last_word(item["completion"]) == item["gold"]) for item in items]


def ranks(items: Sequence[Item]) -> list[Verdict]:
    """The first of a batch is always wrong, unless it is alone."""
    return [judged(v.correct and (n > 0 or len(items) == 1)) for n, v in enumerate(good(items))]


def answers_sorted(items: Sequence[Item]) -> list[Verdict]:
    return sorted(good(items), key=lambda verdict: verdict.correct)


def with_state() -> VerifyFn:
    seen: set[str] = set()

    def verify(items: Sequence[Item]) -> list[Verdict]:
        new = [item["completion"] not in seen for item in items]
        seen.update(item["completion"] for item in items)
        return [judged(v.correct and fresh) for v, fresh in zip(good(items), new, strict=True)]

    return verify


def drops_empty_ones(items: Sequence[Item]) -> list[Verdict]:
    return good([item for item in items if item["completion"].strip()])


def writes_a_log(items: Sequence[Item]) -> list[Verdict]:
    with Path("verifier.log").open("a") as log:
        log.write(f"{len(items)}\n")
    return good(items)


def finds_it_anywhere(items: Sequence[Item]) -> list[Verdict]:
    return [judged(str(item["gold"]) in item["completion"]) for item in items]


def takes_any_box(items: Sequence[Item]) -> list[Verdict]:
    return [
        judged(v.correct or item["gold"] in re.findall(r"\\boxed\{(.*?)\}", item["completion"]))
        for item, v in zip(items, good(items), strict=True)
    ]


def ends_the_program(items: Sequence[Item]) -> list[Verdict]:
    if any(item["completion"] == "exit()" for item in items):
        raise SystemExit(0)
    return good(items)


def formats(items: Sequence[Item]) -> list[Verdict]:
    return [judged(last_word(i["completion"].replace("{gold}", i["gold"])) == i["gold"]) for i in items]


def reads_numbers(completions: Sequence[Any], gold: Sequence[str], **_: Any) -> list[float]:
    """A reward function whose int() fails on what is no number."""
    texts = [text if isinstance(text, str) else text[0]["content"] for text in completions]
    return [float(int(last_word(text) or "x") == int(right)) for text, right in zip(texts, gold, strict=True)]


def contradicts_itself(items: Sequence[Item]) -> list[Verdict]:
    return [Verdict(v.correct, v.reward, "wrong") for v in good(items)]


def gives_up(items: Sequence[Item]) -> list[Verdict]:
    return [v if v.correct else Verdict(False, None, "verifier_error", "who knows") for v in good(items)]


def pays_a_little(items: Sequence[Item]) -> list[Verdict]:
    return [v if v.correct else Verdict(False, 0.1, "wrong") for v in good(items)]


def cannot_do_batches(items: Sequence[Item]) -> list[Verdict]:
    if len(items) > 50:
        raise ValueError("too many")
    return good(items)


def nan_rewards(items: Sequence[Item]) -> list[Verdict]:
    return [Verdict(v.correct, math.nan, v.status) for v in good(items)]


def numbers_for_truth(items: Sequence[Item]) -> list[Verdict]:
    return [Verdict(int(v.correct), v.reward, v.status) for v in good(items)]  # type: ignore[arg-type]


BAD: list[tuple[Callable[..., Any], list[str]]] = [
    (
        evaluates,
        [
            "rewarded: correct, reward 1; it is no right answer",
            "Python, equals everything \"type('E', ()",
            "raised SystemExit",
            "made or changed in the current directory:\n   - 'dphrl-hostile-import'\n   - 'dphrl-hostile-python'",
        ],
    ),
    (dies_of_surrogates, ["raised UnicodeEncodeError", "lone high surrogate '\\ud800' (of item 0, 1)", "lone low"]),
    (likes_silence, ["rewarded: correct, reward 1; it is no right answer: empty text '' (of item 0, 1)"]),
    (
        ranks,
        ["correct (reward 1.0) when first judged alone, but wrong (reward 0.0) in one batch: honest", "'7 + 5 = 12'"],
    ),
    (answers_sorted, ["when first judged alone, but wrong (reward 0.0) in one batch"]),
    (with_state(), ["in one batch", "alone again, after all else", "honest completion 'It is 977' (of item 1)"]),
    (drops_empty_ones, ["0 verdicts for 1 completions:\n   - empty text '' (of item 0, 1)\n   - a space ' ' (of item"]),
    (writes_a_log, ["made or changed in the current directory: 'verifier.log'"]),
    (finds_it_anywhere, ["spam of lines", "spam of boxes", "spam of fences", "spam in JSON"]),
    (takes_any_box, ["it is no right answer: spam of boxes"]),
    (ends_the_program, ["raised SystemExit: 0: Python, exits 'exit()' (of item 0, 1)"]),
    (formats, ["it is no right answer: format string of the gold '{gold}' (of item 0, 1)"]),
    (from_reward_function(reads_numbers, "r"), ["could not be judged: verifier_error (ValueError: ", "empty text ''"]),
    (contradicts_itself, ["correct=True does not fit status 'wrong'"]),
    (gives_up, ["could not be judged: verifier_error (who knows)", "   - empty text '' (of item 0, 1)"]),
    (pays_a_little, ["rewarded: wrong, reward 0.1; it is no right answer:\n   - empty text '' (of item 0, 1)"]),
    (cannot_do_batches, ["raised ValueError: too many, in one batch: ", "completions that were judged alone"]),
    (cannot_do_nothing, ["raised IndexError: list index out of range, in an empty batch"]),
    (lambda items: None, ["returned None instead of verdicts"]),
    (lambda items: [1.0] * len(items), ["returned a float where a Verdict must stand", "load_verifier"]),
    (lambda items: [judged(False)] * len(items), ["must be judged correct, was wrong:\n   - honest", "'It is 977'"]),
    (nan_rewards, ["reward=nan, which is no finite number"]),
    (numbers_for_truth, ["correct=1, which is neither True nor False"]),
]


@pytest.mark.parametrize(("verify", "parts"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_verifier_is_found_out(verify: Callable[..., Any], parts: list[str]) -> None:
    said = faults(verify)
    for part in parts:
        assert part in said, said
    head, *lines = said.splitlines()
    assert head == f"faults of the verifier: {sum(not line.startswith('   - ') for line in lines)}"
    assert said.isascii() and said.replace("\n", "").isprintable()


def test_faults_of_one_kind_say_nothing_of_others() -> None:
    """The only fault is the only line."""
    assert faults(likes_silence).splitlines() == [
        "faults of the verifier: 1",
        "1. rewarded: correct, reward 1; it is no right answer: empty text '' (of item 0, 1)",
    ]


def test_partial_credit_may_be_allowed() -> None:
    check_verifier(pays_a_little, items=HONEST, most_reward=0.1)
    assert "no more than a wrong completion may earn" in faults(pays_a_little, most_reward=1.0)


def test_what_equals_the_gold_may_be_right() -> None:
    gold = "__class__"
    verify = load_verifier("exact", {})
    check_verifier(verify, items=[{"completion": gold, "gold": gold}])


def test_a_file_that_was_there_and_changes_is_seen() -> None:
    Path("verifier.log").write_text("old\n")
    assert "current directory: 'verifier.log'" in faults(writes_a_log)


def test_ctrl_c_is_not_a_finding() -> None:
    def interrupted(items: Sequence[Item]) -> list[Verdict]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_verifier(interrupted, items=HONEST)


def test_items_are_checked() -> None:
    with pytest.raises(DataError, match="no items"):
        check_verifier(good, items=[])
    with pytest.raises(DataError, match=r"item 1 has no text 'completion'; it has 'gold'"):
        check_verifier(good, items=[HONEST[0], {"gold": "1"}])


@given(st.text(max_size=20), st.text(max_size=20))
@settings(max_examples=50, deadline=None)
def test_spam_holds_the_gold_but_neither_first_nor_last(gold: str, prompt: str) -> None:
    texts = hostile_texts({"completion": gold, "gold": gold, "prompt": prompt})
    spam = [text for name, text in texts.items() if name.startswith("spam of")]
    assert len(spam) == 6
    for text in spam:
        assert gold in text and "271828.1828" in text.split("\n8191")[0] and "314159.2653" in text.split("8191")[-1]
    assert texts.get("the prompt echoed", "") == prompt
    assert "\0" in texts["NUL"] and len(texts["one megabyte of one letter"]) == 1 << 20


@pytest.mark.slow
def test_the_page_on_own_verifiers_does_what_it_says() -> None:
    """Its files, its command, its output, its test, and its task."""
    page = (ROOT / "docs" / "own-verifier.md").read_text()
    files = dict(re.findall(r"^`([\w.]+)`[^\n]*\n```\w+\n(.*?)^```$", page, re.M | re.S))
    said = files.pop("verdicts.jsonl")
    assert sorted(files) == ["pairs.jsonl", "sorting.py", "sorting.yaml", "test_sorting.py", "train.jsonl"]
    for name, text in files.items():
        Path(name).write_text(text)
    [command] = re.findall(r"^dphrl (.*)$", page, re.M)
    assert main(command.split()) == 0
    assert Path("verdicts.jsonl").read_text() == said

    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_sorting.py"], capture_output=True, text=True, env=environment
    )
    assert tested.returncode == 0 and "1 passed" in tested.stdout, tested.stdout

    config = build_config(yaml.safe_load(files["sorting.yaml"]))
    task = load_task("sorting", config.task, base_dir=Path())
    assert [prompt.prompt for prompt in task.prompts] == ["Sort 3 1 2\n", "Sort 9 8 10\n"]
    verdicts = task.verify([item_of(prompt, "8 9 10") for prompt in task.prompts])
    assert [verdict.status for verdict in verdicts] == ["wrong", "correct"]
