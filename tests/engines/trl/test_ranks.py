"""One optimiser step is the same however it is split: micro-batches, ranks, DDP, FSDP2, activation checkpointing.

This file is also what `torchrun` runs: it trains every variant of VARIANTS and writes down what came of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import DistributedType
from accelerate.utils import FullyShardedDataParallelPlugin
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from dphrl import DPHConfig, DPHTrainer
from dphrl.config.load import build_config
from dphrl.demo.task import load_demo_task
from dphrl.errors import ConfigError
from dphrl.models.policy import load_policy
from dphrl.types import Anchor

GROUP, ROWS, STEPS = 4, 8, 3
TOLERANCE = 1e-6
"""Largest distance of any weight after 3 steps in float32; the steps move weights by more than MOVED."""
MOVED = 3e-3
CLIP = 0.4
"""Gradient norm; the first step's is about 1.5, so clipping acts."""
DPH: dict[str, Any] = {"method": "dph", "divergence": "js", "eta": 0.5}
RKL: dict[str, Any] = {"method": "rkl", "kl_estimator": "k2", "beta": 0.3}
DEFINITION: dict[str, Any] = {**DPH, "form": "definition"}
TOPK: dict[str, Any] = {**DPH, "anchor_estimator": "topk"}
FEW: dict[str, Any] = {**DPH, "anchors_per_step": 3}
"""Fewer anchors than micro-batches x ranks: some have none."""
VARIANTS: dict[str, dict[str, Any]] = {
    "dph 2x2": {**DPH, "micro": 2},
    "replay 4x1": {"method": "replay", "eta": 0.5, "micro": 1},
    "rkl 2x2": {**RKL, "micro": 2},
    "dph non-reentrant": {**DPH, "micro": 2, "use_reentrant": False},
    "dph reentrant": {**DPH, "micro": 2, "use_reentrant": True, "anchor_forward": "separate"},
    "rkl reentrant": {**RKL, "micro": 4, "use_reentrant": True},
    "merged 2x2": {**DPH, "micro": 2, "anchor_forward": "merged"},
    "merged reentrant": {**DPH, "micro": 2, "use_reentrant": True, "anchor_forward": "merged"},
    "definition 2x2": {**DEFINITION, "micro": 2},
    "topk 2x2": {**TOPK, "micro": 2},
    "few anchors 4x1": {**FEW, "micro": 1},
    "few anchors padded": {**FEW, "micro": 2, "share_prompts": "off"},
    "few anchors separate": {**FEW, "micro": 2, "anchor_forward": "separate"},
    "padded 2x2": {**DPH, "micro": 2, "share_prompts": "off"},
    "drawn 2x2": {**DPH, "micro": 2, "drawn": True},
    # Last: accelerate's state is one for the whole process.
    "drawn fsdp2": {**DPH, "micro": 2, "drawn": True, "fsdp": True},
    "dph fsdp2": {**DPH, "micro": 2, "fsdp": True},
    "dph fsdp2 reentrant": {**DPH, "micro": 4, "use_reentrant": True, "fsdp": True},
    "merged fsdp2": {**DPH, "micro": 2, "anchor_forward": "merged", "fsdp": True},
    "few anchors fsdp2": {**FEW, "micro": 1, "fsdp": True},
    "few anchors padded fsdp2": {**FEW, "micro": 2, "share_prompts": "off", "fsdp": True},
    "few anchors separate fsdp2": {**FEW, "micro": 2, "anchor_forward": "separate", "fsdp": True},
    "topk fsdp2": {**TOPK, "micro": 2, "fsdp": True},
}
"""Of two ranks: `micro` completions a forward, 4 rows a rank."""
SPLIT = ("micro", "use_reentrant", "fsdp", "anchor_forward", "share_prompts")
"""What must not matter; the rest of a variant is its method."""


REFUSED = {
    "dph reentrant": ("use_reentrant=True", "anchor_forward='merged'"),
    "few anchors separate": ("anchors_per_step=3", "anchor_forward='merged'"),
    "few anchors separate fsdp2": ("anchors_per_step=3", "anchor_forward='merged'"),
}
"""Variants that end before the first step, and what their message names."""


