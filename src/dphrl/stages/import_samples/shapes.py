"""The lines of other tools' files, each as samples: which shapes there are, and how a line of each is read.

docs/other-tools.md names the versions whose files were seen.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dphrl.errors import ConfigError, DataError, nearest
from dphrl.types import FinishReason

Row = Mapping[str, Any]

TRACE_VERSION = 1
"""Of a trace of `verifiers`; another one may mean other things by the same names."""

CUT = ("max_turns", "max_input_tokens", "max_output_tokens", "max_total_tokens", "compaction_failed")
"""What ends a trace before the model does."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion of another tool, and what its line says of it."""

    prompt_id: str
    text: str
    right: bool | None
    """None = it was not judged."""
    reward: float | None = None
    model: str = ""
    method: str = ""
    seed: int = 0
    task: str = ""
    greedy: bool = False
    finish: FinishReason | None = None
    """None = not known."""
    prompt: str = ""
    gold: str = ""
    step: int | None = None
    """Training step of the policy that drew it."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Which number says whether a completion is right, and from which value on."""

    reward: str | None = None
    """Name of the number; None = the shape's own."""
    threshold: float | None = None
    """None = only 0 and 1 are allowed."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ConfigError(f"--threshold {self.threshold} is no finite number; give e.g. --threshold 0.5")

    def judge(self, value: Any) -> tuple[bool | None, float | None]:
        """Right or wrong, and the reward; both None where the value is null or NaN.

        Raises:
            DataError: no number, or neither 0 nor 1 and no threshold.
        """
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None, None
        if isinstance(value, bool):
            return value, float(value)
        if not isinstance(value, int | float) or math.isinf(value):
            raise DataError(f"{value!r} is no verdict; write true, false, a number, or null for one that is not known")
        if self.threshold is not None:
            return value >= self.threshold, float(value)
        if value not in (0, 1):
            raise DataError(
                f"{value!r} is neither 0 nor 1; say from which value on a completion is right, e.g. --threshold 0.5"
            )
        return value == 1, float(value)


Read = Callable[[Row, Scale], Iterator[Sample]]


def shape_of(row: Row) -> Read:
    """How a line is read, by the names it has.

    Raises:
        DataError: they fit no shape.
    """
    for names, read in SHAPES.values():
        if names <= row.keys():
            return read
    allowed = "; ".join(f"{shape}: {', '.join(sorted(names))}" for shape, (names, _) in SHAPES.items())
    raise DataError(f"has {', '.join(row) or 'nothing'}, which is none of the shapes that can be read ({allowed})")


def _plain(row: Row, scale: Scale) -> Iterator[Sample]:
    """docs/other-tools.md: prompt_id, completion or completions, correct or reward or score; and what is optional."""
    texts = row["completions"] if "completions" in row else row["completion"]
    many = "completions" in row
    if many and not isinstance(texts, list):
        raise DataError(f"completions is {type(texts).__name__}; write a list, or completion for a single one")
    name = scale.reward or next((n for n in ("correct", "reward", "score") if n in row), None)
    if name is None or name not in row:
        raise DataError(f"has no {name or 'correct, reward or score'}; write one of them, or name it with --reward")
    count = len(texts) if many else 1
    verdicts, finishes = (_each(row, key, count, many) for key in (name, "finish_reason"))
    greedy = row.get("greedy", row.get("draw") == -1)
    if not isinstance(greedy, bool):
        raise DataError(f"greedy={greedy!r} is neither true nor false")
    for text, verdict, finish in zip(texts if many else [texts], verdicts, finishes, strict=True):
        right, reward = scale.judge(verdict)
        yield Sample(
            prompt_id=_id(row["prompt_id"]),
            text=text_of(text),
            right=right,
            reward=reward,
            model=_name(row, "model") or _name(row, "method"),
            method=_name(row, "method"),
            seed=_seed(row),
            task=_name(row, "task"),
            greedy=greedy,
            finish=_finish(finish),
            prompt=text_of(row.get("prompt")),
            gold=_text(row.get("gold")),
            step=row.get("step"),
        )


def _verl(row: Row, scale: Scale) -> Iterator[Sample]:
    """trainer.validation_data_dir and rollout_data_dir. Where the reward function gives `acc`, verl takes that for
    right or wrong and `score` for what training sees; so does this."""
    part = str(row.get("uid", "")).rpartition("_")[2]
    if "uid" in row and part.isdigit() and part != "0":
        raise DataError(f"uid={row['uid']!r} is a further output of one session; runs of several turns cannot be read")
    name = scale.reward or ("acc" if "acc" in row else "score")
    right, reward = scale.judge(_number(row, name))
    yield Sample(
        prompt_id=_hash(row["input"]),
        text=text_of(row["output"]),
        right=right,
        reward=reward,
        prompt=row["input"],
        gold=_text(row.get("gts")),
        step=row["step"],
    )


def _trl(row: Row, scale: Scale) -> Iterator[Sample]:
    """completions_STEP.parquet of log_completions; each reward function has a column of its own name."""
    own = {"step", "prompt", "completion", "advantage"}
    rewards = [n for n, v in row.items() if n not in own and isinstance(v, float | int) and not isinstance(v, bool)]
    if scale.reward is None and len(rewards) != 1:
        raise DataError(
            f"has the numbers {', '.join(rewards) or '(none)'}; say which one is right or wrong: --reward NAME"
        )
    right, reward = scale.judge(_number(row, scale.reward or rewards[0]))
    asked = text_of(row["prompt"], role=None)
    yield Sample(_hash(asked), text_of(row["completion"]), right, reward, prompt=asked, step=row["step"])


def _rollout(row: Row, scale: Scale) -> Iterator[Sample]:
    """Rollouts of `verifiers` before its version 1, as prime-rl and vf-eval saved them."""
    right, reward = scale.judge(None if row.get("error") else _number(row, scale.reward or "reward"))
    yield Sample(
        prompt_id=_id(row["example_id"]),
        text=text_of(row["completion"]),
        right=right,
        reward=reward,
        task=_name(row, "env_name") or _name(row, "task"),
        finish=None if "is_truncated" not in row else "length" if row["is_truncated"] else "stop",
        prompt=text_of(row["prompt"], role=None),
        gold=_text(row.get("answer")),
    )


def _trace(row: Row, scale: Scale) -> Iterator[Sample]:
    """Traces of `verifiers` 0.4, as prime-rl saves them: a graph of messages, of which the sampled ones are the
    completion; the reward is the weighted sum of the named ones."""
    if row.get("version") != TRACE_VERSION:
        raise DataError(f"is a trace of version {row.get('version')!r}, and only {TRACE_VERSION} can be read")
    parents = [node["parent"] for node in row["nodes"]]
    if len(parents) != len(set(parents)):
        raise DataError("is a trace with several branches, of which none is the completion; they cannot be read")
    data, said = row["task"]["data"], [node["message"] for node in row["nodes"] if node["sampled"]]
    named = {n: r and r["score"] * r.get("weight", 1.0) for n, r in row["rewards"].items()}
    if scale.reward is not None and scale.reward not in named:
        raise DataError(f"has no reward {scale.reward!r}{nearest(scale.reward, named)}; it has {', '.join(named)}")
    known = [value for value in named.values() if value is not None]
    total = named[scale.reward] if scale.reward is not None else sum(known) if known else None
    right, reward = scale.judge(total if row["ok"] else None)
    key = data.get("id") if data.get("id") is not None else data.get("idx")
    yield Sample(
        prompt_id=_id(row["task"].get("hash") if key is None else key),
        text=text_of(said),
        right=right,
        reward=reward,
        task=_name(row, "env_name"),
        finish=_trace_end(row),
        prompt=text_of(data.get("prompt"), role=None),
        gold=_text(data.get("answer")),
    )


def _trace_end(row: Row) -> FinishReason:
    calls = [call for call in row["calls"] if call["error"] is None]
    cut = row["stop_condition"] in CUT or (calls and calls[-1]["finish_reason"] == "length")
    return "length" if cut else "stop"


SHAPES: dict[str, tuple[frozenset[str], Read]] = {
    "lines of one's own": (frozenset({"prompt_id", "completion"}), _plain),
    "lines of one's own, several completions": (frozenset({"prompt_id", "completions"}), _plain),
    "prime-rl traces": (frozenset({"nodes", "rewards", "task", "ok"}), _trace),
    "prime-rl rollouts": (frozenset({"example_id", "prompt", "completion", "reward"}), _rollout),
    "verl": (frozenset({"input", "output", "score", "step"}), _verl),
    "TRL": (frozenset({"step", "prompt", "completion", "advantage"}), _trl),
}
"""Name -> the names by which a line is known, and how it is read; the first that fits counts."""


def text_of(content: Any, role: str | None = "assistant") -> str:
    """The text of a completion or prompt: itself, or its messages' of one role (None = all), one below the other."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, Sequence) or not all(isinstance(m, Mapping) for m in content):
        raise DataError(f"{str(content)[:80]!r} is neither a text nor a list of messages")
    if content and all("role" in message for message in content):
        return "\n".join(text_of(m.get("content"), None) for m in content if role in (None, m["role"]))
    return "".join(part.get("text") or "" for part in content)  # the parts of one message


