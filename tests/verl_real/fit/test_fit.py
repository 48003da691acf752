"""verl's `main_ppo` whole, on a CPU: Ray, TransferQueue, agent loop, our verifier, validation, checkpoints, resume.

Minutes: `make test-verl-fit`. The commands are those that `dphrl verl-command` prints for a config of ours, with what a
CPU needs laid over them. Each training is a process of its own.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from dphrl.models.shipped import shipped_model

pytestmark = [pytest.mark.fit, pytest.mark.slow]

CONFIG = {
    "method": "dph",
    "model": {"path": "demo"},
    "task": {"data": "demo:in_domain", "limit": 96},
    "eval_tasks": {"in_domain": {"data": "demo:in_domain", "split": "eval", "limit": 6}},
    "sampling": {"max_new_tokens": 24, "batch_size": 256},
    "anchor": {"presamples": 8, "threshold": 6},
    "objective": {"eta": 0.2, "anchors_per_step": 8},
    "train": {"steps": 3, "updates": 1, "prompts_per_step": 8, "group_size": 4, "learning_rate": 1e-3},
    "eval": {"n": 2},
}
FLOATS = ("param", "reduce", "buffer")
ON_A_CPU = {
    "actor_rollout_ref.model.use_remove_padding": "False",
    "actor_rollout_ref.model.enable_gradient_checkpointing": "False",
    "+actor_rollout_ref.model.override_config.attn_implementation": "eager",
    "actor_rollout_ref.actor.use_torch_compile": "False",
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile": "False",
    "actor_rollout_ref.rollout.name": "hf",
    "actor_rollout_ref.rollout.agent.num_workers": "1",
    "actor_rollout_ref.rollout.free_cache_engine": "False",
    "data.dataloader_num_workers": "0",
    "data.shuffle": "False",
    "reward.num_workers": "1",
    "trainer.device": "cpu",
    "trainer.logger": "[console,file]",
    "trainer.save_freq": "2",
    "trainer.test_freq": "3",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units": "1",
    "ray_kwargs.ray_init.num_cpus": "12",  # TransferQueue takes 9; with fewer it waits for ever
    "+ray_kwargs.ray_init.include_dashboard": "False",
    "+ray_kwargs.ray_init.object_store_memory": "200000000",
    **{f"+actor_rollout_ref.actor.fsdp_config.mixed_precision.{name}_dtype": "fp32" for name in FLOATS},
}
STATIC = {
    "actor_rollout_ref.actor.use_dynamic_bsz": "False",
    "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz": "False",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": "4",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": "8",
}
ENVIRONMENT = {
    "VERL_USE_EXTERNAL_MODULES": "verl_on_cpu,dphrl.engines.verl.plugin",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "WANDB_MODE": "disabled",
}
Step = dict[str, float]


@dataclass(frozen=True)
class Training:
    """One that has ended."""

    out: Path
    printed: str
    status: int

    @property
    def steps(self) -> dict[int, Step]:
        """Step -> metrics, as verl's tracker got them."""
        lines = (self.out / "metrics.jsonl").read_text().splitlines()
        return {row["step"]: row["data"] for row in map(json.loads, lines)}


class Project:
    """A run that has been pre-sampled and exported, and the command that trains it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        config = folder / "c.yaml"
        config.write_text(yaml.safe_dump({"out": str(folder / "run"), **CONFIG}))
        self.dphrl("presample", "--config", str(config))
        self.dphrl("export", "verl", "--run", str(folder / "run"), "--out", str(folder / "run" / "verl"))
        printed = self.dphrl("verl-command", "--config", str(config), "--gpus", "1", "--nodes", "1")
        words = shlex.split(printed.replace("\\\n", " "), comments=True)
        start = words.index("verl.trainer.main_ppo") + 1
        self.settings = dict(word.split("=", 1) for word in words[start:])

    def dphrl(self, *words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "dphrl", *words], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def train(self, name: str, changed: dict[str, str] | None = None, *, gpus: int = 1) -> Training:
        """Run the command with other settings; "" takes one out."""
        out = self.folder / name
        out.mkdir(exist_ok=True)
        places = {
            "trainer.default_local_dir": f"{out}/checkpoints",
            "trainer.validation_data_dir": f"{out}/val",
            "+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH": f"{out}/metrics.jsonl",
            "trainer.n_gpus_per_node": str(gpus),
            "+ray_kwargs.ray_init.num_gpus": str(gpus),
            "actor_rollout_ref.model.path": str(shipped_model("demo")),
        }
        settings = _laid_over(self.settings, ON_A_CPU | places | (changed or {}))
        words = [f"{key}={value}" for key, value in settings.items() if value]
        done = subprocess.run(
            [sys.executable, "-m", "verl.trainer.main_ppo", *words],
            cwd=out,
            env=os.environ | ENVIRONMENT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=900,
        )
        return Training(out, done.stdout, done.returncode)


def _laid_over(settings: dict[str, str], others: dict[str, str]) -> dict[str, str]:
    """A setting is the same with Hydra's + before it and without."""
    places = {key.lstrip("+"): key for key in settings}
    return settings | {places.get(key.lstrip("+"), key): value for key, value in others.items()}


def fine(training: Training) -> Training:
    assert training.status == 0, training.printed[-6000:]
    return training


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("fit"))


