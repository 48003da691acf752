"""Measures one model: greedy and n samples of every prompt, verdicts, the summary, and what `--drift` asks for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from dphrl.config.root import Config
from dphrl.errors import RunDirError
from dphrl.metrics.pass_at_k import report_ks, supported_k
from dphrl.metrics.summary import SeenInTraining
from dphrl.models.policy import Policy
from dphrl.progress import Progress, silent
from dphrl.runs.checkpoints import refuse_damaged
from dphrl.runs.draw_and_store import Speed, draw_missing
from dphrl.runs.lock import disk_errors
from dphrl.runs.samples import SampleFiles, read_samples
from dphrl.runs.summary_file import put_summary, read_summaries, store_evaluation
from dphrl.sampling.backends import make_sampler
from dphrl.sampling.base import Request, Sampler
from dphrl.sampling.encoded_prompts import encode_prompts, task_for_policy
from dphrl.sampling.one_policy import check_drawing
from dphrl.stages.evaluate.policy_drift import DriftTask, check_vocabulary, measure_drift
from dphrl.types import GREEDY_DRAW, Completion, FrontierLimit, Task
from dphrl.verifiers.registry import rules_of


@dataclass(frozen=True, slots=True)
class MeasuredBase:
    """The model that keep, explore, bands and drift refer to."""

    policy: Policy
    folder: Path
    """EVAL/NAME."""
    remedy: str
    """What to do where it was not measured on a task."""

    def samples(self, task: str) -> list[Completion]:
        """Its completions of a task.

        Raises:
            RunDirError: it was not measured on it.
        """
        path = self.folder / f"{task}.parquet"
        if not path.exists():
            raise RunDirError(f"{path} is missing, so keep and explore have no base; {self.remedy}")
        return read_samples(path)


@dataclass(frozen=True, slots=True)
class Subject:
    """One model to be measured."""

    config: Config
    """With its own model.path."""
    folder: Path
    """EVAL/NAME."""
    policy: Policy
    tasks: Mapping[str, Task]
    base: MeasuredBase | None
    """None where it is the base itself, or there is none."""
    contaminated: Callable[[Task], SeenInTraining | None] = lambda task: None
    """Task -> which of its prompts training has seen; None where nothing was trained."""

    @property
    def summary(self) -> Path:
        """What is known of the model so far."""
        return self.folder / "summary.json"

    @property
    def has_work(self) -> bool:
        """Whether anything is to be drawn or scored."""
        return bool(self.tasks_to_draw() or self.tasks_to_score())

    def tasks_to_draw(self) -> list[str]:
        """Tasks without samples or summary."""
        known = read_summaries(self.summary)
        return [name for name in self.tasks if name not in known or not (self.folder / f"{name}.parquet").exists()]

    def tasks_to_score(self) -> list[str]:
        """Tasks whose drift is asked for and not known."""
        draws, known = self.config.eval.drift, read_summaries(self.summary)
        drifts = {name: row.drift.draws for name, row in known.items() if row.drift is not None}
        return [name for name in self.tasks if draws and drifts.get(name) != draws]


def load_eval_tasks(config: Config, policy: Policy, base_dir: Path) -> dict[str, Task]:
    """The tasks of `eval_tasks` by name."""
    return {name: task_for_policy(name, cfg, policy, base_dir=base_dir) for name, cfg in config.eval_tasks.items()}


def measure_model(subject: Subject, progress: Progress) -> None:
    """Draw and measure what is missing, then score what drift needs.

    Raises:
        RunDirError: the model's files are not as training wrote them, or the base was not measured on a task, or judged
            by other rules.
        ModelError: drift between models of different vocabularies.
    """
    missing, unscored = subject.tasks_to_draw(), subject.tasks_to_score()
    base = subject.base
    if subject.has_work:
        refuse_damaged(Path(subject.policy.source))
    if unscored and base is not None:
        check_vocabulary(subject.policy, base.policy)  # before hours of drawing, not after
    if base is not None:
        _check_rules(base.folder, [subject.tasks[name] for name in missing])
    base_samples = {name: None if base is None else base.samples(name) for name in missing}
    if missing:
        if subject.config.sampling.backend == "transformers":
            check_drawing(subject.policy)
        with closing(make_sampler(subject.config, subject.policy)) as sampler:  # one: an engine takes long to start
            for name in missing:
                with disk_errors(subject.folder.parents[1]):
                    _draw_and_store(subject, subject.tasks[name], base_samples[name], sampler, progress)
    if unscored:
        _add_drift(subject, unscored, progress)
    subject.policy.release()  # the next model needs the memory


def _check_rules(base: Path, tasks: Sequence[Task]) -> None:
    """Refuse to measure against a base that the verifier judged by other rules than it has now.

    Raises:
        RunDirError: names the task and both.
    """
    known = read_summaries(base / "summary.json")
    for task in tasks:
        now = rules_of(task.verifier)
        if task.name in known and known[task.name].verifier_rules != now:
            there = known[task.name].verifier_rules or "earlier ones"
            raise RunDirError(
                f"{base} was judged on {task.name!r} by other rules of the verifier: there {there}, now "
                f"{now or 'its first ones'}; keep and explore would compare rules as well; evaluate into another folder"
            )


def _draw_and_store(
    subject: Subject, task: Task, base: Sequence[Completion] | None, sampler: Sampler, progress: Progress
) -> None:
    """The greedy completion and n draws of every prompt, joined into one Parquet and measured once all are drawn.

    Prompts that the model's context cannot hold are counted and named, not measured."""
    config = subject.config
    prompts = encode_prompts(task, subject.policy, config, progress)
    draws = (GREEDY_DRAW, *range(config.eval.n))
    requests = [Request(i, draw, ids) for i, ids in prompts.encoded.items() for draw in draws]
    parts = SampleFiles(subject.folder / f".{task.name}", "part")
    whole = subject.folder / f"{task.name}.parquet"
    if whole.exists():  # its summary is not there: what was drawn is a part again, so that nothing is drawn twice
        parts.folder.mkdir(parents=True, exist_ok=True)
        whole.rename(parts.next())
    label = f"eval {subject.folder.name} {task.name}"
    completions, speed = draw_missing(requests, sampler, task, parts, progress, label)
    store_evaluation(
        subject.folder,
        task.name,
        completions,
        base=base,
        solution=task.solution,
        answer=task.answer,
        resamples=config.eval.resamples,
        seed=config.seed,
        facts={
            "seconds": round(speed.seconds, 2),
            "tokens_per_second": _tokens_per_second(speed),
            "too_long": list(prompts.dropped),
            "contaminated": subject.contaminated(task),
            "verifier_rules": rules_of(task.verifier),
            "frontier_limit": _frontier_limit(task, tuple(prompts.encoded), config.eval.n),
        },
    )
    shutil.rmtree(parts.folder, ignore_errors=True)


def _frontier_limit(task: Task, ids: Sequence[str], n: int) -> FrontierLimit | None:
    """At the k of the report's frontier; Pass@1 would be mean@n, where the best policy is one point."""
    k = supported_k(report_ks(n), n)
    return task.frontier_limit(ids, k) if task.frontier_limit is not None and k > 1 else None


def _tokens_per_second(speed: Speed) -> float | None:
    return round(speed.tokens / speed.seconds, 1) if speed.tokens > 0 else None


def _add_drift(subject: Subject, names: Sequence[str], progress: Progress) -> None:
    """Put drift into the summaries of these tasks."""
    config, base = subject.config, subject.base
    tasks = [
        DriftTask(
            name,
            encode_prompts(subject.tasks[name], subject.policy, config, silent).encoded,
            read_samples(subject.folder / f"{name}.parquet"),
            None if base is None else base.samples(name),
        )
        for name in names
    ]
    drifts = measure_drift(config, subject.policy, None if base is None else base.policy, tasks, progress)
    for name, drift in drifts.items():
        put_summary(subject.summary, replace(read_summaries(subject.summary)[name], drift=drift))
