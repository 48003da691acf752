"""Prompts that training has seen: what counts as the same, what does not, and what real data gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from compare_runs import compared
from hypothesis import given
from hypothesis import strategies as st

from dphrl.config.load import build_config
from dphrl.files import read_json
from dphrl.metrics.summary import SeenInTraining
from dphrl.models.policy import load_policy
from dphrl.runs.eval_dir import Model, add_samples, write_evaldir
from dphrl.sampling.encoded_prompts import task_for_policy
from dphrl.stages.evaluate.evaluate import evaluate
from dphrl.stages.evaluate.seen_prompts import contamination_check
from dphrl.tasks.contamination import contaminated, contamination_note, words
from dphrl.types import Completion, Prompt, Verdict

QUESTION = (
    "Janet's ducks lay 16 eggs per day. She eats three for breakfast every morning and sells the rest for $2 each."
)


def prompts(*texts: str, **columns: Any) -> list[Prompt]:
    return [Prompt(f"p{i}", text, columns) for i, text in enumerate(texts)]


def ids(measured: list[Prompt], trained: list[Prompt]) -> dict[str, str]:
    return {match.prompt_id: match.trained_id for match in contaminated(measured, trained)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How many EGGS?", "how  many\neggs"),
        ("It costs $1,000.", "it costs 1000"),
        ("a well-known number", "A well known number"),
        ("x − 1", "x - 1"),  # the minus sign and the hyphen
        ("ｘ＋１", "x+1"),  # NFKC: full width
        ("Straße", "STRASSE"),
    ],
)
def test_the_same_words_in_other_writing(one: str, other: str) -> None:
    """Case, white space, punctuation and the form of a letter are no difference."""
    assert words(one) == words(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("x+1", "x-1"), ("x < 3", "x ≤ 3"), ("1.5 m", "15 m"), ("12 eggs", "13 eggs"), ("3 * 4", "3 / 4")],
)
def test_another_problem_has_other_words(one: str, other: str) -> None:
    """Numbers and signs are the problem."""
    assert words(one) != words(other)


def test_the_same_prompt_is_found_whatever_its_template() -> None:
    """Training wraps every question in its own words; what all prompts begin and end with is left out."""
    others = [f"Number {i}: what is {i} times {i}?" for i in range(20)]
    trained = prompts(*(f"Question: {text}\nThink step by step, then answer." for text in [*others, QUESTION]))
    bare = [QUESTION, "Something else that was never trained on, with as many words as the others have."]
    assert ids(prompts(*bare), trained) == {"p0": "p20"}
    measured = prompts(*(f"Solve this. {text} Put it into a box." for text in [*bare, *("what" + t for t in others)]))
    assert ids(measured, trained)["p0"] == "p20"


def test_a_chat_is_its_messages() -> None:
    """Roles are no words."""
    chat = Prompt("c", ({"role": "user", "content": QUESTION},))
    assert ids([chat], prompts("other", QUESTION)) == {"c": "p1"}


def test_nearly_the_same_is_found_and_shares_are_counted() -> None:
    """23 words have 16 8-grams; a changed last word spoils one of them, a changed word in the middle eight."""
    base = " ".join(f"w{chr(97 + i)}" for i in range(23))
    last, middle = f"{base[:-2]}zz", base.replace("wl", "zz")
    (match,) = contaminated(prompts(last), prompts(base))
    assert (match.exact, match.share) == (False, pytest.approx(15 / 16))
    assert contaminated(prompts(middle), prompts(base)) == ()
    (held,) = contaminated(prompts(base), prompts(f"Before it. {base} After it."))
    assert (held.exact, held.share) == (False, 1.0)


def test_the_number_decides_in_a_made_up_series() -> None:
    """'What is 17 + 25?' is no other sum of the same form."""
    trained = prompts(*(f"What is {i} + {i + 1}?" for i in range(50)))
    assert ids(prompts("What is 7 + 8?", "What is 7 + 9?", "what is 7 - 8"), trained) == {"p0": "p7"}


def test_turns_of_phrase_are_no_evidence() -> None:
    """Words that stand in more than ten training prompts count as not shared."""
    phrase = "how much money does she have left in the end"
    trained = prompts(*(f"{'abcdefghijklmnop'[i] * 4} {phrase} {'qrstuvwxyzabcdef'[i] * 3}" for i in range(12)))
    assert ids(prompts(f"{phrase} x"), trained) == {}
    assert ids(prompts(f"{phrase} x"), trained[:10]) == {"p0": "p0"}  # of few prompts it counts: 3 of 4


def test_a_question_on_another_database_is_another_question() -> None:
    """And the schema in the text is no part of the question."""
    text, schema = "How many singers are there in all of the country's many concert halls?", "CREATE TABLE a (b);"
    mine = prompts(f"{schema}\n{text}", db="/data/concert.sqlite", schema=schema)
    assert ids(mine, prompts(text, db="other/concert.sqlite")) == {"p0": "p0"}
    assert ids(mine, prompts(text, db="/data/farm.sqlite")) == {}
    assert ids(mine, prompts(f"{schema}\nWhich hall is the oldest one of all?", db="/data/concert.sqlite")) == {}


def test_prompts_without_words_are_not_the_same() -> None:
    """Two prompts of punctuation alone have nothing in common but their lack of words."""
    assert contaminated(prompts("...", ""), prompts("?!")) == ()
    assert contaminated([], prompts("a")) == () == contaminated(prompts("a"), [])


@given(st.lists(st.text(min_size=1), min_size=1, max_size=30, unique_by=words))
def test_every_prompt_stands_in_its_own_set(texts: list[str]) -> None:
    """Any set against itself: each prompt with words is found, word for word, at its own place."""
    mine = prompts(*texts)
    found = {match.prompt_id: (match.trained_id, match.exact) for match in contaminated(mine, mine)}
    assert {p.id: (p.id, True) for p in mine if words(str(p.prompt))}.items() <= found.items()


def test_told_says_how_many_and_which() -> None:
    """One line; nothing where there is nothing."""
    found = SeenInTraining(4, 1, dict.fromkeys("abcd", "x"))
    assert (
        contamination_note("math", found)
        == "math: 4 prompts also stand in training (1 word for word): a, b, c and 1 more"
    )
    assert contamination_note("math", SeenInTraining(0, 0, {})) == contamination_note("math", None) == ""


def test_a_run_is_checked_against_its_task_and_keep_sets(demo_values: dict[str, Any]) -> None:
    """The training prompts themselves as an evaluation: all are found, in the task or in the keep set; a method that
    rehearses nothing has seen no keep set."""
    demo_values["task"]["limit"] = 4
    demo_values["anchor"]["also"] = [{"task": {"data": "demo:reversal", "limit": 9}, "prompts": 3, "name": "kept"}]
    shown: list[str] = []
    found = {}
    for method in ("dph", "grpo"):
        objective = demo_values["objective"] if method == "dph" else {}
        config = build_config({**demo_values, "method": method, "objective": objective})
        policy = load_policy(config)
        check = contamination_check(
            config,
            policy,
            base_dir=Path(),
            progress=lambda label, done, total, note="": shown.append(f"{label}: {note}"),
        )
        for label, task in (("task", config.task), ("kept", config.anchor.also[0].task)):
            found[method, label] = check(task_for_policy(label, task, policy, base_dir=Path()))
    assert found["dph", "task"].prompts == found["dph", "task"].exact == 4
    assert found["dph", "kept"].prompts == 3
    assert all(value == f"kept:{key}" for key, value in found["dph", "kept"].ids.items())
    assert found["grpo", "kept"] == SeenInTraining(0, 0, {})
    assert shown[0].startswith(
        "contamination of task: task: 4 prompts also stand in training (4 word for word): in_domain"
    )


def test_training_prompts_that_are_gone_are_said_so(demo_values: dict[str, Any], tmp_path: Path) -> None:
    """An evaluation does not fail for want of the training data; it does not say 0 either."""
    demo_values["task"] = {"data": str(tmp_path / "gone.jsonl"), "verifier": "exact"}
    config = build_config(demo_values)
    policy = load_policy(config)
    shown: list[str] = []
    check = contamination_check(
        config, policy, base_dir=Path(), progress=lambda label, done, total, note="": shown.append(note)
    )
    task = task_for_policy("in_domain", config.eval_tasks["in_domain"], policy, base_dir=Path())
    assert check(task) is None is check(task)
    assert len(shown) == 1
    assert "gone.jsonl" in shown[0]


def test_the_demo_measures_what_it_does_not_train(demo_values: dict[str, Any]) -> None:
    """The shipped tasks' two splits share no prompt."""
    policy = load_policy(build_config(demo_values))
    for name in ("in_domain", "cross_domain", "arithmetic", "reversal"):
        train, test = (
            task_for_policy(
                name, build_config({"task": {"data": f"demo:{name}", "split": s}}).task, policy, base_dir=Path()
            )
            for s in ("train", "eval")
        )
        assert contaminated(test.prompts, train.prompts) == (), name