@pytest.fixture(scope="module")
def dph(project: Project) -> Training:
    return fine(project.train("dph"))


def test_anchors_are_in_every_step(dph: Training) -> None:
    assert sorted(dph.steps) == [0, 1, 2, 3]
    for step in (1, 2, 3):
        found = dph.steps[step]
        assert found["anchor/eta"] == 0.2 and found["anchor/tokens"] >= 8
        assert found["anchor/log_u_abs_mean"] >= abs(found["anchor/forward_kl"])
        assert sum(v for k, v in found.items() if k.startswith("verifier/status/")) == pytest.approx(1)
    assert dph.steps[3]["anchor/penalty"] > dph.steps[1]["anchor/penalty"], "the policy moves away from its anchors"
    (line,) = (line for line in dph.printed.splitlines() if "mean |log u| of the anchors" in line)
    assert float(line.rpartition("step: ")[2].split()[0]) < 1e-5


def test_at_eta_0_a_step_has_the_gradient_of_stock_grpo(project: Project) -> None:
    stock = fine(project.train("grpo", STATIC | {"trainer.v1.trainer_mode": "sync"} | _without_dph(project)))
    zero = fine(project.train("eta0", STATIC | {"+dph.eta": "0.0"}))
    for step in (1, 2, 3):
        assert zero.steps[step]["actor/grad_norm"] == pytest.approx(stock.steps[step]["actor/grad_norm"], rel=1e-4)
        assert zero.steps[step]["critic/score/mean"] == stock.steps[step]["critic/score/mean"]
    assert zero.steps[3]["anchor/log_u_abs_mean"] > 0


def test_a_training_goes_on_where_its_checkpoint_was(project: Project, dph: Training) -> None:
    folder = project.folder / "resumed" / "checkpoints"
    shutil.copytree(dph.out / "checkpoints" / "global_step_2", folder / "global_step_2")
    (folder / "latest_checkpointed_iteration.txt").write_text("2")
    other = project.train("resumed", {"+dph.seed": "7"})
    assert other.status != 0 and "seed: 0 there, 7 now" in other.printed
    resumed = fine(project.train("resumed", {"trainer.val_before_train": "False"}))
    assert sorted(resumed.steps)[-1] == 3
    for name, value in dph.steps[3].items():
        if name.startswith("anchor/"):
            assert resumed.steps[3][name] == pytest.approx(value, rel=1e-3), name


def test_validation_dumps_become_a_report(project: Project, dph: Training) -> None:
    words = [f"{name}={dph.out}/val/{step}.jsonl" for name, step in (("base", 0), ("final", 3))]
    printed = project.dphrl("import", *words, "--out", str(dph.out / "report"), "--base", "base")
    page = Path(printed.strip().splitlines()[-1])
    assert "6 prompts" in page.read_text()


def test_verl_scores_anchors_again(project: Project) -> None:
    rescored = fine(project.train("rescored", {"+dph.rescore": "True", "trainer.total_training_steps": "1"}))
    assert "mean |log u| of the anchors before the first step: 0 nats" in rescored.printed
    assert (rescored.out / "checkpoints" / "anchors" / "manifest.json").is_file()


def test_two_ranks_two_mini_batches_dynamic_batches_and_rollouts_that_go_on(project: Project) -> None:
    changed = {
        "trainer.v1.trainer_mode": "dph_colocate_async",
        "actor_rollout_ref.actor.ppo_mini_batch_size": "4",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": "256",  # several micro-batches a mini-batch
        "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu": "256",
        "+reward.custom_reward_function.reward_kwargs.verifier": "sometimes_unjudged:reward",
        "+dph.method": "replay",
        "+dph.eta_schedule": "target",
        "+dph.drift_target": "0.05",
        "+dph.divergence": "",
        "+dph.log_u_cap": "",
        "+dph.form": "",
        "+dph.alpha": "",
    }
    training = fine(project.train("ranks", changed, gpus=2))
    steps = [training.steps[step] for step in (1, 2, 3)]
    assert all(step["anchor/tokens"] >= 16 for step in steps)
    assert sum(step["verifier/unjudged"] for step in steps) > 0
    assert all(step["anchor/penalty"] > 0 for step in steps), "replay's penalty is a likelihood, never 0"
    ratios = [later["anchor/eta"] / step["anchor/eta"] for step, later in pairwise(steps)]
    assert all(ratio != 1 and 1 / 1.11 < ratio < 1.11 for ratio in ratios), "by 1.1 at most"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"+dph.anchors": "/nowhere"}, "/nowhere holds no anchors"),
        ({"+dph.etaa": "1"}, "dph.etaa is no setting of method dph; did you mean 'eta'"),
        (STATIC | {"+dph.anchors_per_step": "6"}, "needs a multiple of 4: give 4 or 8"),
        ({"actor_rollout_ref.rollout.temperature": "0.5"}, "temperature: anchors '1.0', verl's model '0.5'"),
    ],
)
def test_what_does_not_fit_ends_before_anything_is_drawn(project: Project, changed: Any, message: str) -> None:
    training = project.train("refused", changed)
    assert training.status != 0 and message in training.printed, training.printed[-3000:]


def _without_dph(project: Project) -> dict[str, str]:
    return {key: "" for key in project.settings if key.lstrip("+").startswith("dph.")}
