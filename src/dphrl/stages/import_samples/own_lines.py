"""Records of one's own: their names are ours already, or --columns says which of theirs is which of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dphrl.errors import ConfigError, DataError, nearest
from dphrl.stages.import_samples.sample import (
    Row,
    Sample,
    Scale,
    finish_of,
    hashed,
    id_of,
    name_of,
    plain_text,
    text_of,
    whole,
)
from dphrl.tasks.nested_columns import names_of, value_at

VERDICTS = ("correct", "reward", "score")
OPTIONAL = ("model", "method", "seed", "task", "greedy", "draw", "finish_reason", "prompt", "gold", "step")
NAMES = ("prompt_id", "completion", "completions", *VERDICTS, *OPTIONAL)
"""What a line of one's own may say."""

LIKELY: dict[str, tuple[str, ...]] = {
    "prompt_id": (
        *("task_id", "question_id", "problem_id", "example_id", "sample_id", "doc_id", "unique_id", "id", "uid"),
        *("extra_info.index", "index", "idx"),
    ),
    "completion": (
        *("response", "output", "generation", "solution", "prediction", "model_output", "generated_text", "sampled"),
        *("responses", "outputs", "generations", "completions", "samples", "predictions", "code", "text"),
    ),
    "correct": (
        *("is_correct", "passed", "acc", "accuracy", "success", "label", "verdict", "judge", "exact_match", "pass"),
        *("correctness", "is_right", "rewards", "scores", "reward", "score"),
    ),
    "prompt": ("question", "problem", "query", "instruction", "input", "prompt"),
    "gold": ("answer", "target", "ground_truth", "reference", "expected", "reward_model.ground_truth"),
}
"""Ours -> what others call it, the likeliest first: for the --columns line that an error proposes, not to guess."""


def read_own(row: Row, scale: Scale) -> Iterator[Sample]:
    """docs/other-tools.md: prompt_id, completion or completions, correct or reward or score; and what is optional."""
    many = "completions" in row
    texts = row["completions"] if many else row["completion"]
    if many and not isinstance(texts, list):
        raise DataError(f"completions is {type(texts).__name__}; write a list, or completion for a single one")
    name = scale.reward or next((n for n in VERDICTS if n in row), None)
    if scale.verifier is None and (name is None or name not in row):
        raise DataError(f"has no {name or 'correct, reward or score'}; write one of them, or name it with --reward")
    count = len(texts) if many else 1
    verdicts = [None] * count if name not in row else _each(row, str(name), count, many)
    finishes = _each(row, "finish_reason", count, many)
    greedy = row.get("greedy", row.get("draw") in (-1, "-1"))
    if isinstance(greedy, str):
        greedy = {"true": True, "false": False}.get(greedy.lower(), greedy)
    if not isinstance(greedy, bool):
        raise DataError(f"greedy={greedy!r} is neither true nor false")
    prompt = text_of(row.get("prompt"), role=None)
    for text, verdict, finish in zip(texts if many else [texts], verdicts, finishes, strict=True):
        right, reward = scale.judge(verdict)
        yield Sample(
            prompt_id=id_of(row["prompt_id"]) if "prompt_id" in row else hashed(prompt),
            text=text_of(text),
            right=right,
            reward=reward,
            model=name_of(row, "model") or name_of(row, "method"),
            method=name_of(row, "method"),
            seed=whole(row, "seed") or 0,
            task=name_of(row, "task"),
            greedy=greedy,
            finish=finish_of(finish),
            prompt=prompt,
            gold=plain_text(row.get("gold")),
            step=whole(row, "step"),
        )


def renamed(row: Row, columns: Mapping[str, str], *, judged: bool = True) -> Row:
    """A record with the names of ours that --columns gives it; of its own names, those stay that are ours already.

    A path has dots, and goes through lists: `outputs.text` of [{"text": "4"}, {"text": "5"}] is ["4", "5"]. A
    completion that is a list of anything but messages is several completions.

    Args:
        judged: whether it must have a verdict.
    Raises:
        DataError: no such column; names those there are.
    """
    found = {name: value for name, value in row.items() if name in NAMES and name not in columns}
    for ours, path in columns.items():
        try:
            found[ours] = _at(row, path)
        except KeyError:
            there = list(names_of(row))
            raise DataError(
                f"has no column {path!r} for {ours!r}{nearest(path, there)}; it has {', '.join(there)}"
            ) from None
    if "completion" in columns:
        found.pop("completions", None)
        if _is_several(found["completion"]):
            found["completions"] = found.pop("completion")
    if judged and not set(VERDICTS) & found.keys():
        raise DataError(f"has no verdict; say which column is one: correct: COLUMN (it has {', '.join(names_of(row))})")
    if "prompt_id" not in found and not found.get("prompt"):
        raise DataError(f"has no prompt_id and no prompt; say which column is one (it has {', '.join(names_of(row))})")
    return found


