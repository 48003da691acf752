"""A plan in words: a few lines for each stage, then what cannot be told."""

from __future__ import annotations

from collections.abc import Iterator

from dphrl.stages.plan import cost
from dphrl.stages.plan.plan import Plan, StagePlan, facts_of
from dphrl.stages.plan.preflight import TaskFacts

SHORT = ((1e12, "T"), (1e9, "G"), (1e6, "M"))


def plan_text(plan: Plan) -> str:
    """All of a plan, as `dphrl run --dry-run` prints it."""
    return "\n".join((*_head(plan), *_prompts(plan), *_stages(plan), *_memory(plan), *_unknown(plan)))


def _head(plan: Plan) -> Iterator[str]:
    config = plan.config
    term = {
        "dph": f", {config.objective.divergence}, eta {config.objective.eta:g}",
        "replay": f", eta {config.objective.eta:g}",
        "rkl": f", {config.objective.kl_estimator}, beta {config.objective.beta:g}",
    }.get(config.method, "")
    shape = plan.found.shape
    size = "" if shape is None else f", {_short(shape.parameters)} parameters in {config.model.dtype}"
    where = "one CPU process" if config.model.device == "cpu" else f"{plan.gpus} GPU{'s' if plan.gpus > 1 else ''}"
    yield f"plan of {config.out}: {config.method}{term}; {config.model.path}{size}; training on {where}"


def _prompts(plan: Plan) -> Iterator[str]:
    yield "\nprompts"
    for facts in facts_of(plan.found):
        yield f"  {facts.label}: {_prompt_facts(facts)}"
        yield from (f"    {note}" for note in facts.notes)


def _prompt_facts(facts: TaskFacts) -> str:
    if facts.prompts is None:
        return "as many as the data set has"
    if facts.mean is None:
        return f"{facts.prompts:,} at most"
    return f"{facts.prompts:,}, of {facts.mean:,.0f} tokens on average, {facts.longest:,} at most"


def _stages(plan: Plan) -> Iterator[str]:
    config, anchor = plan.config, plan.config.anchor
    if plan.presample is None:
        yield f"\npre-sampling: {'in ' + config.base_run if config.base_run else 'not needed'}"
    else:
        extra = ", and the debiasing draw" if anchor.debias else ""
        yield (
            f"\npre-sampling: {plan.presample.draws:,} draws in the first wave, {plan.presample.most_draws:,} at most "
            f"({anchor.presamples} a prompt{extra}); near-perfect from {anchor.threshold}"
        )
        yield from _costs(plan, plan.presample)
    yield from _training(plan)
    models = "the trained model" if config.base_run or not config.eval.base else "base and trained model"
    yield f"\nevaluation: {plan.evaluation.draws:,} draws: {config.eval.n} a prompt and the greedy one, {models}"
    yield from _costs(plan, plan.evaluation)


def _training(plan: Plan) -> Iterator[str]:
    train, training = plan.config.train, plan.training
    yield (
        f"\ntraining: {train.steps:,} generations of {train.prompts_per_step} prompts x {train.group_size} "
        f"completions; {training.optimiser_steps:,} optimiser steps of {training.completions_per_step:,} completions "
        f"in micro-batches of {training.micro} a process"
    )
    if training.anchors_per_step:
        yield f"  {training.anchors_per_step} anchors beside each optimiser step"
    if training.prompts:
        passes = train.steps * train.prompts_per_step / training.prompts
        yield f"  {passes:.1f} passes over {training.prompts:,} prompts (more where not all are trained on)"
    if training.stage.most_draws != training.stage.draws:
        yield f"  {training.stage.draws:,} completions, {training.stage.most_draws:,} with every round of resampling"
    yield from _costs(plan, training.stage)


def _costs(plan: Plan, stage: StagePlan) -> Iterator[str]:
    for name, tokens, hours in (("typical", stage.typical, stage.hours), ("at most", stage.most, stage.most_hours)):
        parts = [f"{_short(tokens.drawn)} tokens drawn"]
        parts += [f"{_short(tokens.trained)} trained"] if tokens.trained else []
        if hours is not None:
            each = "" if plan.found.shape else " for each billion parameters"
            parts.append(f"{_hours(hours)} hours{each} on {stage.gpus} GPU{'s' if stage.gpus > 1 else ''}")
        yield f"  {name}: {', '.join(parts)}"


def _memory(plan: Plan) -> Iterator[str]:
    if plan.memory is None:
        return
    share = plan.config.train.trl.get("vllm_gpu_memory_utilization")
    yield (
        f"\nmemory of one GPU while it trains, in GiB, at the longest sequences"
        f"{f'; vLLM takes {share:.0%} of the GPU beside it' if share and plan.config.train.trl.get('use_vllm') else ''}"
    )
    for name, memory in plan.memory.items():
        reference = f", reference {_gib(memory.reference)}" if memory.reference else ""
        yield (
            f"  {name}: {_gib(memory.training)} (weights, gradients, AdamW {_gib(memory.states)}{reference}, "
            f"activations {_gib(memory.activations)})"
        )
    cache = next(iter(plan.memory.values())).cache
    yield f"  keys and values of a whole generation: {_gib(cache)}; less memory draws it in parts"
    if plan.config.model.dtype != "float32":
        yield f"  ddp keeps no float32 weights: {plan.config.model.dtype} rounds small updates away; prefer fsdp2"


def _unknown(plan: Plan) -> Iterator[str]:
    yield "\nnot known"
    for line in plan.unknown:
        yield f"  {line}"
    yield (
        f"  how long completions are: typical is {cost.TYPICAL_SHARE:.0%} of sampling.max_new_tokens="
        f"{plan.config.sampling.max_new_tokens:,}"
    )
    if plan.training.stage.hours is not None:
        shares = f"{cost.TRAINING_UTILISATION:.0%} in training, {cost.DRAWING_UTILISATION['vllm']:.0%} in vLLM"
        yield (
            f"  how busy the GPUs are: hours take {cost.PEAK / 1e12:.0f} Tflop/s a GPU and {shares}, "
            f"{cost.DRAWING_UTILISATION['transformers']:.1%} in transformers; expect them within a factor of three"
        )


def _short(number: float) -> str:
    return next((f"{number / size:,.1f} {unit}" for size, unit in SHORT if number >= size), f"{number:,.0f}")


def _hours(number: float) -> str:
    if number < 0.01:
        return "under 0.01"
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _gib(number: float) -> str:
    return f"{number / cost.GIB:,.1f}"
