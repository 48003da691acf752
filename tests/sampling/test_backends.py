"""The table of backends, their settings, weights that are loaded late, and vLLM's loop against a stand-in engine."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from dphrl.config.load import build_config
from dphrl.engines.trl import missing_packages
from dphrl.errors import ConfigError, ModelError, SamplerError
from dphrl.models.policy import Policy, load_policy
from dphrl.sampling.backends import BACKENDS, make_sampler, missing_modules
from dphrl.sampling.base import Request, Sampler
from dphrl.sampling.encoded_prompts import too_long
from dphrl.sampling.transformers_sampler import TransformersSampler
from dphrl.sampling.uniform import row_seed
from dphrl.sampling.vllm_sampler import VllmSampler
from dphrl.stages.doctor import Extra, installation_text
from dphrl.types import GREEDY_DRAW, Completion, Prompt

CONFIG = build_config({"model": {"path": "demo", "device": "cpu"}, "sampling": {"max_new_tokens": 40}})


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"tensor_parallel": 2}, "tensor_parallel is a setting of sampling.backend=vllm, but the backend is transf"),
        ({"backend": "vllm", "retries": 3}, "retries is a setting of sampling.backend=openai, but the backend is vllm"),
        ({"backend": "openai"}, "needs sampling.base_url"),
        ({"backend": "openai", "base_url": "127.0.0.1:8000"}, "base_url='127.0.0.1:8000'"),
        ({"backend": "sglang"}, "backend='sglang'"),
        ({"backend": "vllm", "gpu_memory_utilization": 1.5}, "gpu_memory_utilization=1.5"),
    ],
)
def test_settings_of_another_backend_are_refused(sampling: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config({"sampling": sampling})


def test_null_means_the_backends_own_default() -> None:
    config = build_config({"sampling": {"backend": "vllm"}}).sampling
    assert (config.of_backend("tensor_parallel"), config.of_backend("gpu_memory_utilization")) == (1, 0.9)
    assert replace(config, tensor_parallel=4).of_backend("tensor_parallel") == 4


def test_a_backend_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = replace(BACKENDS["vllm"], modules=("no_such_engine",))
    monkeypatch.setitem(BACKENDS, "vllm", absent)
    config = replace(CONFIG, sampling=replace(CONFIG.sampling, backend="vllm"))
    assert missing_modules("vllm") == ("no_such_engine",) and missing_modules("transformers") == ()
    with pytest.raises(SamplerError, match=r"needs no_such_engine.*dphrl\[vllm\].*transformers"):
        make_sampler(config, load_policy(CONFIG))


def test_doctor_says_of_each_backend_whether_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "vllm", replace(BACKENDS["vllm"], modules=("no_such_engine",)))
    monkeypatch.setattr("dphrl.stages.doctor.verl_ability", str)  # where verl is, asking it takes seconds
    said = dict(line.split(": ", 1) for line in installation_text().splitlines() if ": " in line)
    assert said["sampling.backend=transformers"] == "works"
    openai = "needs httpx2: pip" if missing_modules("openai") else "works, with a server"
    assert said["sampling.backend=openai"].startswith(openai)
    assert said["sampling.backend=vllm"].startswith("needs no_such_engine: pip install 'dphrl[vllm]'")
    trl = "needs trl: pip" if missing_packages() else "works (trl 1."
    assert said["training by TRL"].startswith(trl)


def test_doctor_says_what_an_extra_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dphrl.stages.doctor.verl_ability", str)
    monkeypatch.setattr("dphrl.stages.doctor.EXTRAS", (Extra("x", ("no_such_package",), "pip install y"),))
    assert "x: needs no_such_package: pip install y" in installation_text().splitlines()


def test_weights_are_loaded_when_first_asked_for_and_can_be_released() -> None:
    policy = load_policy(CONFIG)
    sampler = make_sampler(CONFIG, policy)
    assert isinstance(sampler, TransformersSampler) and isinstance(sampler, Sampler)
    assert "model" not in vars(policy) and policy.context == 96 and policy.encode(Prompt("a", "SELECT"))
    first = policy.model
    assert policy.model is first and not first.training
    policy.release()
    assert "model" not in vars(policy) and policy.model is not first
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), policy.model.parameters(), strict=True))


def test_a_model_without_weights_fails_at_its_first_use(tmp_path: Any) -> None:
    from dphrl.demo.task import model_folder

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((model_folder() / name).read_bytes())
    policy = load_policy(build_config({"model": {"path": str(tmp_path), "device": "cpu"}}))
    assert policy.stop_ids == (1,)
    with pytest.raises(ModelError, match="cannot be loaded as a causal LM"):
        _ = policy.model


def test_prompts_without_room_are_named() -> None:
    policy = load_policy(CONFIG)
    encoded = {"fits": [5] * 56, "one too many": [5] * 57}
    assert too_long(policy, encoded, 40) == ("one too many",)
    assert too_long(replace(policy, context=None), encoded, 40) == ()


REQUESTS = [Request(f"p{i}", draw, (5, 6, *range(7, 8 + i))) for i in range(6) for draw in (GREEDY_DRAW, 0, 1, 2)]


def test_a_prompt_is_read_once_for_all_its_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the forwards that begin a text, whichever way it is drawn; the draws are those of one by one."""
    policy = load_policy(CONFIG)
    read: list[int] = []

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["past_key_values"] is None or kwargs["past_key_values"].get_seq_length() == 0:
            read.append(len(kwargs["input_ids"]))

    policy.model.register_forward_pre_hook(note, with_kwargs=True)
    alone = _by_key(TransformersSampler(policy, replace(CONFIG.sampling, batch_size=1), 0))
    assert read == [1] * len(REQUESTS)
    for passed, rows in (("", 6), ("can_group", 6), ("has_keys_and_values_alone", len(REQUESTS))):
        read.clear()
        if passed:
            monkeypatch.setattr(f"dphrl.sampling.rows.row_drawer.{passed}", lambda model: False)
        assert _by_key(TransformersSampler(policy, replace(CONFIG.sampling, batch_size=24), 0)) == alone
        assert read == [rows]


