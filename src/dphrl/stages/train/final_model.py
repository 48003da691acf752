"""The trained model, whole, however its weights lay among the processes: RUN/train/final, and the adapter beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dphrl.config.root import Config
from dphrl.files import replaced_dir
from dphrl.models.policy import Policy, load_policy, save_policy
from dphrl.report.model_card import write_model_card
from dphrl.runs.checkpoints import Seal, checksums
from dphrl.runs.run_dir import RunDir

if TYPE_CHECKING:
    from torch import Tensor


def save_final(config: Config, run: RunDir, policy: Policy, trainer: Any) -> None:
    """Gather the weights, write them as `model.dtype` stores them, and push them where `train.trl.push_to_hub` says.

    Every process must call it, since divided weights (FSDP2, ZeRO-3) are gathered by all; the main one writes. A LoRA
    adapter is written to RUN/train/adapter as it is, and merged into the initial weights for RUN/train/final, which
    therefore needs no PEFT to be read.

    Args:
        trainer: the `DPHTrainer` after its last step.
    """
    state: dict[str, Tensor] | None = whole_weights(trainer, config.stored_dtype)
    if trainer.accelerator.is_main_process:
        model = trainer.accelerator.unwrap_model(trainer.model)
        if config.lora.r is not None:
            with replaced_dir(run.adapter) as staging:
                model.save_pretrained(staging, state_dict=state)
            model, state = _merged(config, run), None
        with replaced_dir(run.final) as staging:
            save_policy(policy, model, staging, state)
            Seal(checksums(staging), []).write(staging)
        write_model_card(run, config)
        if trainer.args.push_to_hub:
            _push(run, trainer)
    trainer.accelerator.wait_for_everyone()


def whole_weights(trainer: Any, dtype: str) -> dict[str, Tensor]:
    """All weights by name in one precision, on the main process; a collective, so every process must call it.

    Training keeps float32 weights of a bfloat16 model; what is evaluated is the model as it is stored. A weight that is
    another one (a tied head) comes once: gathered, the two would no longer share their memory.
    """
    import torch

    wanted = getattr(torch, dtype)
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) or {}
    tied = getattr(trainer.accelerator.unwrap_model(trainer.model), "all_tied_weights_keys", {})
    return {k: v.to(wanted) if v.is_floating_point() else v for k, v in state.items() if k not in tied}


def _merged(config: Config, run: RunDir) -> Any:
    """The initial model with the adapter's product added, made from what was saved, in the host's memory."""
    from peft import PeftModel

    initial = load_policy(replace(config, model=replace(config.model, device="cpu"))).model
    return PeftModel.from_pretrained(initial, run.adapter).merge_and_unload(safe_merge=True)


def _push(run: RunDir, trainer: Any) -> None:
    """Upload RUN/train/final, as the last push of TRL's own strategy."""
    from huggingface_hub import HfApi

    HfApi(token=trainer.args.hub_token).upload_folder(
        repo_id=trainer.hub_model_id,
        folder_path=run.final,
        commit_message="End of training",
        revision=trainer.args.hub_revision,
    )
