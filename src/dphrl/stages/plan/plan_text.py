"""A plan in words: a few lines for each stage, then what cannot be told."""

from __future__ import annotations

from dphrl.config.objective import DphObjective, ReplayObjective, RklObjective
from dphrl.stages.plan.plan import Plan, gib


def plan_text(plan: Plan) -> str:
    """All of a plan, as `dphrl plan` prints it."""
    parts = [_head(plan), *_prompt_lines(plan), *_presample_lines(plan), *_training_lines(plan)]
    models = "base and trained model" if plan.measures_base else "the trained model"
    parts.append(
        f"\nevaluation: {plan.evaluation_draws:,} draws: {plan.config.eval.n} a prompt and the greedy one, {models}"
        f"{_tokens(plan, plan.evaluation_draws)}"
    )
    if plan.disk_bytes is not None:
        memory = (
            ""
            if plan.training_bytes is None
            else (
                f"{gib(plan.training_bytes)} of GPU memory for weights, gradients and AdamW, which fsdp2 and ZeRO-3 "
                f"divide over the GPUs (activations and drawing come on top{_copies(plan)}); "
            )
        )
        parts.append(f"\nroom: {memory}{gib(plan.disk_bytes)} on disk for checkpoints and the final model")
    parts += [
        "\nnot known",
        *(f"  {line}" for line in plan.unknown),
        "  how long completions are, and how fast the GPUs",
    ]
    return "\n".join(parts)


def _copies(plan: Plan) -> str:
    if not plan.copied_bytes:
        return ""
    return f", and without FSDP2 {gib(plan.copied_bytes)} on each for the weights in {plan.config.stored_dtype}"


def _head(plan: Plan) -> str:
    config = plan.config
    match config.objective:
        case DphObjective(divergence=divergence, eta=eta):
            term = f", {divergence}, eta {eta:g}"
        case ReplayObjective(eta=eta):
            term = f", eta {eta:g}"
        case RklObjective(kl_estimator=estimator, beta=beta):
            term = f", {estimator}, beta {beta:g}"
        case _:
            term = ""
    size = "" if plan.parameters is None else f", {_short(plan.parameters)} parameters in {config.model.dtype}"
    where = "one CPU process" if config.model.device == "cpu" else f"{plan.gpus} GPU{'s' if plan.gpus > 1 else ''}"
    return f"plan of {config.out}: {config.method}{term}; {config.model.path}{size}; training on {where}"


def _prompt_lines(plan: Plan) -> list[str]:
    lines = ["\nprompts"]
    for size in (plan.task, *plan.keep_sets, *plan.measured):
        if size.prompts is None:
            facts = "as many as the data set has"
        elif size.mean is None:
            facts = f"{size.prompts:,} at most"
        else:
            facts = f"{size.prompts:,}, of {size.mean:,.0f} tokens on average, {size.longest:,} at most"
        lines += [f"  {size.label}: {facts}", *(f"    {note}" for note in size.notes)]
    return lines


def _presample_lines(plan: Plan) -> list[str]:
    anchor = plan.config.anchor
    if plan.presample_draws is None:
        return [f"\npre-sampling: {'in ' + plan.config.base_run if plan.config.base_run else 'not needed'}"]
    first, most = plan.presample_draws
    extra = ", and the debiasing draw" if anchor.debias else ""
    return [
        f"\npre-sampling: {first:,} draws in the first wave, {most:,} at most ({anchor.presamples} a prompt{extra}); "
        f"near-perfect from {anchor.threshold}{_tokens(plan, most)}"
    ]


def _training_lines(plan: Plan) -> list[str]:
    train, (completions, most) = plan.config.train, plan.completions
    micro = "" if plan.micro_batch is None else f" in micro-batches of {plan.micro_batch} a process"
    lines = [
        f"\ntraining: {train.steps:,} generations of {train.prompts_per_step} prompts x {train.group_size} "
        f"completions; {train.steps * train.updates:,} optimiser steps of "
        f"{train.prompts_per_step * train.group_size // train.updates:,} completions{micro}{_tokens(plan, most)}"
    ]
    if plan.anchors_per_step:
        lines.append(f"  {plan.anchors_per_step} anchors beside each optimiser step")
    if plan.task.prompts:
        passes = train.steps * train.prompts_per_step / plan.task.prompts
        lines.append(f"  {passes:.1f} passes over {plan.task.prompts:,} prompts (more where not all are trained on)")
    if most != completions:
        lines.append(f"  {completions:,} completions, {most:,} with every round of resampling")
    return lines


def _tokens(plan: Plan, draws: int) -> str:
    return f"; at most {_short(draws * plan.config.sampling.max_new_tokens)} tokens"


def _short(number: float) -> str:
    sizes = ((1e12, "T"), (1e9, "G"), (1e6, "M"))
    return next((f"{number / size:,.1f} {unit}" for size, unit in sizes if number >= size), f"{number:,.0f}")
