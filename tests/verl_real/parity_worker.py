"""One optimiser step's gradients by verl's real TrainingWorker (FSDP2 on gloo, no Ray), in several ways of cutting it.

python parity_worker.py --model FOLDER --ranks N: prints a line of JSON for each case; `test_parity.py` reads them.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {
    "VERL_PLATFORM": "cpu",
    "VERL_USE_EXTERNAL_MODULES": "verl_on_cpu",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
}

import numpy as np
import torch
from torch import Tensor

from dphrl.engines.common.anchor_term import AnchorSettings
from dphrl.engines.verl.anchor_rows import anchor_row, fields_of_update, mixed, rollout_marks
from dphrl.method.divergences import generator
from dphrl.types import Anchor

ROLLOUTS, ANCHORS, MICRO, TEMPERATURE, ETA = 16, 8, 2, 0.7, 0.01
DPH = AnchorSettings(method="dph", per_step=ANCHORS, seed=0, divergence="forward_kl", log_u_cap=5.0)
Rows = list[dict[str, Tensor]]
Gradients = dict[str, Tensor]


def rollouts() -> Rows:
    """Rollouts of random tokens, some of them tools', with advantages and the log-probabilities of an older policy."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(ROLLOUTS):
        prompt, response = (torch.tensor(rng.integers(2, 80, rng.integers(a, b))) for a, b in ((3, 12), (2, 14)))
        mask = torch.tensor((rng.random(len(response)) >= 0.15).astype(int))
        old = torch.tensor(rng.normal(-4.5, 0.8, len(response)), dtype=torch.float32)
        rows.append(
            {
                "input_ids": torch.cat([prompt, response]),
                "position_ids": torch.arange(len(prompt) + len(response)),
                "prompts": prompt,
                "responses": response,
                "response_mask": mask,
                "loss_mask": mask,
                "old_log_probs": old,
                "advantages": float(rng.normal()) * mask.float(),
            }
        )
    return rows


def anchors() -> list[Anchor]:
    """Anchors of random tokens, with the log-probabilities of another policy."""
    rng, found = np.random.default_rng(1), []
    for i in range(ANCHORS):
        prompt, completion = (tuple(rng.integers(2, 80, rng.integers(a, b)).tolist()) for a, b in ((3, 12), (2, 20)))
        found.append(Anchor(str(i), prompt, completion, tuple(rng.normal(-4.5, 1.0, len(completion)).tolist())))
    return found


def by_hand(model_path: str, rows: Rows, eta: float, mode: str) -> Gradients:
    """The same step in plain PyTorch: clipped GRPO as verl has it, plus eta * sum f(log u) / N."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32, attn_implementation="eager")

    def logps(prompt: Tensor, response: Tensor) -> Tensor:
        ids = torch.cat([prompt, response])
        out = torch.log_softmax(model(ids[None]).logits[0].float() / TEMPERATURE, -1)
        return out[len(prompt) - 1 : -1].gather(1, response[:, None])[:, 0]

    tokens, loss = sum(int(row["loss_mask"].sum()) for row in rows), torch.zeros(())
    for row in rows:
        logp, mask, advantage = logps(row["prompts"], row["responses"]), row["loss_mask"], row["advantages"]
        ratio = (logp - row["old_log_probs"]).exp()
        term = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
        term = torch.where(advantage < 0, torch.minimum(term, -advantage * 3.0), term)
        per_row = mask.sum() * ROLLOUTS if mode == "seq-mean-token-mean" else tokens
        loss = loss + (term * mask).sum() / per_row
    if eta:
        f, n = generator("forward_kl", log_u_cap=5.0), sum(len(a.completion_ids) for a in anchors())
        for a in anchors():
            logp = logps(torch.tensor(a.prompt_ids), torch.tensor(a.completion_ids))
            loss = loss + eta * f(logp - torch.tensor(a.ref_logps)).sum() / n
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


class OneStep:
    """A TrainingWorker of verl's whose optimiser keeps the gradients instead of taking a step."""

    def __init__(self, model_path: str, *, packed: bool, rank: int, ranks: int) -> None:
        from verl.trainer.config import CheckpointConfig
        from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig, TrainingWorkerConfig
        from verl.workers.engine_workers import TrainingWorker

        float32 = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
        self.engine = FSDPEngineConfig(
            strategy="fsdp2",
            mixed_precision=float32,
            use_torch_compile=False,
            micro_batch_size_per_gpu=MICRO,
            max_token_len_per_gpu=64,
            wrap_policy={"min_num_params": 0},
        )
        attention = {"attn_implementation": "sdpa" if packed else "eager"}
        model = HFModelConfig(
            path=model_path, use_remove_padding=packed, enable_gradient_checkpointing=False, override_config=attention
        )
        self.rank, self.ranks, self.gradients = rank, ranks, dict[str, Tensor]()
        self.worker = TrainingWorker(
            TrainingWorkerConfig(
                model_type="language_model",
                model_config=model,
                engine_config=self.engine,
                optimizer_config=FSDPOptimizerConfig(lr=1e-3, total_training_steps=1),
                checkpoint_config=CheckpointConfig(),
            )
        )
        self.worker.reset()
        self.worker.engine.optimizer_step = self._keep

    def _keep(self) -> float:
        for name, weight in self.worker.engine.module.named_parameters():
            whole = weight.grad.full_tensor() if hasattr(weight.grad, "full_tensor") else weight.grad
            self.gradients[name] = whole.clone()
        return 0.0

    def __call__(self, loss: Any, rows: Rows, **more: Any) -> tuple[Gradients, dict[str, Any]]:
        """Gradients of the whole step, and verl's metrics.

        Args:
            rows: of all ranks, this rank's one behind the other.
        """
        from verl.utils import tensordict_utils as tu

        self.worker.set_loss_fn(loss)
        part = len(rows) // self.ranks
        data = tu.list_of_dict_to_tensordict(rows[self.rank * part : (self.rank + 1) * part])
        for name in sorted(data.keys()):  # as TransferQueue hands out columns, also where all rows are of one length
            if not data[name].is_nested:
                data[name] = torch.nested.as_nested_tensor(list(data[name].unbind()), layout=torch.jagged)
        tu.assign_non_tensor(
            data,
            temperature=TEMPERATURE,
            global_batch_size=ROLLOUTS,
            mini_batch_size=len(rows),
            epochs=1,
            seed=42,
            dataloader_kwargs={"shuffle": False},
            calculate_entropy=False,
            **more,
        )
        metrics = tu.get(self.worker.train_mini_batch(data), "metrics")
        return dict(self.gradients), metrics


