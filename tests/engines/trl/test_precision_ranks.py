"""`model.dtype`: what one optimiser step at a learning rate of 1e-6 moves, in one process and on two ranks.

This file is also what `torchrun` runs: it trains every variant of VARIANTS and writes down what came of it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, Qwen3Config, TrainerCallback

from dphrl import DPHConfig, DPHTrainer
from dphrl.config.load import build_config
from dphrl.demo.task import load_demo_task
from dphrl.models.policy import Policy, load_policy, save_policy
from dphrl.models.scoring import score
from dphrl.stages.train.make_trainer import adapter
from dphrl.types import Anchor

GROUP, ROWS = 4, 8
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
"""What `accelerate launch` sets for recipes/accelerate/fsdp2.yaml."""
VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ddp": ("bfloat16", "NO", {}),
    "ddp pure": ("pure_bfloat16", "NO", {}),
    "ddp merged": ("bfloat16", "NO", {"anchor_forward": "merged"}),
    "ddp adapter": ("bfloat16", "NO", {"rank": 4}),
    # Last: the layout is one for the whole process.
    "fsdp2": ("bfloat16", "FSDP", {}),
    "fsdp2 pure": ("pure_bfloat16", "FSDP", {}),
    "fsdp2 float32": ("float32", "FSDP", {}),
    "fsdp2 adapter": ("bfloat16", "FSDP", {"rank": 4}),
}
"""Name -> model.dtype, layout, settings."""


@dataclass(frozen=True)
class Found:
    """What one optimiser step did, of this rank's part of the weights."""

    processes: int
    layout: str
    types: list[str]
    """Of the trained weights, in the step."""
    with_gradient: int
    moved: int
    """Of those with a gradient."""
    log_u: float
    """The anchors' mean |log u| before the step; nan without anchors."""
    kl: float
    """TRL's estimate of the KL to the reference before the step; nan without one."""
    rounded: float
    """Share of the policy's log-probabilities below -0.01 that are 16-bit numbers."""
    told: list[str]

    @property
    def share(self) -> float:
        return self.moved / self.with_gradient


class Watch(TrainerCallback):
    """Compares the weights around the optimiser's step."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        self.before = [(own(p).clone(), own(p.grad) != 0) for p in model.parameters() if p.grad is not None]
        self.types = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.requires_grad})

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        after = [own(p) for p in model.parameters() if p.grad is not None]
        self.with_gradient = sum(int(pulled.sum()) for _, pulled in self.before)
        self.moved = sum(int(((a != b) & pulled).sum()) for a, (b, pulled) in zip(after, self.before, strict=True))


def own(tensor: Any) -> torch.Tensor:
    return tensor.detach().to_local() if hasattr(tensor, "to_local") else tensor.detach()


def by_length(completions: list[str], **columns: Any) -> list[float]:
    return [0.01 * len(text) + (len(text) % 3) for text in completions]


def anchors_of(policy: Policy, prompts: Any, autocast: str | None) -> list[Anchor]:
    """Gold answers with the policy's log-probabilities."""
    ids = [policy.encode(p) for p in prompts]
    gold = [[*policy.tokenizer(p.columns["gold"])["input_ids"], policy.stop_ids[0]] for p in prompts]
    scored = score(policy.model, ids, gold, pad_id=0, temperature=1.0, batch_size=5, autocast=autocast)
    return [Anchor(p.id, tuple(i), tuple(g), x.logps) for p, i, g, x in zip(prompts, ids, gold, scored, strict=True)]


