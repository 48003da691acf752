"""Samples as evaluation tools write them: lm-evaluation-harness, inspect_ai, lighteval, evalplus, HumanEval,
simple-evals, OpenAI evals.

docs/other-tools.md names the versions whose files were seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dphrl.errors import DataError
from dphrl.stages.import_samples.sample import (
    Row,
    Sample,
    Scale,
    id_of,
    name_of,
    number,
    picked,
    plain_text,
    text_of,
)
from dphrl.types import FinishReason

_LM_EVAL = ("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics")
_HTML_SCORE = re.compile(r"<p>Score:\s*(.*?)</p>", re.DOTALL)
_HTML_GOLD = re.compile(r"<p>Correct Answer:\s*(.*?)</p>", re.DOTALL)
_ENDS: Mapping[Any, FinishReason] = {"stop": "stop", "max_tokens": "length", "model_length": "length"}


def read_lm_eval(row: Row, scale: Scale) -> Iterator[Sample]:
    """samples_TASK_DATE.jsonl of lm-evaluation-harness: each filter judges anew, so it is a task of its own."""
    answers = row["resps"][0] if len(row["resps"]) == 1 else row["resps"]
    if len(row["resps"]) != 1 or not all(isinstance(answer, str) for answer in answers):
        raise DataError("is of a task that compares likelihoods; it has no completion, and so no Pass@k")
    if len(answers) != 1:
        raise DataError(
            f"has {len(answers)} responses and one value for them all; which of them are right is not in the file. "
            "Let lm_eval write each by itself (repeats: 1, other seeds)"
        )
    names = row.get("metrics") or [n for n, v in row.items() if n not in _LM_EVAL and isinstance(v, int | float)]
    right, reward = scale.judge(picked({name: row[name] for name in names if name in row}, scale, "metrics"))
    arguments = row.get("arguments")
    first = next(iter(arguments.values() if isinstance(arguments, Mapping) else arguments or ()), None)
    asked = first.get("arg_0") if isinstance(first, Mapping) else first[0] if isinstance(first, list) else ""
    chosen = row.get("filter")
    yield Sample(
        prompt_id=id_of(row["doc_id"]),
        text=answers[0],
        right=right,
        reward=reward,
        task="-".join(part for part in (name_of(row, "task"), "" if chosen == "none" else chosen) if part),
        prompt=plain_text(asked),
        gold=plain_text(row.get("target")),
    )


def samples_of_log(log: Row) -> Iterator[Row]:
    """The samples of a log of inspect_ai, each with its task and model."""
    told = log["eval"]
    for sample in log["samples"] or ():
        yield {**sample, "task": told.get("task"), "model": told.get("model")}


def read_inspect(row: Row, scale: Scale) -> Iterator[Sample]:
    """A sample of inspect_ai; its epochs are draws. C, I, P, N and numbers are verdicts."""
    scores = {name: score.get("value") for name, score in (row.get("scores") or {}).items()}
    right, reward = scale.judge(None if row.get("error") or not scores else picked(scores, scale, "scores"))
    output = row.get("output") or {}
    choices = output.get("choices") or [{}]
    held = row.get("attachments") or {}
    said = (choices[0].get("message") or {}).get("content")
    asked = row["input"]
    said, asked = (held.get(v.removeprefix("attachment://"), v) if isinstance(v, str) else v for v in (said, asked))
    yield Sample(
        prompt_id=id_of(row["id"]),
        text=text_of(said),
        right=right,
        reward=reward,
        model=name_of(row, "model"),
        task=name_of(row, "task"),
        finish=_ENDS.get(choices[0].get("stop_reason")),
        prompt=text_of(asked, role=None),
        gold=plain_text(row.get("target")),
    )


def read_lighteval(row: Row, scale: Scale) -> Iterator[Sample]:
    """details_TASK_DATE.parquet of lighteval: `doc`, `metric` and `model_response`."""
    doc = row["doc"]
    yield _lighteval(row, scale, doc, row["metric"], row["model_response"]["text"], doc.get("query"))


def read_lighteval_before(row: Row, scale: Scale) -> Iterator[Sample]:
    """The same before its version 0.10: columns of their own."""
    yield _lighteval(row, scale, row, row["metrics"], row["predictions"], row["full_prompt"])


def _lighteval(row: Row, scale: Scale, doc: Row, metrics: Row, texts: Any, asked: Any) -> Sample:
    texts = [texts] if isinstance(texts, str) else list(texts)
    if len(texts) != 1:
        raise DataError(
            f"has {len(texts)} completions and one value for them all; which of them are right is not in the file"
        )
    right, reward = scale.judge(picked({n: v for n, v in metrics.items() if v is not None}, scale, "metrics"))
    gold = doc.get("gold")
    if gold is None and isinstance(doc.get("choices"), list):
        index = doc.get("gold_index")
        places = index if isinstance(index, list) else [index]
        gold = [doc["choices"][i] for i in places if isinstance(i, int) and i < len(doc["choices"])]
    key = doc.get("id") if doc.get("id") not in (None, "") else row.get("example")
    return Sample(
        prompt_id=id_of(key if key not in (None, "") else plain_text(asked)),
        text=texts[0],
        right=right,
        reward=reward,
        task=name_of(doc, "task_name"),
        prompt=plain_text(asked),
        gold=plain_text(gold[0] if isinstance(gold, list) and len(gold) == 1 else gold),
    )


def solutions_of(results: Row) -> Iterator[Row]:
    """The solutions of evalplus' eval_results.json: {"eval": {task: [solution, ...]}}."""
    for task_id, solutions in results["eval"].items():
        for solution in solutions:
            yield {"task_id": task_id, **solution}


