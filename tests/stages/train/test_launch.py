"""`dphrl train` as a cluster starts it: how many processes really train, and what is refused where that is less."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from made_once import made_once
from safetensors.torch import load_file

from dphrl.cli.main import main
from dphrl.errors import ConfigError
from dphrl.runs.run_dir import RunDir
from dphrl.runs.training_log import read_metrics
from dphrl.stages.train.launch import Launch, asked_ranks, check_alone, check_gpus, check_launch, check_precision

ROOT = Path(__file__).parents[3]
SIMPLE = {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
"""What `accelerate launch --cpu --num_processes 2` gives the one process that it starts."""
TORCHRUN = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "RANK": "0", "MASTER_PORT": "29500"}
ONE, TWO = Launch(1, "NO", None, "cpu"), Launch(2, "MULTI_CPU", None, "cpu")


@pytest.mark.parametrize(
    ("environment", "ranks"),
    [({}, 1), (TORCHRUN, 2), (SIMPLE, 2), ({**SIMPLE, **TORCHRUN, "WORLD_SIZE": "16"}, 16)],
)
def test_ranks_asked_for(environment: dict[str, str], ranks: int) -> None:
    assert asked_ranks(environment) == ranks


@pytest.mark.parametrize("environment", [SIMPLE, TORCHRUN, {"OMPI_COMM_WORLD_SIZE": "4"}])
def test_a_launch_that_gave_fewer_processes_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"or more processes were asked for, but 1 trains.*torchrun"):
        check_launch(ONE, environment)


def test_a_launch_that_gave_what_it_asked_for_is_not() -> None:
    check_launch(ONE, {})
    check_launch(TWO, TORCHRUN)
    check_launch(Launch(2, "FSDP", None, "cuda"), {**TORCHRUN, "ACCELERATE_USE_FSDP": "true"})
    check_launch(Launch(2, "DEEPSPEED", 3, "cuda"), {**TORCHRUN, "ACCELERATE_USE_DEEPSPEED": "true"})


@pytest.mark.parametrize("layout", ["FSDP", "DEEPSPEED"])
def test_weights_that_were_to_be_divided_and_are_not(layout: str) -> None:
    """On CPUs accelerate drops both without a word."""
    with pytest.raises(ConfigError, match=f"asked for {layout}, but what runs is 2 processes on cpu, DDP"):
        check_launch(TWO, {**TORCHRUN, f"ACCELERATE_USE_{layout}": "true"})


def test_what_runs_is_said_in_words() -> None:
    assert str(ONE) == "1 process on cpu"
    assert str(Launch(8, "DEEPSPEED", 3, "cuda")) == "8 processes on cuda, DeepSpeed ZeRO-3, the weights divided"
    assert str(Launch(8, "DEEPSPEED", 2, "cuda")) == "8 processes on cuda, DeepSpeed ZeRO-2, the weights whole on each"
    plugin = SimpleNamespace(zero_stage=3)
    state = {"num_processes": 8, "device": torch.device("cpu"), "deepspeed_plugin": plugin}
    state["distributed_type"] = SimpleNamespace(name="DEEPSPEED")
    assert Launch.of(SimpleNamespace(**state)) == Launch(8, "DEEPSPEED", 3, "cpu")


def test_one_process_must_not_look_at_several_gpus() -> None:
    with pytest.raises(ConfigError, match=r"sees 4 GPUs.*CUDA_VISIBLE_DEVICES"):
        check_gpus("cuda", 1, 4)
    for fine in (("cuda", 4, 4), ("cuda", 1, 1), ("cpu", 1, 4)):
        check_gpus(*fine)


@pytest.mark.parametrize(
    ("method", "dtype", "launched", "refused"),
    [
        ("dph", "float32", "bf16", True),
        ("dph", "bfloat16", "bf16", False),
        ("dph", "bfloat16", "no", False),
        ("replay", "bfloat16", "fp16", True),
        ("grpo", "float32", "bf16", False),
        ("dph", "pure_bfloat16", "no", False),
        ("dph", "pure_bfloat16", "bf16", True),
        ("grpo", "pure_bfloat16", "bf16", True),
    ],
)
def test_anchors_are_trained_in_the_precision_they_were_scored_in(
    method: str, dtype: str, launched: str, refused: bool
) -> None:
    environment = {"ACCELERATE_MIXED_PRECISION": launched}
    if not refused:
        check_precision(method, dtype, environment)
        return
    with pytest.raises(ConfigError, match=f"computes in {launched}.*model.dtype={dtype}.*--mixed_precision no"):
        check_precision(method, dtype, environment)


def test_deepspeed_keeps_float32_weights_in_any_case() -> None:
    with pytest.raises(ConfigError, match=r"pure_bfloat16 under DeepSpeed.*use bfloat16"):
        check_precision("grpo", "pure_bfloat16", {"ACCELERATE_USE_DEEPSPEED": "true"})
    check_precision("grpo", "bfloat16", {"ACCELERATE_USE_DEEPSPEED": "true"})


@pytest.mark.parametrize("stage", ["presample", "eval", "run"])
def test_other_stages_are_one_process(
    stage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_alone(stage, {})
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert main([stage, "--config", "none.yaml"]) == 2
    assert f"dphrl {stage} is one process, but 2 or more were launched" in capsys.readouterr().err


# Real launches of two processes on gloo


def launched(launcher: list[str], *arguments: str) -> str:
    """Run a command to its end; what it said."""
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if launcher:  # The folder of a test must not be on the path: it holds a folder called vllm.
        quiet["PYTHONSAFEPATH"] = "1"
    done = subprocess.run(
        [sys.executable, *(["-m", *launcher] if launcher else []), *arguments],
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Traceback" not in done.stderr
    return done.stderr


def torchrun() -> list[str]:
    return ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "dphrl"]


def accelerate(recipe: str, *script: str, precision: str = "no") -> list[str]:
    """A recipe as it is, but for two processes that compute as their anchors were scored."""
    file = str(ROOT / "recipes" / "accelerate" / f"{recipe}.yaml")
    changes = ["--num_processes", "2", "--mixed_precision", precision, "--main_process_port", "0"]
    return ["accelerate.commands.launch", "--config_file", file, *changes, *script]


def environment(launcher: list[str]) -> dict[str, str]:
    """What `accelerate launch` sets for its ranks, without starting them."""
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(launcher[1:]))
    found = prepare_multi_gpu_env(arguments)
    return {name: value for name, value in found.items() if os.environ.get(name) != value}


FSDP2_ON_CPU = str(ROOT / "tests" / "support" / "fsdp2_on_cpu.py")
FORKED_RANKS = str(ROOT / "tests" / "support" / "forked_ranks.py")
BFLOAT16 = ("--model.dtype", "bfloat16")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Runs on the same anchors, by what launched them, each with what it said."""
    folder = made_once(tmp_path_factory, "launch", launch_all)
    return {said.stem: (folder / said.stem, said.read_text()) for said in folder.glob("*.txt")}


