"""Options of `train.trl` that are TRL's own: their types, keys within them, and whether TRL and transformers take them.

TRL looks at most of them when training begins, which is after pre-sampling; a wrong one must end a run before that.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_type_hints

from dphrl.config.root import Config
from dphrl.errors import ConfigError, nearest

OTHER_TYPES = ("scale_rewards",)
"""Options that take more than their annotation says."""

OVERRIDES: dict[str, str] = {
    "max_length": "use sampling.max_new_tokens",
    "max_tokens": "use sampling.max_new_tokens",
    **{name: f"use sampling.{name}" for name in ("max_new_tokens", "temperature", "top_p")},
    **dict.fromkeys(("eos_token_id", "stop", "stop_strings", "stop_token_ids"), "use sampling.stop_tokens"),
    **dict.fromkeys(("num_return_sequences", "n"), "use train.group_size"),
    **dict.fromkeys(
        ("do_sample", "num_beams", "use_beam_search", "best_of", "pad_token_id", "bos_token_id"),
        "rollouts are draws of the policy; leave it out",
    ),
}
"""Keys of `generation_kwargs` that would change rollouts behind a setting of ours -> what to do instead."""

CHECKPOINTING_KEYS = ("use_reentrant", "preserve_rng_state", "context_fn", "determinism_check", "debug", "early_stop")
"""What `torch.utils.checkpoint.checkpoint` takes."""

OF_A_LAUNCH = ("fsdp", "fsdp_config", "deepspeed", "ddp_backend")
"""Options that transformers looks at together with the processes there are."""

LEAST: dict[str, float] = {
    "dataloader_num_workers": 0,
    "dataloader_prefetch_factor": 1,
    "min_p": 0,
    "top_k": 0,
    "save_total_limit": 1,
}
MOST: dict[str, float] = {"min_p": 1}
"""Ranges that TRL and transformers look at only while they train."""


def typed_options(extra: Mapping[str, Any]) -> dict[str, Any]:
    """The options as TRL's annotations have them; a number that YAML reads as a text (1e-8) is a number.

    Args:
        extra: `train.trl`, keys of GRPOConfig.
    Raises:
        ConfigError: a value of another type or out of range, or a key of a mapping that is unknown or ours; by name.
    """
    from pydantic import TypeAdapter, ValidationError
    from trl import GRPOConfig

    hints, typed = get_type_hints(GRPOConfig), dict(extra)
    for name in extra.keys() - set(OTHER_TYPES):
        try:
            typed[name] = TypeAdapter(hints[name]).validate_python(extra[name])
        except ValidationError as error:
            wanted = " or ".join(dict.fromkeys(e["msg"].removeprefix("Input should be ") for e in error.errors()))
            raise ConfigError(f"train.trl.{name}={extra[name]!r} must be {wanted}") from None
    _check_ranges("", typed)
    _check_keys(typed)
    return typed


def _check_ranges(prefix: str, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        least, most = LEAST.get(name), MOST.get(name)
        if isinstance(value, int | float) and (
            (least is not None and value < least) or (most is not None and value > most)
        ):
            bounds = f"at least {least:g}" + ("" if most is None else f" and at most {most:g}")
            raise ConfigError(f"train.trl.{prefix}{name}={value!r} must be {bounds}")


def _check_keys(typed: Mapping[str, Any]) -> None:
    """Raises:
    ConfigError: a key one level down that is unknown, or would change what a setting of ours says.
    """
    drawing = typed.get("generation_kwargs") or {}
    if not isinstance(drawing, Mapping):
        raise ConfigError(f"train.trl.generation_kwargs={drawing!r} must be a mapping of names to values")
    for key in drawing:
        if key in OVERRIDES:
            raise ConfigError(f"train.trl.generation_kwargs.{key} would override a setting of dphrl: {OVERRIDES[key]}")
    _check_ranges("generation_kwargs.", drawing)
    if not typed.get("use_vllm"):  # vLLM has keys of its own, and refuses others by name before the first rollout
        from transformers import GenerationConfig

        _known("generation_kwargs", drawing, vars(GenerationConfig()))
    for name in ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"):
        _known(name, typed.get(name) or {}, CHECKPOINTING_KEYS)
    weights = typed.get("reward_weights")
    if weights is not None and len(weights) != 1:
        raise ConfigError(f"train.trl.reward_weights={weights} has {len(weights)} weights, and a task has one reward")


def _known(name: str, given: Any, allowed: Any) -> None:
    if not isinstance(given, Mapping):
        raise ConfigError(f"train.trl.{name}={given!r} must be a mapping of names to values")
    for key in given:
        if key not in allowed or str(key).startswith("_"):
            raise ConfigError(f"train.trl.{name}.{key} is unknown{nearest(str(key), allowed)}")


def try_options(config: Config, settings: Mapping[str, Any], *, alone: bool) -> None:
    """Have TRL and transformers look at the options of `train.trl` now: settings, optimiser, schedule, data loader.

    To be called by a process that does not train together with others.

    Args:
        config: says what the user gave; without any option nothing is tried.
        settings: of `trainer_settings`.
        alone: whether one process trains; otherwise what belongs to a launch (fsdp, deepspeed) is not tried.
    Raises:
        ConfigError: what they refuse, by the option where it is known.
    """
    if not config.train.trl:
        return
    from dphrl.engines.trl.dph_config import DPHConfig

    group = config.train.group_size
    whole = {"per_device_train_batch_size": group, "gradient_accumulation_steps": 1, "steps_per_generation": 1}
    whole["use_cpu"] = True  # of another machine than that which trains too, and no GPU is taken before vLLM draws
    tried = {**settings, **whole, "anchors_per_step": 1 if settings.get("anchors_per_step") else None}
    if alone and config.train.trl.get("fsdp"):
        raise ConfigError("train.trl.fsdp divides the weights over processes, and one trains; leave it out")
    if not alone:
        tried = {name: value for name, value in tried.items() if name not in OF_A_LAUNCH}
    with _nothing_left_behind():
        with refused_by_libraries(config):
            args = DPHConfig(**tried)
        for names, check in _CHECKS:
            if given := {name: config.train.trl[name] for name in names if name in config.train.trl}:
                with refused_by_libraries(config, given):
                    check(args)


@contextmanager
def refused_by_libraries(config: Config, given: Mapping[str, Any] | None = None) -> Iterator[None]:
    """What TRL, transformers, accelerate and torch raise about the user's options, as the user's mistake.

    Args:
        given: the options that it is about; None = all of them.
    Raises:
        ConfigError: instead of what was raised, if any option was given.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, ImportError, LookupError, OSError, TypeError, ValueError) as error:
        options = config.train.trl if given is None else given
        if not options:
            raise
        named = " and ".join(f"train.trl.{name}={value!r}" for name, value in options.items())
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        what = f"{type(error).__name__}: {first}"
        raise ConfigError(f"{named}: refused by what trains ({what}); mend it, or leave it out") from None


