"""A policy: its model and tokenizer, loaded and saved, and prompts as its token ids."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dphrl.config.precision import DTYPES, Precision
from dphrl.config.root import Config
from dphrl.config.sources import ModelConfig
from dphrl.errors import DataError, ModelError
from dphrl.models.autocast import computing_in
from dphrl.models.shipped import SHIPPED, shipped_model
from dphrl.types import Prompt


@dataclass(frozen=True)
class Policy:
    """A model, its tokenizer and what is needed to feed it; the weights are loaded when `model` is first asked for."""

    source: str
    """Folder or name that the weights are loaded from."""
    revision: str | None
    tokenizer: Any
    stop_ids: tuple[int, ...]
    """Tokens that end a completion."""
    chat_template_args: dict[str, Any]
    generation_defaults: Any
    """The generation settings that came with the model; kept for saving, never used for drawing."""
    context: int | None
    """Longest sequence the model was made for, in tokens; None when its config does not say."""
    precision: Precision
    """What its weights are loaded and computed in."""
    load: Callable[[], Any] = field(repr=False, compare=False)
    """Reads the weights; `model` keeps what it returns."""

    @cached_property
    def model(self) -> Any:
        """The model on its device, in eval mode, loaded at the first use.

        Raises:
            ModelError: the weights cannot be loaded.
        """
        return self.load()

    def release(self) -> None:
        """Forget the loaded weights, so that an engine can have their memory; the next use loads them again."""
        import gc

        import torch

        if self.__dict__.pop("model", None) is not None:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def autocast(self) -> Any:
        """The context in which the model computes in its precision; within one, each weight is cast once."""
        return computing_in(self.model, self.precision.autocast)

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt, exactly one begin token: chat messages through the chat template, text as it is.

        Raises:
            ModelError: chat messages, but the tokenizer has no chat template; or a tokenizer that appends an end token.
            DataError: the prompt has no token.
        """
        if isinstance(prompt.prompt, str):
            ids = list(self.tokenizer(prompt.prompt)["input_ids"])
            self._refuse_appended_end(prompt.prompt, ids)
        elif self.tokenizer.chat_template is None:
            raise ModelError("the tokenizer has no chat template; set task.chat to false or use an instruct model")
        else:
            messages = [dict(m) for m in prompt.prompt]
            ids = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=True, **self.chat_template_args
            )["input_ids"]
        bos = self.tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:  # the template text began with the token that the tokenizer adds
            ids = ids[1:]
        if not ids:
            raise DataError(f"prompt {prompt.id!r} is empty after tokenization; remove it or mend task.template")
        return list(ids)

    def _refuse_appended_end(self, text: str, ids: list[int]) -> None:
        """Behind an end token a model writes something else: a new text, not the prompt's continuation."""
        if len(ids) < 2 or ids[-1] not in self.stop_ids:
            return
        written = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if written[-1:] != ids[-1:]:  # else the text itself ends so
            raise ModelError(
                f"the tokenizer of {self.source} appends its end token ({self.tokenizer.decode([ids[-1]])!r}) to a "
                "prompt, so the model would not go on with it; set add_eos_token to false in its "
                "tokenizer_config.json, or mend its post-processor in tokenizer.json"
            )

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a completion, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def model_path(config: ModelConfig) -> str:
    """The folder or name to load; a shipped model goes by its name, see `shipped.SHIPPED`.

    Raises:
        ModelError: no path was given, or it looks like a folder and there is none.
    """
    path = config.path
    shipped = shipped_model(path)
    if shipped is not None:
        return str(shipped)
    if not path:
        raise ModelError(
            f"model.path is empty; give a folder or name of a Hugging Face causal LM, or `{', '.join(SHIPPED)}`"
        )
    if Path(path).is_dir():
        if not (Path(path) / "config.json").exists():
            raise ModelError(f"model.path={path} holds no config.json; give a folder saved by save_pretrained")
        return path
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ModelError(f"model.path={path} does not exist; give a folder or name of a Hugging Face causal LM")
    return path


def load_tokenizer(config: ModelConfig) -> Any:
    """The tokenizer, padding on the left, with an end and a padding token.

    Raises:
        ModelError: it cannot be loaded, or has no end or padding token (names the remedy).
    """
    from transformers import AutoTokenizer

    path = model_path(config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=config.revision, trust_remote_code=config.trust_remote_code, padding_side="left"
        )
    except Exception as error:  # `tokenizers` raises no narrower class for a file that is damaged
        raise ModelError(f"the tokenizer of model.path={path} cannot be loaded: {_first_line(error)}") from None
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of {path} has no end token (eos_token), so completions would never end; "
            "set eos_token in its tokenizer_config.json"
        )
    if config.pad_token is not None:
        if tokenizer.convert_tokens_to_ids(config.pad_token) in (None, tokenizer.unk_token_id):
            raise ModelError(f"model.pad_token={config.pad_token!r} is no token of {path}; its end token will do")
        tokenizer.pad_token = config.pad_token
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"the tokenizer of {path} has no padding token; set model.pad_token, "
            f"e.g. --model.pad_token '{tokenizer.eos_token}' (its end token; padding is masked everywhere)"
        )
    return tokenizer


