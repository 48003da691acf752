"""What is computed differently on verl although a config is translated; said beside the command."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dphrl.config.objective import AnchoredObjective, DapoObjective, RklObjective
from dphrl.config.root import Config
from dphrl.engines.verl.cluster import Cluster, rounded_up


def differences(config: Config, cluster: Cluster, length: int) -> Iterator[str]:
    """What verl computes differently, a sentence each.

    Args:
        length: the bound on prompts there (tokens).
    """
    train, trl = config.train, config.train.trl
    unbounded = config.task.prompt_tokens is None and "vllm_max_model_length" not in trl
    yield f"a prompt of more than {length:,} tokens is left out (data.max_prompt_length)" + (
        ": nothing in the config bounds it; set task.prompt_tokens" if unbounded else ""
    )
    if trl.get("scale_rewards", "group") in ("group", True):
        yield "advantages are divided by the group's deviation + 1e-6; TRL adds 1e-4"
    if train.weight_decay:
        yield "weights of norms and biases decay too; TRL leaves them out"
    tick = cluster.steps_a_tick(train.updates)
    if tick > 1 and (train.warmup_steps or train.lr_schedule != "constant"):
        warm = math.ceil(train.warmup_steps / tick)
        yield f"the learning rate moves once a generation, for {tick} optimiser steps at once" + (
            f": train.warmup_steps={train.warmup_steps} become {warm} generations, the first at 0" if warm else ""
        )
    if config.model.dtype == "pure_bfloat16":
        yield "16-bit weights are computed with under autocast; here without"
    if config.lora.r is not None and config.model.dtype == "bfloat16":
        yield "the frozen weights beside the adapter are kept in float32 (more memory); here in bfloat16"
    if cluster.mode != "sync":
        yield (
            f"completions may be of older weights (--mode {cluster.mode}); algorithm.rollout_correction.* and "
            "trainer.v1.sampler.max_off_policy_threshold say what becomes of them"
        )
    yield from _of_method(config, cluster, tick)


def _of_method(config: Config, cluster: Cluster, tick: int) -> Iterator[str]:
    objective = config.objective
    if not isinstance(objective, AnchoredObjective):
        yield "a completion that could not be judged counts as wrong; here it is left out of its group"
    else:
        if tick > 1 and objective.eta_schedule != "constant":
            yield f"eta moves once a generation, for {tick} optimiser steps at once"
        anchors = anchors_of_step(config, objective)
        there = rounded_up(anchors, cluster.ranks)
        if there != anchors:
            yield f"{there} anchors an optimiser step instead of {anchors}, to divide over {cluster.ranks} GPUs"
    if isinstance(objective, RklObjective) and objective.kl_estimator == "k3":
        yield "a token's log-ratio to the reference is kept within 20 nats and its k3 below 10"
    if isinstance(objective, DapoObjective) and objective.max_resample > 0:
        yield (
            f"flat groups are replaced until the generation is full, however often; here objective.max_resample="
            f"{objective.max_resample} rounds at most"
        )


def anchors_of_step(config: Config, objective: AnchoredObjective) -> int:
    """Anchors of an optimiser step as TRL's engine has them, where they go along in the rollouts' forward."""
    return objective.anchors_beside(config.train.prompts_per_step * config.train.group_size // config.train.updates, 1)