def _by_key(sampler: Sampler) -> dict[tuple[str, int], Completion]:
    found = [c for batch in sampler.draw(REQUESTS) for c in batch]
    assert Counter((c.prompt_id, c.draw) for c in found) == Counter((r.prompt_id, r.draw) for r in REQUESTS)
    return {(c.prompt_id, c.draw): c for c in found}


class EngineDeadError(Exception):
    """Named as vLLM's."""


class Engine:
    """Ends the newest of its requests at each step, after a step that ends none."""

    def __init__(self, **settings: Any) -> None:
        if settings["gpu_memory_utilization"] > 0.95:
            raise ValueError("Free memory is less than desired")
        self.settings, self.llm_engine, self.engine_core = settings, self, self
        self.inside: dict[str, Any] = {}
        self.given: list[Any] = []
        self.steps, self.dies_at = 0, 10**9
        self.model_config = SimpleNamespace(max_model_len=40)
        self.closed = False

    def add_request(self, name: str, prompt: Any, parameters: Any) -> None:
        self.inside[name] = parameters
        self.given.append((prompt, parameters))

    def step(self) -> list[Any]:
        self.steps += 1
        if self.steps >= self.dies_at:
            raise EngineDeadError
        if self.steps % 2:
            return [SimpleNamespace(finished=False)]
        name, parameters = self.inside.popitem()
        output = SimpleNamespace(token_ids=[4 + parameters.seed % 90, 1], finish_reason="stop")
        return [SimpleNamespace(finished=True, request_id=name, outputs=[output])]

    def abort_request(self, names: list[str]) -> None:
        for name in names:
            del self.inside[name]

    def shutdown(self, timeout: float) -> None:
        self.closed = True


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, params, inputs = ModuleType("vllm"), ModuleType("vllm.sampling_params"), ModuleType("vllm.inputs")
    for module, content in (
        (whole, {"LLM": Engine}),
        (params, {"SamplingParams": SimpleNamespace, "RequestOutputKind": SimpleNamespace(FINAL_ONLY="final")}),
        (inputs, {"tokens_input": lambda ids: {"prompt_token_ids": ids}}),
    ):
        for name, value in content.items():
            setattr(module, name, value)
        monkeypatch.setitem(sys.modules, module.__name__, module)


def _vllm(policy: Policy, **more: Any) -> VllmSampler:
    config = build_config({"sampling": {"backend": "vllm", "max_new_tokens": 8, "batch_size": 4, **more}})
    return VllmSampler(policy, config.sampling, 3, CONFIG.model)


def test_vllm_draws_each_request_once_and_has_the_memory_alone(fake_vllm: None) -> None:
    policy = load_policy(CONFIG)
    assert policy.model is not None
    sampler = _vllm(policy, tensor_parallel=2)
    assert "model" not in vars(policy), "engine and model must not be in memory together"
    engine = sampler._engine
    assert engine.settings["tensor_parallel_size"] == 2 and engine.settings["generation_config"] == "vllm"
    found = _by_key(sampler)
    assert all(c.token_ids == (4 + row_seed(3, c.prompt_id, c.draw) % 90, 1) for c in found.values())
    assert all(c.text == policy.decode(c.token_ids) for c in found.values())
    greedy = [p for _, p in engine.given if p.temperature == 0.0]
    assert len(greedy) == 6 and all(1 in p.stop_token_ids and p.max_tokens == 8 for p in greedy)
    sampler.close()
    sampler.close()
    assert engine.closed


def test_vllm_forgets_what_a_caller_no_longer_wants(fake_vllm: None) -> None:
    sampler = _vllm(load_policy(CONFIG))
    draws = sampler.draw(REQUESTS)
    assert len(next(draws)) == 4 and sampler._engine.inside
    draws.close()
    assert not sampler._engine.inside
    _by_key(sampler)


def test_vllm_with_too_little_memory_for_the_longest_sequence_says_so(fake_vllm: None) -> None:
    sampler = _vllm(load_policy(CONFIG), max_new_tokens=32)
    assert max(len(r.prompt_ids) for r in REQUESTS) == 8
    _by_key(sampler)
    sampler = _vllm(load_policy(CONFIG), max_new_tokens=33)
    with pytest.raises(SamplerError, match=r"sequences of 40 tokens.*need 41"):
        next(sampler.draw(REQUESTS))


def test_vllm_that_dies_or_cannot_start_says_what_to_do(fake_vllm: None) -> None:
    policy = load_policy(CONFIG)
    sampler = _vllm(policy)
    sampler._engine.dies_at = 12
    kept: list[Completion] = []
    with pytest.raises(SamplerError, match=r"engine died.*run the same command"):
        for batch in sampler.draw(REQUESTS):
            kept.extend(batch)
    assert len(kept) == 5, "all that ended before, the one of the batch begun among them"
    with pytest.raises(SamplerError, match=r"cannot start.*Free memory.*gpu_memory_utilization"):
        _vllm(policy, gpu_memory_utilization=0.99)