def _each(row: Row, name: str, count: int, many: bool) -> list[Any]:
    """The values of a name for each completion: a list of as many, or one that is everyone's."""
    value = row.get(name)
    if not isinstance(value, list):
        if many and name != "finish_reason":
            raise DataError(f"{name}={value!r} stands beside a list of completions; write a list of {count}")
        return [value] * count
    if not many or len(value) != count:
        raise DataError(f"{name} has {len(value)} values for {count} completions; write one for each")
    return value


def _number(row: Row, name: str) -> Any:
    if name not in row:
        raise DataError(f"has no {name!r}{nearest(name, row)}; it has {', '.join(row)}; name one with --reward")
    return row[name]


def _finish(value: Any) -> FinishReason | None:
    if value is None or value in ("stop", "length"):
        return value  # type: ignore[no-any-return]
    raise DataError(f"finish_reason={value!r} is not stop, length or null")


def _seed(row: Row) -> int:
    value = row.get("seed")
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"seed={value!r} is no whole number from 0 on")
    return value


def _id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(f"the id of the prompt is {value!r}; write a text or a whole number")
    return str(value).encode("utf-8", "replace").decode("utf-8")


def _name(row: Row, key: str) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or not value:
        raise DataError(f"{key}={value!r} is no name; write a text")
    return value


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _hash(prompt: str) -> str:
    """An id of a prompt that has none: the same text is the same prompt in every file."""
    return hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