@contextmanager
def _nothing_left_behind() -> Iterator[None]:
    """Settings that are made change the process: environment variables of precision and compilation, and accelerate's
    one state, which says what device is used."""
    from accelerate.state import AcceleratorState, PartialState

    before, begun = dict(os.environ), bool(PartialState._shared_state)
    try:
        yield
    finally:
        if not begun:
            AcceleratorState._reset_state(reset_partial_state=True)
        os.environ.clear()
        os.environ.update(before)


def _optimiser(args: Any) -> None:
    import torch
    from transformers import Trainer

    kind, kwargs = Trainer.get_optimizer_cls_and_kwargs(args)
    own = {name: value for name, value in kwargs.items() if name not in ("params", "model", "optimizer_dict")}
    try:
        kind([torch.nn.Parameter(torch.zeros(2, 2))], **own)
    except (RuntimeError, AttributeError, AssertionError):
        return  # one that needs a GPU or a whole model


def _schedule(args: Any) -> None:
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

    wanted = inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[args.lr_scheduler_type]).parameters
    odd = [name for name in args.lr_scheduler_kwargs or {} if name not in wanted]
    if odd:
        raise ValueError(f"schedule {args.lr_scheduler_type.value} takes no {odd[0]}{nearest(odd[0], wanted)}")


def _drawing(args: Any) -> None:
    from transformers import GenerationConfig

    own = {} if args.use_vllm else args.generation_kwargs or {}
    penalty = own.get("repetition_penalty", args.repetition_penalty)
    if not penalty > 0:
        raise ValueError(f"repetition_penalty={penalty} must be above 0")
    plain = {name: getattr(args, name) for name in ("top_k", "min_p", "cache_implementation")}
    GenerationConfig(do_sample=True, **{**plain, "repetition_penalty": penalty, **own}).validate(strict=True)


def _log_level(args: Any) -> None:
    args.get_process_log_level()


def _loader(args: Any) -> None:
    from torch.utils.data import DataLoader

    DataLoader(
        [0],  # type: ignore[arg-type]
        num_workers=args.dataloader_num_workers,
        prefetch_factor=args.dataloader_prefetch_factor,
        persistent_workers=args.dataloader_persistent_workers,
    )


def _compilation(args: Any) -> None:
    from accelerate.utils import DynamoBackend

    backend = args.torch_compile_backend
    if args.torch_compile and backend is not None and backend.upper() not in DynamoBackend.list():
        raise ValueError(f"no such backend{nearest(backend, [name.lower() for name in DynamoBackend.list()])}")


def _liger(args: Any) -> None:
    from transformers.utils import is_liger_kernel_available

    if args.use_liger_kernel and not is_liger_kernel_available():
        raise ImportError("liger-kernel is not installed")


def _hub(args: Any) -> None:
    from huggingface_hub import constants, get_token

    if args.push_to_hub and constants.HF_HUB_OFFLINE:
        raise ValueError("HF_HUB_OFFLINE is set, so no repository can be made")
    if args.push_to_hub and not (args.hub_token or get_token()):
        raise ValueError("nobody is logged in here; `hf auth login`, or give hub_token")


_ADAM = ("adam_beta1", "adam_beta2", "adam_epsilon")
_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Any], None]], ...] = (
    (("optim", "optim_args", "optim_target_modules", *_ADAM), _optimiser),
    (("lr_scheduler_kwargs",), _schedule),
    (("top_k", "min_p", "repetition_penalty", "cache_implementation", "generation_kwargs"), _drawing),
    (("log_level", "log_level_replica"), _log_level),
    (("dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_persistent_workers"), _loader),
    (("torch_compile", "torch_compile_backend"), _compilation),
    (("use_liger_kernel",), _liger),
    (("push_to_hub", "hub_token"), _hub),
)
"""Options -> what the trainer makes of them later than its settings; each raises what they would."""