def one_step(
    folder: Path,
    model: Mapping[str, Any],
    layout: str = "NO",
    *,
    reports: bool = True,
    watch: Callable[[DPHTrainer], object] = lambda trainer: None,
    autocast: str | None = "as it is trained",
    rank: int | None = None,
    **changes: Any,
) -> Found:
    """Train one optimiser step, or `max_steps`, with what the stage would set for this model.

    Args:
        reports: whether what is told is kept, as the stage does, not warned of.
        watch: called with the trainer before it trains.
        autocast: of scoring the anchors.
        rank: of an adapter.
    """
    config = build_config({"model": {"device": "cpu", **model}, "lora": {"r": rank}})
    changes = {"method": "dph", **changes}
    anchored = changes["method"] == "dph"
    policy = load_policy(config)
    prompts = load_demo_task("in_domain").prompts[:24]
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    args = DPHConfig(
        output_dir=str(folder / "out"),
        anchors_per_step=8 if anchored else None,
        num_generations=GROUP,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=ROWS // ranks // 2,
        max_completion_length=16,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        use_cpu=True,
        bf16=config.trained_precision.autocast is not None,
        activation_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **{"max_steps": 1, **changes},
    )
    scored_in = policy.precision.autocast if autocast == "as it is trained" else autocast
    trainer = DPHTrainer(
        model=policy.model,
        reward_funcs=by_length,
        args=args,
        train_dataset=Dataset.from_list([{"prompt": p.prompt, "prompt_id": p.id} for p in prompts]),
        processing_class=policy.tokenizer,
        anchors=anchors_of(policy, prompts, scored_in) if anchored else None,
        peft_config=adapter(config),
        encode=policy.encode,
    )
    assert trainer.accelerator.distributed_type.name in (layout, "MULTI_CPU")
    seen, told, log_us, logps = Watch(), [], [], []
    score_rows = trainer._get_per_token_logps_and_entropies

    def scored(*args: Any, **kwargs: Any) -> Any:
        output = score_rows(*args, **kwargs)
        logps.append(output[0].detach().flatten())
        return output

    trainer._get_per_token_logps_and_entropies = scored
    trainer.report_note = told.append if reports else trainer.report_note
    trainer.report_log_u = log_us.append
    trainer.add_callback(seen)
    watch(trainer)
    trainer.train()
    logp_N = torch.cat(logps)
    logp_N = logp_N[logp_N < -0.01]  # nearer to 0 float32 itself is coarse
    return Found(
        processes=trainer.accelerator.num_processes,
        layout=trainer.accelerator.distributed_type.name,
        types=seen.types,
        with_gradient=seen.with_gradient,
        moved=seen.moved,
        log_u=log_us[0] if anchored else float("nan"),
        kl=trainer.state.log_history[0].get("kl", float("nan")),
        rounded=float((logp_N.to(torch.bfloat16).float() == logp_N).float().mean()),
        told=told,
    )


FAMILIES: dict[str, Any] = {
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=128),
    "qwen3": Qwen3Config(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8,
    ),
    "gemma3": Gemma3TextConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, sliding_window=8,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A model of each family with the demo's tokenizer and random weights."""
    demo = load_policy(build_config({"model": {"path": "demo", "device": "cpu"}}))
    folders = {"llama": "demo"}
    for name, shape in FAMILIES.items():
        torch.manual_seed(0)
        shape.vocab_size = demo.model.config.vocab_size
        shape.bos_token_id, shape.eos_token_id, shape.pad_token_id = None, demo.stop_ids[0], 0
        folder = tmp_path_factory.mktemp(name)
        model = AutoModelForCausalLM.from_config(shape, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3.0)  # as initialised all its log-probabilities are about the same
        save_policy(demo, model, folder / "model")
        folders[name] = str(folder / "model")
    return folders


@pytest.mark.parametrize("family", ["llama", *FAMILIES])
def test_a_step_of_a_millionth_moves_float32_weights(family: str, paths: dict[str, str], tmp_path: Path) -> None:
    """And only those: what model.dtype=bfloat16 trains, whatever it computes in."""
    found = {dtype: one_step(tmp_path, {"path": paths[family], "dtype": dtype}) for dtype in ("bfloat16", "float32")}
    assert all(f.types == ["float32"] and f.share > 0.99 and f.told == [] for f in found.values())
    assert found["float32"].log_u < 1e-5
    apart = one_step(tmp_path, {"path": paths[family], "dtype": "bfloat16"}, autocast=None).log_u
    assert found["bfloat16"].log_u < apart / 20  # of anchors that were scored in float32


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_step_of_a_millionth_leaves_16_bit_weights_and_is_told_of(
    family: str, paths: dict[str, str], tmp_path: Path
) -> None:
    found = one_step(tmp_path, {"path": paths[family], "dtype": "pure_bfloat16"})
    assert found.types == ["bfloat16"] and found.share < 0.03 and found.log_u < 1e-2
    (text,) = found.told
    lost = float(text.partition("%")[0]) / 100
    assert lost == pytest.approx(1 - found.share, abs=0.01)  # of all weights, not of those with a gradient alone
    assert "use model.dtype=bfloat16" in text


def test_a_trainer_from_python_warns_of_16_bit_weights(tmp_path: Path) -> None:
    """Nobody has said `pure` there."""
    with pytest.warns(UserWarning, match=r"of the trained weights cannot move by the learning rate 1e-06"):
        one_step(tmp_path, {"path": "demo", "dtype": "pure_bfloat16"}, reports=False)


def test_training_draws_in_the_precision_that_it_trains_in(tmp_path: Path) -> None:
    """And casts each weight once for a whole generation, not once a token."""
    drawn: set[torch.dtype] = set()
    casts: list[int] = []
    from weight_casts import WeightCasts  # late: as `made_once`

    def watch(trainer: DPHTrainer) -> None:
        layers, generate = trainer.model.model.layers, trainer._generate
        head = trainer.model.lm_head

        def generated(*args: Any, **kwargs: Any) -> Any:
            hook = head.register_forward_hook(lambda module, args, output: drawn.add(output.dtype))
            with WeightCasts(layers[0].mlp.down_proj.weight.shape) as found:
                output = generate(*args, **kwargs)
            hook.remove()
            casts.append(found.count - len(layers))
            return output

        trainer._generate = generated

    one_step(tmp_path, {"path": "demo", "dtype": "bfloat16"}, watch=watch)
    assert drawn == {torch.bfloat16} and casts == [0]