def cases(model_path: str, rank: int, ranks: int) -> list[dict[str, Any]]:
    """verl's GRPO, and ours at eta 0 and ETA, for each way of cutting the step."""
    from verl.workers.config import FSDPActorConfig
    from verl.workers.utils.losses import ppo_loss

    from dphrl.engines.verl.loss import ETA as ETA_NAME
    from dphrl.engines.verl.loss import dph_loss
    from dphrl.engines.verl.metrics import as_logged

    found = []
    for packed in (False, True):
        step = OneStep(model_path, packed=packed, rank=rank, ranks=ranks)
        for mode, dynamic, kl in (
            ("token-mean", False, False),
            ("seq-mean-token-mean", False, False),
            ("token-mean", True, False),
            ("token-mean", False, True),
        ):
            actor = FSDPActorConfig(
                strategy="fsdp2",
                rollout_n=4,
                ppo_mini_batch_size=4,
                ppo_micro_batch_size_per_gpu=MICRO,
                fsdp_config=step.engine,
                loss_agg_mode=mode,
                use_kl_loss=kl,
                kl_loss_coef=0.1,
            )
            plain = [row | _kl_fields(row, kl) for row in rollouts()]
            both, how = with_anchors(plain, ranks), {"use_dynamic_bsz": dynamic}
            stock, stock_metrics = step(partial(ppo_loss, config=actor), plain, **how)
            zero, zero_metrics = step(partial(dph_loss, DPH, actor), both, **how, **{ETA_NAME: 0.0})
            full, full_metrics = step(partial(dph_loss, DPH, actor), both, **how, **{ETA_NAME: ETA})
            case = {"packed": packed, "mode": mode, "dynamic": dynamic, "kl": kl, "ranks": ranks}
            case |= compared(stock, zero, full)
            if not kl:
                hand = by_hand(model_path, plain, 0.0, mode), by_hand(model_path, plain, ETA, mode)
                case |= {"verl_off": _off(stock, hand[0]), "off": _off(full, hand[1])}
            case["metrics"] = {"stock": _plain(stock_metrics), "zero": _plain(as_logged(zero_metrics)[0])}
            case["stats"] = {k: float(v) for k, v in as_logged(full_metrics)[1].metrics().items()}
            found.append(case)
    return found


def with_anchors(plain: Rows, ranks: int) -> Rows:
    """The step's rows with its anchors, in verl's order."""
    fields, tokens = fields_of_update(list(plain[0])), sum(len(a.completion_ids) for a in anchors())
    names, anchor_names = [f"r{i}" for i in range(ROLLOUTS)], [f"a{i}" for i in range(ANCHORS)]
    rows = {name: row | rollout_marks(len(row["responses"])) for name, row in zip(names, plain, strict=True)}
    rows |= {name: anchor_row(a, fields, tokens) for name, a in zip(anchor_names, anchors(), strict=True)}
    return [rows[name] for name in mixed(names, [anchor_names], ranks=ranks)]


def compared(stock: Gradients, zero: Gradients, full: Gradients) -> dict[str, Any]:
    """How far eta 0 is from verl's own gradients, and how far the anchors move them; by the norm of verl's."""
    return {
        "same_bits": all(torch.equal(stock[name], zero[name]) for name in stock),
        "zero_off": _off(zero, stock),
        "moved": _off(full, stock),
    }


def _off(found: Gradients, wanted: Gradients) -> float:
    """Norm of the difference over the norm of what is wanted."""
    total = sum(float((found[name] - wanted[name]).square().sum()) for name in wanted)
    return (total / sum(float(wanted[name].square().sum()) for name in wanted)) ** 0.5


def _kl_fields(row: dict[str, Tensor], kl: bool) -> dict[str, Tensor]:
    """A reference's log-probabilities and importance weights, which verl's loss then reads."""
    if not kl:
        return {}
    weights = torch.linspace(0.5, 1.5, len(row["responses"]))
    return {"ref_log_prob": row["old_log_probs"] + 0.3, "rollout_is_weights": weights}


def _plain(metrics: dict[str, Any]) -> dict[str, float]:
    wanted = ("actor/pg_clipfrac", "actor/ppo_kl", "actor/pg_loss", "actor/pg_clipfrac_lower", "kl_loss")
    return {name: float(np.mean(metrics[name])) for name in wanted if name in metrics}


def main(rank: int, ranks: int, port: int, model_path: str) -> None:
    """One process of a group."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    import verl  # noqa: F401

    lines: Sequence[dict[str, Any]] = cases(model_path, rank, ranks)
    if rank == 0:
        print("\n".join(f"CASE {json.dumps(case)}" for case in lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--ranks", type=int, default=1)
    given = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if given.ranks == 1:
        main(0, 1, port, given.model)
    else:
        torch.multiprocessing.spawn(main, (given.ranks, port, given.model), nprocs=given.ranks)