def launch_all(folder: Path) -> None:
    """Every run in a folder of its own, and what it said in a text file beside it."""
    values: dict[str, Any] = {
        "out": str(folder / "base"),
        "threads": 1,
        "model": {"path": "demo", "device": "cpu"},
        "task": {"data": "demo:in_domain", "limit": 48},
        "eval_tasks": {"in_domain": {"data": "demo:in_domain", "split": "eval", "limit": 2}},
        "sampling": {"max_new_tokens": 40, "batch_size": 512},
        "anchor": {"presamples": 4, "threshold": 3},
        "objective": {"anchors_per_step": 8},
        "train": {"steps": 2, "prompts_per_step": 4, "group_size": 4, "learning_rate": 1e-3, "save_every": 1},
        "eval": {"n": 2, "resamples": 100, "base": False},
    }
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    assert main(["presample", "--config", str(config)]) == 0
    half = folder / "half"
    assert main(["presample", "--config", str(config), "--model.dtype", "bfloat16", "--out", str(half)]) == 0

    def train(name: str, *more: str) -> list[str]:
        base = half if "bfloat16" in name else folder / "base"
        return ["train", "--config", str(config), "--base_run", str(base), "--out", str(folder / name), *more]

    launches = {"torchrun": torchrun(), "fsdp2": accelerate("fsdp2", FSDP2_ON_CPU)}
    for name, launcher in launches.items():
        (folder / f"{name}.txt").write_text(launched(launcher, *train(name)))
    resumed = folder / "resumed"
    shutil.copytree(folder / "fsdp2", resumed)
    shutil.rmtree(resumed / "train" / "final")
    shutil.rmtree(resumed / "train" / "checkpoint-4")
    forked = [
        ("lora", accelerate("ddp", "dphrl"), train("lora", "--lora.r", "4")),
        ("ddp-bfloat16", accelerate("ddp", "dphrl", precision="bf16"), train("ddp-bfloat16", *BFLOAT16)),
        ("fsdp2-bfloat16", accelerate("fsdp2", "dphrl", precision="bf16"), train("fsdp2-bfloat16", *BFLOAT16)),
        ("resumed", accelerate("fsdp2", "dphrl"), train("resumed")),
    ]
    listed = [
        {"environment": environment(launcher), "arguments": arguments, "said": str(folder / f"{name}.txt")}
        for name, launcher, arguments in forked
    ]
    (folder / "launches.json").write_text(json.dumps(listed))
    launched([], FORKED_RANKS, str(folder / "launches.json"))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "train" / "final" / "model.safetensors")


