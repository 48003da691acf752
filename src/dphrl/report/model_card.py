"""README.md of a trained model: method, anchors, data, versions, and the results once there are some."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from dphrl.config.objective import ANCHOR_METHODS, AnchoredObjective, DphObjective, RklObjective
from dphrl.config.root import Config
from dphrl.config.sources import TaskConfig
from dphrl.files import write_text
from dphrl.metrics.summary import TaskSummary
from dphrl.models.shipped import SHIPPED
from dphrl.report.comparison import Comparison
from dphrl.report.comparison_view import View
from dphrl.report.verdict_table import verdict_markdown
from dphrl.runs.run_dir import RunDir, base_of, read_versions
from dphrl.runs.summary_file import read_summaries
from dphrl.runs.training_log import read_metrics

BEGIN, END = "<!-- dphrl results -->", "<!-- dphrl results end -->"
"""`dphrl eval` replaces what is between them, and nothing else: the rest is its reader's to edit."""

METHODS: dict[str, str] = {
    "grpo": "GRPO, without anything that holds the policy near the initial model",
    "dapo": "DAPO: GRPO with clip-higher and dynamic sampling, without a KL term",
    "rkl": "GRPO with a KL term to the initial model",
    "dph": "DPH-RL: GRPO, and an f-divergence to the initial model on its own verified completions",
    "replay": "GRPO, and the negative log-likelihood of the initial model's verified completions (a control)",
}
TAGS = ("dphrl", "trl", "grpo")
NOT_YET = "Not measured yet: `dphrl eval` writes its table here."


def write_model_card(run: RunDir, config: Config, comparison: Comparison | None = None) -> Path:
    """Write RUN/train/final/README.md, or only the results in one that is there and still has the marks around them.

    Args:
        run: a run that was trained.
        config: its config.
        comparison: of the trained model with its base, once both are measured.
    Returns:
        The path.
    """
    path = run.final / "README.md"
    said = "" if comparison is None else verdict_markdown(View(comparison))
    results = "\n".join(filter(None, (BEGIN, said and f"{said}\n", _results(run, config), END)))
    if not path.exists():
        write_text(path, str(_card(run, config, results)))
        return path
    text = path.read_text(encoding="utf-8")
    write_text(path, re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: results, text, flags=re.DOTALL))
    return path


def _card(run: RunDir, config: Config, results: str) -> Any:
    from huggingface_hub import ModelCard, ModelCardData

    named = not Path(config.model.path).is_dir() and config.model.path not in SHIPPED
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=config.model.path if named else None,
        tags=[*TAGS, f"method:{config.method}"],
    )
    return ModelCard.from_template(
        data,
        template_path=str(Path(__file__).with_name("model_card.md.jinja")),
        name=Path(config.out).name,
        summary=f"Trained with {METHODS[config.method]}.",
        training=_training(run, config),
        anchors=_anchors(run, config),
        results=results,
        versions=read_versions(run),
    )


def _training(run: RunDir, config: Config) -> dict[str, str]:
    train, lora = config.train, config.lora
    last = next(reversed(read_metrics(run.metrics)), {})
    facts: dict[str, object] = {"initial model": config.model.path, "revision": config.model.revision}
    facts["method"] = config.method
    match config.objective:
        case AnchoredObjective() as anchored:
            course = "" if anchored.eta_schedule == "constant" else f", {anchored.eta_schedule}"
            facts["divergence"] = _divergence(anchored)
            facts["eta"] = f"{anchored.eta}{course}"
            facts["drift at the end (`anchor/forward_kl`)"] = _nats(last.get("anchor/forward_kl"))
        case RklObjective() as rkl:
            facts["KL"] = f"beta {rkl.beta}, estimator {rkl.kl_estimator}"
    facts["weights"] = "all" if lora.r is None else f"LoRA, r {lora.r}, alpha {lora.scale}, merged"
    facts["precision"] = _precision(config)
    facts["steps"] = f"{train.steps} generations, {train.steps * train.updates} optimiser steps"
    facts["a step"] = f"{train.prompts_per_step} prompts x {train.group_size} completions"
    facts["learning rate"] = f"{train.learning_rate:g}, {train.lr_schedule}"
    facts["data"] = _data(config.task)
    facts["seed"] = config.seed
    return {key: str(value) for key, value in facts.items() if value is not None}


def _precision(config: Config) -> str:
    stored, trained = config.stored_dtype, config.trained_precision
    return stored if str(trained) == stored else f"{stored}; trained in {trained}"


def _divergence(objective: AnchoredObjective) -> str | None:
    if not isinstance(objective, DphObjective):
        return None
    return objective.divergence if objective.alpha is None else f"alpha {objective.alpha:g}"


def _nats(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f} nats per token"


def _data(task: TaskConfig) -> str:
    name = task.data if task.name == "jsonl" else f"{task.name} ({task.data})" if task.data else task.name
    return f"{name}, verifier {task.verifier}" if task.verifier else name


def _anchors(run: RunDir, config: Config) -> dict[str, str]:
    if config.method not in ANCHOR_METHODS:
        return {}
    from dphrl.anchors.manifest import read_manifest

    manifest = read_manifest(base_of(config, run).anchors)
    facts = {"anchors": f"{manifest.anchors:,}", "their completions": f"{manifest.tokens:,} tokens"}
    facts["of"] = ", ".join(["the task", *(f"{keep.label} (kept)" for keep in config.anchor.also)])
    return facts | {f"fingerprint, {part}": f"`{value}`" for part, value in manifest.fingerprint.items()}


def _results(run: RunDir, config: Config) -> str:
    """A table of what `dphrl eval` measured, the initial model beside the trained one."""
    base = base_of(config, run)
    measured = [
        (model, summary)
        for model, folder in (("base", base), ("final", run))
        for summary in read_summaries(folder.eval_summary(model)).values()
    ]
    if not any(model == "final" for model, _ in measured):
        return NOT_YET
    lines = ["| data | model | prompts | n | greedy | mean@n | Pass@k | keep |", "|---|---|---|---|---|---|---|---|"]
    for model, summary in sorted(measured, key=lambda pair: (pair[1].dataset, pair[0])):
        greedy, mean, keep = map(_rate, (summary.greedy, summary.mean_at_n, summary.keep))
        cells = (summary.dataset, model, summary.prompts, summary.n, greedy, mean, _pass_at_k(summary), keep)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(
        [*lines, "", "Pass@k with its 95 % interval over prompts. keep: of the prompts the initial model solved in n."]
    )


def _pass_at_k(summary: TaskSummary) -> str:
    """The largest k that was measured."""
    k = max(summary.pass_at_k)
    interval = summary.pass_at_k[k]
    return f"Pass@{k} {_rate(interval.value)} ({_rate(interval.low)} to {_rate(interval.high)})"


def _rate(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"