def parse_columns(text: str | None) -> dict[str, str]:
    """'{prompt_id: task_id, completion: output}' -> a mapping of our names to theirs.

    Raises:
        ConfigError: no mapping, or a name that is none of ours.
    """
    import yaml

    if text is None:
        return {}
    try:
        given = yaml.safe_load(text if text.lstrip().startswith("{") else f"{{{text}}}")
    except yaml.YAMLError:
        given = None
    if not isinstance(given, dict) or not given or not all(isinstance(v, str | int) for v in given.values()):
        raise ConfigError(
            f"--columns {text!r} is no mapping of our names to the file's; write e.g. "
            "--columns '{prompt_id: task_id, completion: output, correct: passed}'"
        )
    odd = [name for name in given if name not in NAMES]
    if odd:
        raise ConfigError(
            f"--columns: {odd[0]!r} is none of our names{nearest(str(odd[0]), NAMES)}; those are {', '.join(NAMES)}"
        )
    return {name: str(path) for name, path in given.items()}


def proposed(row: Row) -> str:
    """The --columns line nearest to a record: what is likely by its names, `?` where nothing is."""
    there = {name.lower(): name for name in names_of(row)}
    likely = {ours: (ours, *theirs) for ours, theirs in LIKELY.items()}
    found = {ours: next((there[n] for n in names if n in there), None) for ours, names in likely.items()}
    needed = {ours: name or "?" for ours, name in found.items() if name or ours in ("completion", "correct")}
    if "prompt_id" not in needed and "prompt" not in needed:
        needed = {"prompt_id": "?", **needed}
    return "--columns '{" + ", ".join(f"{ours}: {theirs}" for ours, theirs in needed.items()) + "}'"


def described(row: Row, shown: int = 30) -> str:
    """A record's names with the types of their values."""
    told = []
    for name in names_of(row, 2):
        try:
            value = value_at(row, name)
        except KeyError:
            continue
        told.append(f"{name} ({_type(value)})")
    more = f", and {len(told) - shown} more" if len(told) > shown else ""
    return (", ".join(told[:shown]) or "nothing") + more


def _type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, list):
        inner = _type(value[0]) if value else "nothing"
        return f"list of {len(value)}: {inner}"
    return {"str": "text", "int": "number", "float": "number", "dict": "object"}.get(
        type(value).__name__, type(value).__name__
    )


def _at(row: Any, path: str) -> Any:
    """The value at a path, through lists too: a number picks a member, anything else is taken of every member."""
    if isinstance(row, list):
        head, _, rest = path.partition(".")
        if head.isdigit():
            if int(head) >= len(row):
                raise KeyError(path)
            return _at(row[int(head)], rest) if rest else row[int(head)]
        return [_at(member, path) for member in row]
    if not isinstance(row, Mapping):
        raise KeyError(path)
    try:
        return value_at(row, path)
    except KeyError:
        for place, sign in enumerate(path):
            if sign == "." and isinstance(row.get(path[:place]), list | Mapping):
                return _at(row[path[:place]], path[place + 1 :])
        raise


def _is_several(value: Any) -> bool:
    """Whether it is a list of completions, rather than one or the messages of one."""
    return isinstance(value, list) and not all(isinstance(one, Mapping) and "role" in one for one in value)


def _each(row: Row, name: str, count: int, many: bool) -> Sequence[Any]:
    """The values of a name for each completion: a list of as many, or one that is everyone's."""
    value = row.get(name)
    if not isinstance(value, list):
        if many and name != "finish_reason":
            raise DataError(f"{name}={value!r} stands beside a list of completions; write a list of {count}")
        return [value] * count
    if not many or len(value) != count:
        raise DataError(f"{name} has {len(value)} values for {count} completions; write one for each")
    return value