def metrics(run: Path) -> list[dict[str, Any]]:
    timed = ("throughput/", "step_time")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in read_metrics(RunDir(run).metrics)]


@pytest.mark.slow
def test_each_launch_says_how_many_train(trained: dict[str, tuple[Path, str]]) -> None:
    assert trained.keys() == {"torchrun", "fsdp2", "lora", "ddp-bfloat16", "fsdp2-bfloat16", "resumed"}
    for name, (_, said) in trained.items():
        layout = (
            "FSDP2, the weights divided" if name.startswith(("fsdp2", "resumed")) else "DDP, the whole model on each"
        )
        assert f"processes: 2/2 2 processes on cpu, {layout}" in said


@pytest.mark.slow
def test_the_final_model_of_fsdp2_is_that_of_ddp(trained: dict[str, tuple[Path, str]]) -> None:
    ddp, fsdp2 = weights(trained["torchrun"][0]), weights(trained["fsdp2"][0])
    assert ddp.keys() == fsdp2.keys()
    assert max(float((ddp[name] - fsdp2[name]).abs().max()) for name in ddp) < 1e-6
    start = load_file(ROOT / "src" / "dphrl" / "demo" / "assets" / "model" / "model.safetensors")
    assert max(float((ddp[name] - start[name]).abs().max()) for name in ddp) > 1e-4


@pytest.mark.slow
def test_the_final_model_of_fsdp2_can_be_measured(trained: dict[str, tuple[Path, str]]) -> None:
    run = trained["fsdp2"][0]
    assert main(["eval", "--config", str(run / "config.yaml"), "--model", "final"]) == 0
    assert "| in_domain | final | 2 | 2 |" in (run / "train" / "final" / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp-bfloat16", "fsdp2-bfloat16"])
def test_bfloat16_trains_float32_weights_and_stores_16_bits(name: str, trained: dict[str, tuple[Path, str]]) -> None:
    """The recipes as they are; anchors were scored in the same compute, which FSDP2 rounds a little more."""
    run, said = trained[name]
    (log_u,) = re.findall(r"mean \|log u\| (\S+) nats", said)
    assert float(log_u) < (1e-3 if name.startswith("ddp") else 5e-3) and "cannot move" not in said
    assert {x.dtype for x in weights(run).values()} == {torch.bfloat16}
    assert json.loads((run / "train/final/config.json").read_text())["dtype"] == "bfloat16"
    assert "bfloat16; trained in float32 computed in bfloat16" in (run / "train/final/README.md").read_text()
    kept = load_file(run / "train/checkpoint-4/model.safetensors")
    assert {x.dtype for x in kept.values()} == {torch.float32}
    assert main(["eval", "--config", str(run / "config.yaml"), "--model", "final"]) == 0


@pytest.mark.slow
def test_fsdp2_goes_on_from_its_checkpoint_to_the_same_model(trained: dict[str, tuple[Path, str]]) -> None:
    whole, resumed = trained["fsdp2"][0], trained["resumed"][0]
    assert all(torch.equal(found, weights(whole)[name]) for name, found in weights(resumed).items())
    assert metrics(whole) == metrics(resumed)


@pytest.mark.slow
def test_throughput_is_of_all_processes(trained: dict[str, tuple[Path, str]]) -> None:
    rows = [json.loads(x) for x in (trained["torchrun"][0] / "train" / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        shares = [row[f"throughput/{part}_share"] for part in ("generation", "verification", "anchor")]
        assert all(0 < share < 1 for share in shares) and sum(shares) < 1
        assert 0 < row["throughput/anchor_tokens_per_s"] < row["throughput/train_tokens_per_s"]


@pytest.mark.slow
def test_an_adapter_of_two_processes_is_merged(trained: dict[str, tuple[Path, str]]) -> None:
    run = trained["lora"][0]
    assert json.loads((run / "train" / "adapter" / "adapter_config.json").read_text())["r"] == 4
    assert weights(run).keys() == weights(trained["torchrun"][0]).keys()
