"""Our verifiers as verl's reward function: reward.custom_reward_function.path=pkg://dphrl.engines.verl.reward

verl asks for one completion after another, hundreds at a time. They are judged together, by the killable processes of
`verifiers.workers`, as many as have come while the last ones were judged.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from dphrl.errors import DphrlError, VerifierError, nearest
from dphrl.tasks.verl_rows import ExtraInfo, row_verifier, verifier_item
from dphrl.types import Item, Verdict, VerifyFn
from dphrl.verifiers.registry import load_verifier
from dphrl.verifiers.workers.pool import spent_so_far
from dphrl.verifiers.workers.slow_items import Spent

OURS = ("verifier", "verifier_args", "functions")
"""What `reward_kwargs` may hold."""
DETAIL = 200
"""Characters of a verdict's detail that reach verl's dumps."""
FROM_VERL = frozenset({"reward_router_address", "reward_model_tokenizer"})
"""Keyword arguments that verl itself adds where it has a reward model."""


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: ExtraInfo | None = None,
    *,
    verifier: str | None = None,
    verifier_args: Mapping[str, Any] | None = None,
    functions: Sequence[str] = (),
    **others: Any,
) -> dict[str, Any]:
    """The verdict on one completion.

    Args:
        data_source, solution_str, ground_truth, extra_info: as verl hands them to a reward function.
        verifier, verifier_args: `reward.custom_reward_function.reward_kwargs`; as `task.verifier` and
            `task.verifier_args`. Without them the row says it, as `dphrl export verl` writes rows.
        functions: verifiers of your own, `module:function`, that rows may name; a data file alone must run no code.
    Returns:
        `score`: the reward, 0.0 where there is none. `acc`: 1.0 for a right completion. `unjudged`: 1.0 where the
        verifier could not judge; with `trainer_mode=dph` the completion then has no part in the gradient. `status` and
        `detail`: in words. `verifier_s`, `timeouts_s`: CPU seconds of verifier workers, an equal part of what the
        completion's batch took, and of that what went into completions given up.
    Raises:
        VerifierError: no verifier is named, or a keyword argument that nothing reads.
    """
    if unknown := sorted(set(others) - FROM_VERL):
        raise VerifierError(
            f"reward_kwargs.{unknown[0]} is not one of {', '.join(OURS)}; what a verifier itself takes is "
            "reward_kwargs.verifier_args.NAME"
        )
    try:
        judge = _judge_of(*named_verifier(verifier, verifier_args, extra_info, data_source, functions))
        verdict, spent = await judge(verifier_item(extra_info, ground_truth, solution_str))
    except DphrlError as error:  # verl would drop the whole group and go on; so it is counted, and shown with its text
        verdict, spent = Verdict(False, None, "verifier_error", str(error)), Spent()
    return {
        "score": 0.0 if verdict.reward is None else float(verdict.reward),
        "acc": float(verdict.correct),
        "unjudged": float(verdict.reward is None),
        "status": verdict.status,
        "detail": verdict.detail[:DETAIL],
        "verifier_s": spent.finished_s + spent.timeouts_s,
        "timeouts_s": spent.timeouts_s,
    }


def named_verifier(
    verifier: str | None,
    verifier_args: Mapping[str, Any] | None,
    extra_info: ExtraInfo | None,
    source: str,
    functions: Sequence[str] = (),
) -> tuple[str, str]:
    """(verifier, its arguments as JSON text): what verl's config names, else the row.

    Raises:
        VerifierError: neither does, or the row names a function that is not among `functions`.
    """
    if verifier is not None:
        return verifier, json.dumps(dict(verifier_args or {}), sort_keys=True)
    row = row_verifier(extra_info)
    if row is None:
        raise VerifierError(
            f"no verifier for data_source={source!r}: set "
            "+reward.custom_reward_function.reward_kwargs.verifier=math (or sql, exact, gym, module:function), or "
            "export the prompts with `dphrl export verl`, whose rows name theirs"
        )
    if ":" in row.spec and row.spec not in functions:
        raise VerifierError(
            f"rows of data_source={source!r} name the function {row.spec} as their verifier, and a data file alone "
            f"must run no code: set +reward.custom_reward_function.reward_kwargs.functions=[{row.spec}]"
        )
    return row.spec, json.dumps(dict(row.args), sort_keys=True)


class GatheringJudge:
    """Asks a verifier about many completions at once: those that come while it is at work are its next batch.

    Of one event loop.
    """

    def __init__(self, verify: VerifyFn) -> None:
        self._verify = verify
        self._waiting: list[tuple[Item, asyncio.Future[tuple[Verdict, Spent]]]] = []
        self._at_work: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> tuple[Verdict, Spent]:
        """The verdict (`verifier_error` where the verifier fails at it), and its part of the batch's time."""
        answer: asyncio.Future[tuple[Verdict, Spent]] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._at_work is None or self._at_work.done():
            self._at_work = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            before = spent_so_far()
            verdicts = await asyncio.to_thread(judged, self._verify, [item for item, _ in batch])
            whole = spent_so_far() - before
            part = Spent(whole.finished_s / len(batch), whole.timeouts_s / len(batch))
            for (_, answer), verdict in zip(batch, verdicts, strict=True):
                if not answer.done():  # the one who asked may have been cancelled
                    answer.set_result((verdict, part))


def judged(verify: VerifyFn, items: Sequence[Item]) -> list[Verdict]:
    """A verdict for each item: where the verifier raises, each is asked about alone, and only those at fault fail."""
    try:
        verdicts = verify(items)
        if len(verdicts) == len(items):
            return verdicts
        error: Exception = VerifierError(f"{len(verdicts)} verdicts for {len(items)} completions")
    except Exception as raised:  # a verifier may raise anything
        error = raised
    if len(items) == 1:
        return [Verdict(False, None, "verifier_error", f"{type(error).__name__}: {error}")]
    return [judged(verify, [item])[0] for item in items]


def check_reward(config: Any) -> None:
    """Load the verifier that verl's config names, where the reward function is ours.

    Args:
        config: verl's, whole.
    Raises:
        VerifierError: an unknown verifier or argument.
    """
    function = config.reward.get("custom_reward_function") or {}
    if str(function.get("path") or "").removeprefix("pkg://") != __name__:
        return
    arguments = dict(function.get("reward_kwargs") or {})
    for name in arguments:
        if name not in OURS:
            raise VerifierError(
                f"reward_kwargs.{name} is not one of {', '.join(OURS)}{nearest(name, OURS)}; what a verifier itself "
                "takes is reward_kwargs.verifier_args.NAME"
            )
    for spec in arguments.get("functions") or ():
        load_verifier(str(spec), {})
    if arguments.get("verifier") is not None:
        load_verifier(str(arguments["verifier"]), dict(arguments.get("verifier_args") or {}))
    elif arguments.get("verifier_args"):
        raise VerifierError("reward_kwargs.verifier_args needs reward_kwargs.verifier; rows that we exported name both")


@lru_cache
def _verify_of(spec: str, args: str) -> VerifyFn:
    return load_verifier(spec, json.loads(args))


_JUDGES: dict[tuple[int, str, str], GatheringJudge] = {}


def _judge_of(spec: str, args: str) -> GatheringJudge:
    """The judge of this event loop for a verifier."""
    key = (id(asyncio.get_running_loop()), spec, args)
    if key not in _JUDGES:
        _JUDGES[key] = GatheringJudge(_verify_of(spec, args))
    return _JUDGES[key]