def load_policy(config: Config, path: str | None = None, *, trained: bool = True) -> Policy:
    """The model of `config.model`, or the checkpoint folder `path` with the same settings; no weights are read yet.

    Args:
        trained: in the precision that trains, which anchors are scored in; else as the final model is stored, which is
            enough to draw from it.
    Raises:
        ModelError: as `load_tokenizer`; a model whose config cannot be read or is of no causal LM; a stop token that
            is not one token; a GPU that is not there.
    """
    import torch
    from transformers import AutoConfig, GenerationConfig

    quiet_libraries()
    if config.threads:
        torch.set_num_threads(config.threads)
    device = config.model.device
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("model.device=cuda, but torch sees no GPU; use --model.device auto")
    tokenizer = load_tokenizer(config.model)
    source = path or model_path(config.model)
    revision = None if path else config.model.revision
    try:
        shape = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=config.model.trust_remote_code)
    except Exception as error:  # a damaged config.json raises whatever its model's class does
        raise ModelError(f"model.path={source} cannot be loaded as a causal LM: {_first_line(error)}") from None
    _refuse_other_tasks(shape, source)
    try:
        defaults = GenerationConfig.from_pretrained(source, revision=revision)
    except Exception as error:
        shipped = Path(source, "generation_config.json")
        if shipped.exists() or not isinstance(error, OSError):
            raise ModelError(f"{shipped} is damaged: {_first_line(error)}; fetch or save the model again") from None
        # as the library does for a model that ships none
        defaults = GenerationConfig.from_model_config(shape)
    stop_ids = _stop_ids(defaults, tokenizer, config.sampling.stop_tokens)
    precision = config.trained_precision if trained else DTYPES[config.model.dtype].drawn
    return Policy(
        source=source,
        revision=revision,
        tokenizer=tokenizer,
        stop_ids=stop_ids,
        chat_template_args=dict(config.model.chat_template_args),
        generation_defaults=defaults,
        context=getattr(shape.get_text_config(), "max_position_embeddings", None),
        precision=precision,
        load=lambda: _load_weights(source, revision, config.model, precision.weights, stop_ids, tokenizer),
    )


def _refuse_other_tasks(shape: Any, source: str) -> None:
    """Encoders, and models of images and text that have no reading for text alone."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    if type(shape) in MODEL_FOR_CAUSAL_LM_MAPPING or "AutoModelForCausalLM" in (getattr(shape, "auto_map", None) or {}):
        return
    other = type(shape) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    raise ModelError(
        f"model.path={source} cannot be loaded as a causal LM: it is a {shape.model_type}, "
        + ("a model of images and text" if other else "for which transformers has none")
        + "; give a causal language model of text"
    )


def _load_weights(
    source: str, revision: str | None, config: ModelConfig, dtype: str, stop_ids: tuple[int, ...], tokenizer: Any
) -> Any:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, GenerationConfig

    try:
        model = AutoModelForCausalLM.from_pretrained(
            source,
            revision=revision,
            dtype=getattr(torch, dtype),
            trust_remote_code=config.trust_remote_code,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"model.path={source} cannot be loaded as a causal LM: {_first_line(error)}") from None
    # `generate` falls back on what the model ships (top_k, penalties ...): draws must follow the policy itself.
    model.generation_config = GenerationConfig(
        eos_token_id=list(stop_ids), pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id
    )
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":  # each process of a launch its own: all weights on the first GPU would not fit
        return model.to(f"cuda:{os.environ.get('LOCAL_RANK', 0)}").eval()
    return model.to(device).eval()


def save_policy(policy: Policy, model: Any, folder: Path, state_dict: dict[str, Any] | None = None) -> None:
    """Write `model` with the tokenizer and the generation settings it came with, then rename into place.

    Args:
        state_dict: the weights, where the model itself holds a share of them only, or holds them in another type; None
            = the model's own.
    """
    from dphrl.files import json_text, read_json, replaced_dir, write_text

    with replaced_dir(folder) as staging:
        drawing, model.generation_config = model.generation_config, policy.generation_defaults
        try:
            model.save_pretrained(staging, state_dict=state_dict)
        finally:
            model.generation_config = drawing
        if state_dict is not None:  # transformers writes down the type of the model in memory
            types = {str(x.dtype).removeprefix("torch.") for x in state_dict.values() if x.is_floating_point()}
            if len(types) == 1:
                settings = {**read_json(staging / "config.json"), "dtype": types.pop()}
                write_text(staging / "config.json", json_text(settings))  # transformers' file: no checksum of ours
        policy.tokenizer.save_pretrained(staging)


def quiet_libraries() -> None:
    """Progress bars are ours; the libraries' own, and advice that a user cannot follow, would write over them."""
    import warnings

    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    # TRL 1.16 reads the name that transformers 5.20 renamed.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*deprecated", category=FutureWarning)


def _stop_ids(defaults: Any, tokenizer: Any, stop_tokens: Sequence[str]) -> tuple[int, ...]:
    declared = defaults.eos_token_id
    stop_ids = [tokenizer.eos_token_id, *([declared] if isinstance(declared, int) else declared or [])]
    for text in stop_tokens:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise ModelError(
                f"sampling.stop_tokens: {text!r} is {len(ids)} tokens of this tokenizer; each must be exactly one"
            )
        stop_ids.append(ids[0])
    return tuple(dict.fromkeys(stop_ids))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