class FixedRollouts(DPHTrainer):
    """Completion k of a prompt is its gold answer without the first k tokens, so that what is drawn plays no part."""

    answers: dict[tuple[int, ...], list[int]]
    """Empty: drawn all the same."""

    def check_anchors(self) -> None:
        """The anchors' log-probabilities are made up."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> Any:
        if not self.answers:
            assert self._rollouts is not None
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        return [self.answers[tuple(ids)][i % GROUP :] for i, ids in enumerate(prompt_ids)], None


class Sharded(FixedRollouts):
    """Under FSDP2, as a launch on GPUs sets it up: on a CPU accelerate does not read the plugin."""

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        self.is_fsdp_enabled = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
            reshard_after_forward=True,
            cpu_ram_efficient_loading=False,
            state_dict_type="FULL_STATE_DICT",
        )
        self.accelerator.state.distributed_type = DistributedType.FSDP


def few_tokens(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    return [1.0 / len(ids) + 0.3 * (ids[0] % 3) for ids in completion_ids]


def make_trainer(
    folder: Path,
    *,
    ranks: int,
    micro: int,
    use_reentrant: bool | None = None,
    drawn: bool = False,
    kind: type[FixedRollouts] = FixedRollouts,
    **changes: Any,
) -> Any:
    """8 rows a step over all ranks, each used for two optimiser steps, so that ratios are not 1."""
    policy = load_policy(build_config({"model": {"path": "demo", "device": "cpu"}}))
    prompts = load_demo_task("in_domain").prompts[:24]
    ids = [policy.encode(p) for p in prompts]
    gold = [[*policy.tokenizer(p.columns["gold"])["input_ids"], policy.stop_ids[0]] for p in prompts]
    accumulation = ROWS // ranks // micro
    checkpointing = use_reentrant is not None
    args = DPHConfig(
        output_dir=str(folder / "out"),
        num_generations=GROUP,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=accumulation,
        num_iterations=2,
        max_steps=STEPS,
        max_completion_length=60,
        learning_rate=0.1,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=CLIP,
        seed=3,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": use_reentrant} if checkpointing else None,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **{"anchors_per_step": 12 if changes.get("method", "dph") in ("dph", "replay") else None, **changes},
    )
    trainer = kind(
        model=policy.model,
        reward_funcs=few_tokens,
        args=args,
        train_dataset=Dataset.from_list([{"prompt": p.prompt, "prompt_id": p.id} for p in prompts]),
        processing_class=policy.tokenizer,
        anchors=far_anchors(ids, gold) if args.method in ("dph", "replay") else None,
        encode=policy.encode,
    )
    trainer.answers = {} if drawn else {tuple(i): g for i, g in zip(ids, gold, strict=True)}
    return trainer


def far_anchors(ids: list[list[int]], gold: list[list[int]]) -> list[Anchor]:
    """Anchors whose stored log-probabilities are made up, so that the penalty pulls from the first step on."""
    return [
        Anchor(
            str(n),
            tuple(i),
            tuple(g),
            tuple(-0.1 - 0.2 * (k % 4) for k in range(len(g))),
            topk_ids=tuple((token, (token + 1) % 200, (token + 7) % 200) for token in g),
            topk_logps=((-0.7, -1.6, -2.9),) * len(g),
        )
        for n, (i, g) in enumerate(zip(ids, gold, strict=True))
    ]


def trained(trainer: Any) -> Tensor:
    """All weights after the steps."""
    trainer.train()
    return flat(trainer)


def flat(trainer: Any) -> Tensor:
    """Weights in one row, gathered where they are sharded."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    whole = [p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()]
    return torch.cat([p.detach().flatten().double() for p in whole])