@pytest.mark.parametrize("dtype", ["bfloat16", "pure_bfloat16"])
def test_the_reference_of_rkl_computes_as_the_policy_does(dtype: str, tmp_path: Path) -> None:
    """So the KL of the unchanged policy is 0, however the products are rounded."""
    model = {"path": "demo", "dtype": dtype}
    assert abs(one_step(tmp_path, model, method="rkl", beta=0.1).kl) < 1e-7
    other = {"dtype": torch.bfloat16 if dtype == "bfloat16" else torch.float32}
    assert one_step(tmp_path, model, method="rkl", beta=0.1, model_init_kwargs=other).kl > 1e-6


def test_an_adapter_is_trained_in_float32_beside_16_bit_weights(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    found = one_step(tmp_path, {"path": "demo", "dtype": "bfloat16"}, rank=4)
    assert found.types == ["float32"] and found.share > 0.99 and found.log_u < 1e-3 and found.told == []


class Differs(TrainerCallback):
    """Shares of the weights that a training has changed: as they are trained, and as they would be stored."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        self.start = torch.cat([p.detach().flatten() for p in model.parameters()])

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        end = torch.cat([p.detach().flatten() for p in model.parameters()])
        self.on_grid = bool((self.start == self.start.bfloat16().float()).all())
        self.trained = float((end != self.start).float().mean())
        self.stored = float((end.bfloat16() != self.start.bfloat16()).float().mean())


@pytest.mark.slow
def test_most_of_a_short_training_is_smaller_than_the_rounding_of_what_is_stored(tmp_path: Path) -> None:
    """20 steps at 1e-6 from a checkpoint of 16 bits: docs/scale.md has the shares."""
    pure = load_policy(build_config({"model": {"path": "demo", "device": "cpu", "dtype": "pure_bfloat16"}}))
    save_policy(pure, pure.model, tmp_path / "half")
    differs = Differs()
    model = {"path": str(tmp_path / "half"), "dtype": "bfloat16"}
    one_step(tmp_path, model, max_steps=20, watch=lambda trainer: trainer.add_callback(differs))
    assert differs.on_grid and differs.trained > 0.99 and 0.01 < differs.stored < 0.05


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Found]]:
    """What each of two processes found, by variant."""
    from made_once import made_once  # late: torchrun runs this file without the folder of that module on its path

    folder = made_once(tmp_path_factory, "precision-ranks", launch)
    found = [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    return [{name: Found(**values) for name, values in one.items()} for one in found]


def launch(folder: Path) -> None:
    """Run this file on two ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__, folder]
    # The folder of this file must not be on the path: it holds a folder called vllm.
    path = os.pathsep.join([str(Path(__file__).parents[2] / "support"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_two_ranks_train_what_one_process_does(name: str, two_ranks: list[dict[str, Found]]) -> None:
    dtype, layout, settings = VARIANTS[name]
    if "rank" in settings:
        pytest.importorskip("peft")
    pure = dtype == "pure_bfloat16"
    for rank, found in enumerate(one[name] for one in two_ranks):
        assert (found.processes, found.layout) == (2, "FSDP" if layout == "FSDP" else "MULTI_CPU")
        assert found.types == ["bfloat16" if pure else "float32"]
        assert found.share < 0.03 if pure else found.share > 0.99
        assert found.log_u < (5e-3 if (dtype, layout) == ("bfloat16", "FSDP") else 5e-5)  # FSDP2 rounds more
        assert len(found.told) == (1 if pure and rank == 0 else 0)
        if pure:  # of this rank's part
            assert rank == 1 or float(found.told[0].partition("%")[0]) > 97


@pytest.mark.slow
def test_fsdp2_gives_log_probabilities_back_in_float32(two_ranks: list[dict[str, Found]]) -> None:
    """accelerate's policy would round each to 16 bits: all of them would be 16-bit numbers."""
    for found in two_ranks:
        assert found["fsdp2"].rounded < 0.1 and found["ddp"].rounded < 0.1


def main(folder: Path) -> None:
    """Every variant on this rank, which writes what it found."""
    from fsdp2_on_cpu import honour_fsdp

    warnings.simplefilter("ignore")
    found = {}
    for name, (dtype, layout, settings) in VARIANTS.items():
        if "rank" in settings and importlib.util.find_spec("peft") is None:
            continue
        if layout == "FSDP" and "ACCELERATE_USE_FSDP" not in os.environ:
            os.environ.update(FSDP2)
            AcceleratorState._reset_state()
            honour_fsdp()
        found[name] = asdict(one_step(folder, {"path": "demo", "dtype": dtype}, layout, **settings))
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(found), encoding="utf-8")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)  # torch's own threads may still want the interpreter while it ends, which aborts one rank in many runs


if __name__ == "__main__":
    main(Path(sys.argv[1]))
