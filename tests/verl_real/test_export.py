"""An export read by verl itself: settings, dataset and the agent loop's tokens, which must be those of dphrl."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from byte_models import CHAT, byte_tokenizer, model_without_weights
from hydra import compose, initialize_config_module
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from dphrl.config.load import build_config
from dphrl.config.root import Config
from dphrl.demo.task import model_folder
from dphrl.models.policy import load_policy
from dphrl.runs.run_dir import open_run
from dphrl.stages.export_verl.export_verl import Export, export_verl
from dphrl.tasks import load_task

TEXTS = ["1 + 1?", " two\n\nlines {{ braces }} {% if %} \n", "ä <i>&amp;</i> 字", "'\"\\ \\\\", "<image> as a word"]


def verl_config(written: Export, model: Path, *more: str) -> Any:
    """verl's own settings, with those that the export prints laid over by Hydra."""
    words = [*written.settings, f"actor_rollout_ref.model.path={model}", f"+data.cache_dir={model}/cache", *more]
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=words)


def verls_ids(written: Export, model: Path, *more: str) -> dict[str, list[int]]:
    """Id of each training prompt -> its tokens as verl makes them: its dataset, then what its agent loop does."""
    config = verl_config(written, model, *more)
    of_model = omega_conf_to_dataclass(config.actor_rollout_ref.model)
    dataset = RLHFDataset(config.data.train_files, of_model.tokenizer, config.data, of_model.processor)
    builder = create_continuous_token_builder(
        of_model.tokenizer,
        hf_model_type=of_model.hf_config.model_type,
        chat_template_kwargs=config.data.apply_chat_template_kwargs,
    )
    rows = [dataset[i] for i in range(len(dataset))]
    return {row["extra_info"]["id"]: builder.build_initial_tokens(row["raw_prompt"]) for row in rows}


def dphrls_ids(config: Config) -> dict[str, list[int]]:
    """Id of each prompt -> the tokens that dphrl draws from."""
    policy = load_policy(config)
    return {p.id: policy.encode(p) for p in load_task("task", config.task, base_dir=Path()).prompts}


def run_of(tmp_path: Path, folder: Path, **sections: Any) -> Config:
    """A run of a method that trains on all prompts, and so needs no partition."""
    values: dict[str, Any] = {
        "out": str(tmp_path / "run"),
        "method": "grpo",
        "model": {"path": str(folder)},
        "sampling": {"max_new_tokens": 40},
    }
    config = build_config({**values, **{k: {**values.get(k, {}), **v} for k, v in sections.items()}})
    open_run(config)
    return config


def texts_at(path: Path) -> str:
    path.write_text(json.dumps([{"question": text, "gold": "2", "id": f"q{i}"} for i, text in enumerate(TEXTS)]))
    return str(path)


@pytest.mark.parametrize("filtered", [False, True])
def test_the_demos_texts(tmp_path: Path, filtered: bool) -> None:
    model = tmp_path / "model"
    shutil.copytree(model_folder(), model)
    config = run_of(tmp_path, model, task={"data": "demo:in_domain", "limit": 12})
    written = export_verl(tmp_path / "run", tmp_path / "data")
    ids = verls_ids(written, model, f"data.filter_overlong_prompts={filtered}")
    assert ids == dphrls_ids(config)
    assert len(ids) == 12


@pytest.mark.parametrize("around", ["$A", "<s> $A", "</s> $A", "<pad> $A"])
def test_texts_of_a_tokenizer_that_adds_tokens(tmp_path: Path, around: str) -> None:
    model = model_without_weights(tmp_path / "model", byte_tokenizer(around=around))
    config = run_of(tmp_path, model, task={"data": texts_at(tmp_path / "texts.json"), "verifier": "exact"})
    ids = verls_ids(export_verl(tmp_path / "run", tmp_path / "data"), model)
    assert ids == dphrls_ids(config)
    assert len(ids) == len(TEXTS)


@pytest.mark.parametrize("system", [None, "Add."])
@pytest.mark.parametrize("thinking", [None, False, True])
def test_chat_messages_through_the_models_own_template(
    tmp_path: Path, system: str | None, thinking: bool | None
) -> None:
    model = model_without_weights(tmp_path / "model", byte_tokenizer(around="<s> $A", chat_template=CHAT))
    arguments = {} if thinking is None else {"enable_thinking": thinking}
    config = run_of(
        tmp_path,
        model,
        model={"chat_template_args": arguments},
        task={"data": texts_at(tmp_path / "texts.json"), "verifier": "exact", "chat": True, "system": system},
    )
    ids = verls_ids(export_verl(tmp_path / "run", tmp_path / "data"), model, "data.filter_overlong_prompts=True")
    assert ids == dphrls_ids(config)
    assert len(ids) == len(TEXTS), "data.max_prompt_length holds the longest"


def test_one_token_less_room_loses_a_prompt(tmp_path: Path) -> None:
    """So the length that the export prints is the one needed."""
    model = model_without_weights(tmp_path / "model", byte_tokenizer(chat_template=CHAT))
    run_of(tmp_path, model, task={"data": texts_at(tmp_path / "texts.json"), "verifier": "exact", "chat": True})
    written = export_verl(tmp_path / "run", tmp_path / "data")
    shorter = f"data.max_prompt_length={written.train.longest - 1}"
    assert len(verls_ids(written, model, "data.filter_overlong_prompts=True", shorter)) < len(TEXTS)