def test_a_comparison_says_it_of_those_who_trained(tmp_path: Path) -> None:
    """One sentence for methods that saw the same prompts; the base was not trained."""
    seen = {"prompts": 1, "exact": 1, "ids": {"p": "q"}}
    write_evaldir(tmp_path / "e", [Model("b", base=True), Model("g"), Model("d"), Model("none")], ["t"])
    for name in ("b", "g", "d", "none"):
        draws = [Completion("p", 0, (), "x", "stop", Verdict(True, 1.0, "correct"))]
        facts = {} if name == "none" else {"contaminated": seen}
        row = add_samples(tmp_path / "e", name, "t", draws, resamples=100, facts=facts)
        assert row.to_json()["contaminated"] == (None if name == "none" else seen)
    notes = compared([tmp_path / "e"], tmp_path / "c", resamples=100)["notes"]
    assert [note for note in notes if "stand" in note] == [
        "t: a prompt also stands in the training of g, d (1 word for word): p."
    ]


@pytest.mark.slow
def test_an_evaluation_of_a_run_counts_them(demo_values: dict[str, Any]) -> None:
    """Measured on its own training prompts and on others: counted in the row, said in the terminal."""
    demo_values["eval_tasks"] = {
        "own": {"data": "demo:in_domain", "split": "train", "limit": 3},
        "other": {"data": "demo:in_domain", "split": "eval", "limit": 3},
    }
    demo_values["eval"]["n"] = 1
    config = build_config(demo_values)
    lines: list[str] = []
    run = evaluate(
        config,
        base_dir=Path(),
        models=("base",),
        progress=lambda label, done, total, note="": lines.append(f"{label} {done}/{total} {note}"),
    )
    own, other = read_json(run.eval_summary("base"))["rows"]
    assert (own["contaminated"]["prompts"], own["contaminated"]["exact"]) == (3, 3)
    assert all(key == value for key, value in own["contaminated"]["ids"].items())
    assert other["contaminated"] == {"prompts": 0, "exact": 0, "ids": {}}
    (said,) = [line for line in lines if line.startswith("contamination of")]
    assert said.startswith("contamination of own 3/3 own: 3 prompts also stand in training (3 word for word)")


def rows(path: Path, *columns: str) -> list[Prompt]:
    """The questions of a benchmark's file."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Prompt(f"{path.stem}-{i}", next(row[c] for c in columns if c in row)) for i, row in enumerate(lines)]


@pytest.mark.slow
def test_real_benchmarks_do_not_stand_in_one_another(shared_data: Path) -> None:
    """GSM8K's two splits and six benchmarks of mathematics: no prompt of one in another by this rule; and questions of
    GSM8K's test split are all found where they are put among the training ones in another writing."""
    train, test = (rows(shared_data / "gsm8k" / f"{split}.jsonl", "question") for split in ("train", "test"))
    assert contaminated(test, train) == ()
    sets = [rows(path, "problem", "question") for path in sorted((shared_data / "math").glob("*.jsonl"))]
    assert len(sets) == 6
    assert all(contaminated(one, other) == () for one in sets for other in sets if one is not other)
    leaked = [Prompt(f"leak-{p.id}", f"Problem: {str(p.prompt).upper()}\n") for p in test[:200]]
    assert len(contaminated(test, [*train, *leaked])) == 200