def main(folder: Path) -> None:
    """Train every variant on this rank; rank 0 writes."""
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    weights, facts = {}, {}
    for name, variant in VARIANTS.items():
        settings = dict(variant)
        kind = Sharded if settings.pop("fsdp", False) else FixedRollouts
        try:
            trainer = make_trainer(folder, kind=kind, ranks=ranks, **settings)
        except ConfigError as error:
            facts[name] = {"refused": str(error)}
            continue
        weights[name] = trained(trainer)
        facts[name] = {
            "processes": trainer.accelerator.num_processes,
            "wrapped": [c.__name__ for c in type(trainer.model_wrapped).__mro__],
            "sharded": sum(isinstance(p, DTensor) for p in trainer.model.parameters()),
            "parameters": len(list(trainer.model.parameters())),
        }
    if rank == 0:
        save_file(weights, folder / "weights.safetensors")
        (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    torch.distributed.destroy_process_group()
    os._exit(0)  # torch's own threads may still want the interpreter while it ends, which aborts one rank in many runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Tensor]:
    """Weights after the steps on one rank without accumulation, worked out once for each method."""
    known: dict[str, Tensor] = {}

    def weights(**method: Any) -> Tensor:
        key = json.dumps(method, sort_keys=True)
        if key not in known:
            trainer = make_trainer(tmp_path_factory.mktemp("whole"), ranks=1, micro=ROWS, **method)
            start = flat(trainer)
            known[key] = trained(trainer)
            assert (known[key] - start).abs().max() > MOVED
            if trainer.args.loss_type == "dapo" and trainer.answers:
                assert trainer.state.log_history[0]["grad_norm"] > 2 * CLIP
                assert trainer.state.log_history[1]["clip_ratio/region_mean"] > 0
        return known[key]

    return weights


@pytest.mark.parametrize(
    ("method", "split"),
    [
        (DPH, {"micro": 1}),
        (RKL, {"micro": 4}),
        (DPH, {"micro": 4, "use_reentrant": False}),
        (DPH, {"micro": 2, "use_reentrant": True}),
        (DPH, {"micro": 2, "anchor_forward": "merged"}),
        (DPH, {"micro": 2, "share_prompts": "off"}),
        (FEW, {"micro": 1}),
        pytest.param(FEW, {"micro": 2, "anchor_forward": "separate"}, marks=pytest.mark.slow),
        pytest.param(FEW, {"micro": 1, "share_prompts": "off"}, marks=pytest.mark.slow),
        pytest.param(FEW, {"micro": 2, "use_reentrant": True}, marks=pytest.mark.slow),
        pytest.param(DPH, {"micro": 8, "anchor_forward": "merged"}, marks=pytest.mark.slow),
        pytest.param(DPH, {"micro": 4, "use_reentrant": True, "anchor_forward": "merged"}, marks=pytest.mark.slow),
        pytest.param(DEFINITION, {"micro": 2}, marks=pytest.mark.slow),
        pytest.param(DEFINITION, {"micro": 4, "anchor_forward": "merged"}, marks=pytest.mark.slow),
        pytest.param(TOPK, {"micro": 2, "use_reentrant": True}, marks=pytest.mark.slow),
        pytest.param(DPH, {"micro": 4}, marks=pytest.mark.slow),
        pytest.param(RKL, {"micro": 1}, marks=pytest.mark.slow),
        pytest.param({"method": "replay", "eta": 0.5}, {"micro": 1}, marks=pytest.mark.slow),
        pytest.param({"method": "dapo"}, {"micro": 2}, marks=pytest.mark.slow),
    ],
)
def test_micro_batches_and_checkpointing_change_nothing(
    method: dict[str, Any], split: dict[str, Any], whole: Any, tmp_path: Path
) -> None:
    """1 x 8 = 2 x 4 = 4 x 2 = 8 x 1; 12 anchors over 8 micro-batches are padded to one another or to nothing."""
    found = trained(make_trainer(tmp_path, ranks=1, **method, **split))
    assert (found - whole(**method)).abs().max() < TOLERANCE


@pytest.mark.parametrize("anchor_forward", ["separate", pytest.param("merged", marks=pytest.mark.slow)])
def test_anchors_in_buckets_of_like_length_change_nothing(
    anchor_forward: str, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same anchors in another order and other micro-batches: other neighbours, other padding."""
    trainer = make_trainer(tmp_path, ranks=1, micro=2, anchor_forward=anchor_forward, **DPH)
    widths: list[set[int]] = []

    def bucket(indices: Any, *, micro: int, micros: int, **ranks: int) -> Any:
        by_length = indices[np.argsort(trainer._anchors._lengths[indices], kind="stable")]
        mine = np.array_split(by_length, micros)[micro]
        widths.append(set(trainer._anchors._lengths[mine].tolist()))
        return mine

    monkeypatch.setattr("dphrl.engines.common.anchor_term.share", bucket)
    found = trained(trainer)
    assert len(widths) == 4 * STEPS and max(max(w) for w in widths) > 2 * min(max(w) for w in widths)
    assert (found - whole(**DPH)).abs().max() < TOLERANCE


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # tracing warns of torch's own doings
def test_a_compiled_model_ends_where_it_does_without(whole: Any, tmp_path: Path) -> None:
    """Traced by TorchDynamo and run as it is, which is what torch.compile adds beside its backend's own arithmetic."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    trainer = make_trainer(tmp_path, ranks=1, micro=8, torch_compile_backend="eager", **DPH)
    found = trained(trainer)
    assert type(trainer.model_wrapped).__name__ == "OptimizedModule"
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert (found - whole(**DPH)).abs().max() < TOLERANCE


class Adapted(FixedRollouts):
    """LoRA on the queries and values."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        peft = pytest.importorskip("peft")
        torch.manual_seed(0)
        super().__init__(*args, **kwargs, peft_config=peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))


@pytest.mark.slow
@pytest.mark.parametrize("method", [DPH, DEFINITION, TOPK])
def test_an_adapter_ends_where_it_does_unsplit(method: dict[str, Any], tmp_path: Path) -> None:
    """Both kinds of checkpointing, and anchors in the rollouts' forward."""
    one = make_trainer(tmp_path, ranks=1, micro=8, kind=Adapted, **method)
    start, expected = flat(one), trained(one)
    assert (expected - start).abs().max() > MOVED
    splits = [{"use_reentrant": True}, {"use_reentrant": False}]
    splits += [] if method == TOPK else [{"use_reentrant": True, "anchor_forward": "merged"}]
    for split in splits:
        found = trained(make_trainer(tmp_path, ranks=1, micro=2, kind=Adapted, **method, **split))
        assert (found - expected).abs().max() < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "bnpo", "cispo", "luspo"])