def read_evalplus(row: Row, scale: Scale) -> Iterator[Sample]:
    """plus_status says what is right where it is there, else base_status; --reward names the other one."""
    name = scale.reward or ("plus_status" if row.get("plus_status") is not None else "base_status")
    right, reward = scale.judge(number(row, name))
    yield Sample(id_of(row["task_id"]), text_of(row["solution"]), right, reward)


def read_human_eval(row: Row, scale: Scale) -> Iterator[Sample]:
    """samples.jsonl_results.jsonl of HumanEval."""
    right, reward = scale.judge(number(row, scale.reward or "passed"))
    yield Sample(id_of(row["task_id"]), text_of(row["completion"]), right, reward)


def talks_of(results: Row) -> Iterator[Row]:
    """The conversations of simple-evals' allresults.json; a verdict stands in the HTML of each alone."""
    talks, pages = results["convos"], results["htmls"]
    scores = [_HTML_SCORE.search(page) for page in pages]
    if len(pages) != len(talks) or None in scores:
        raise DataError(
            f"holds {len(talks)} conversations of simple-evals and {sum(map(bool, scores))} verdicts: it keeps one "
            "only in the `<p>Score: ...</p>` of htmls, one a conversation. Run it with htmls, or write lines of your "
            "own: prompt_id, completion, correct"
        )
    for talk, page, score in zip(talks, pages, scores, strict=True):
        gold = _HTML_GOLD.search(page)
        yield {
            "prompt": talk[:-1],
            "completion": talk[-1:],
            "correct": score[1].strip() if score else None,
            "gold": gold[1].strip() if gold else None,
        }


def is_event(row: Row) -> bool:
    """Whether a record is a line of an OpenAI evals log."""
    return "spec" in row or {"event_id", "sample_id", "type", "data"} <= row.keys()


def joined_events(rows: Iterable[tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
    """The samples of a log of OpenAI evals: what was drawn and whether it matched are lines apart, joined by
    sample_id, in the order of event_id.

    Raises:
        DataError: not as many draws as matches of a sample.
    """
    events = sorted(((place, row) for place, row in rows if "event_id" in row), key=lambda one: int(one[1]["event_id"]))
    drawn: dict[str, list[Row]] = {}
    matched: dict[str, list[tuple[str, Row]]] = {}
    for place, event in events:
        if event["type"] == "sampling":
            drawn.setdefault(event["sample_id"], []).append(event["data"])
        elif event["type"] == "match":
            matched.setdefault(event["sample_id"], []).append((place, event["data"]))
    for key in dict.fromkeys((*drawn, *matched)):
        draws, matches = drawn.get(key, []), matched.get(key, [])
        if len(draws) != len(matches):
            raise DataError(
                f"sample {key!r} has {len(draws)} samplings and {len(matches)} matches; one needs the other"
            )
        for draw, (place, match) in zip(draws, matches, strict=True):
            said = draw["sampled"]
            yield (
                place,
                {
                    "prompt_id": key,
                    "prompt": draw.get("prompt"),
                    "completion": said[0] if isinstance(said, list) and len(said) == 1 else said,
                    "correct": match["correct"],
                    "gold": match.get("expected"),
                },
            )