def test_which_loss_types_depend_on_the_split(loss_type: str, whole: Any, tmp_path: Path) -> None:
    """One of each denominator; all but bnpo, which by its definition divides a micro-batch by its own tokens."""
    level = "sequence" if loss_type == "luspo" else "token"
    method = {**DPH, "loss_type": loss_type, "importance_sampling_level": level}
    method |= {"epsilon_high": 5.0} if loss_type == "cispo" else {}
    distance = (trained(make_trainer(tmp_path, ranks=1, micro=2, **method)) - whole(**method)).abs().max()
    assert distance > 10 * TOLERANCE if loss_type == "bnpo" else distance < TOLERANCE


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and facts of every variant from two processes."""
    from made_once import made_once  # late: torchrun runs this file without the folder of that module on its path

    folder = made_once(tmp_path_factory, "two-ranks", launch)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return load_file(folder / "weights.safetensors"), facts


def launch(folder: Path) -> None:
    """Run this file on two ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__, folder]
    # The folder of this file must not be on the path: it holds a folder called vllm.
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in VARIANTS if n not in REFUSED])
def test_two_ranks_end_where_one_does(name: str, two_ranks: Any, whole: Any) -> None:
    weights, facts = two_ranks
    method = {k: v for k, v in VARIANTS[name].items() if k not in SPLIT}
    assert facts[name]["processes"] == 2
    sharded = "FSDPModule" in facts[name]["wrapped"] and facts[name]["sharded"] == facts[name]["parameters"]
    assert sharded if "fsdp2" in name else facts[name]["wrapped"][0] == "DistributedDataParallel"
    assert (weights[name] - whole(**method)).abs().max() < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_several_ranks_cannot_do_beside_anchors_is_refused(name: str, two_ranks: Any) -> None:
    refused = two_ranks[1][name]["refused"]
    assert all(part in refused for part in REFUSED[name])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
