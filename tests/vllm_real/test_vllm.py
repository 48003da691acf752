"""vLLM for real, on a CPU: the engine, and a server that is killed and started again (`make test-vllm`, minutes).

vLLM's attention on a CPU refuses the shipped model's heads of 24 numbers, so a random model of the same kind and
tokenizer stands in for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch

from dphrl.config.load import build_config
from dphrl.config.root import Config
from dphrl.models.policy import load_policy
from dphrl.sampling.backends import make_sampler
from dphrl.sampling.base import Request, Sampler
from dphrl.sampling.openai_sampler import OpenAISampler
from dphrl.sampling.vllm_sampler import VllmSampler
from dphrl.types import GREEDY_DRAW, Completion

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="needs the environment of `make test-vllm`"),
]

ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
READY_S = 600
REQUESTS = [Request(f"p{i}", draw, tuple(range(5, 15 + i))) for i in range(20) for draw in range(GREEDY_DRAW, 8)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from dphrl.demo.task import model_folder

    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        initializer_range=0.15,
    )
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _config(model: str, **sampling: Any) -> Config:
    values = {"max_new_tokens": 60, "batch_size": 32, "temperature": 0.8, **sampling}
    return build_config({"model": {"path": model, "device": "cpu"}, "sampling": values})


def _drawn(sampler: Sampler, requests: list[Request] = REQUESTS) -> dict[tuple[str, int], Completion]:
    found = [c for batch in sampler.draw(requests) for c in batch]
    assert Counter((c.prompt_id, c.draw) for c in found) == Counter((r.prompt_id, r.draw) for r in requests)
    return {(c.prompt_id, c.draw): c for c in found}


@pytest.fixture(scope="module")
def engine(model: str) -> Iterator[VllmSampler]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        config = _config(model, backend="vllm")
        sampler = make_sampler(config, load_policy(config))
        assert isinstance(sampler, VllmSampler)
        yield sampler
        sampler.close()


def test_the_engine_draws_the_same_again_whatever_the_order(engine: VllmSampler) -> None:
    first = _drawn(engine)
    draws = engine.draw(REQUESTS)
    next(draws)
    assert engine._engine.model_config.max_model_len == engine.policy.context, "there is memory for all of it"
    draws.close()  # an interrupted call leaves nothing behind
    assert _drawn(engine, REQUESTS[::-1]) == first
    assert {c.finish_reason for c in first.values()} == {"stop", "length"}
    assert len({c.token_ids for c in first.values() if c.draw >= 0}) > 150, "draws of one prompt must differ"
    for c in first.values():
        assert c.text == engine.policy.decode(c.token_ids)
        assert (c.finish_reason == "stop") == (c.token_ids[-1] == engine.policy.stop_ids[0])


def test_the_engines_greedy_completion_is_the_models_own(engine: VllmSampler, model: str) -> None:
    greedy = [r for r in REQUESTS if r.draw == GREEDY_DRAW]
    config = _config(model)
    own = _drawn(make_sampler(config, load_policy(config)), greedy)
    assert _drawn(engine, greedy) == own


def test_the_engine_draws_from_the_policy(engine: VllmSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean log-probability of 3,000 first tokens beside its expectation under softmax(logits / temperature)."""
    prompt = REQUESTS[0].prompt_ids
    monkeypatch.setattr(engine, "config", replace(engine.config, max_new_tokens=1))
    tokens = [c.token_ids[0] for c in _drawn(engine, [Request("q", d, prompt) for d in range(3000)]).values()]
    with torch.no_grad():
        logits = load_policy(_config(engine.policy.source)).model(torch.tensor([prompt])).logits[0, -1]
    logp = torch.log_softmax(logits.double() / 0.8, -1)
    mean = (logp.exp() * logp).sum()
    deviation = ((logp.exp() * logp**2).sum() - mean**2).sqrt() / 3000**0.5
    assert abs(logp[torch.tensor(tokens)].mean() - mean) < 4 * deviation


class Server:
    """vLLM's server on a free port of 127.0.0.1, in a session of its own, so that all its processes end together."""

    def __init__(self, model: str, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.log = log
        # What `vllm serve` runs; that program asks for the version of `vllm`, which `vllm-cpu` does not carry.
        self.command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
        self.command += ["--host", "127.0.0.1", "--port", str(self.port), "--served-model-name", "policy"]
        self.command += ["--dtype", "float32", "--max-num-seqs", "32"]

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env={**os.environ, **ENVIRONMENT}, start_new_session=True
            )

    def wait(self) -> None:
        for _ in range(READY_S):
            with contextlib.suppress(httpx2.RequestError):
                if httpx2.get(f"{self.url}/models", timeout=5).status_code == 200:
                    return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=1)
                pytest.fail(f"the server ended: {self.log.read_text(errors='replace')[-2000:]}")
        pytest.fail(f"the server was not ready in {READY_S} s: {self.log.read_text(errors='replace')[-2000:]}")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server(model, tmp_path / "serve.log")
    running.start()
    try:
        running.wait()
        yield running
    finally:
        running.kill()


def test_a_server_killed_and_started_again_loses_and_doubles_no_draw(
    server: Server, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _config(model, backend="openai", base_url=server.url, concurrency=8, batch_size=8, retries=60)
    sampler = make_sampler(config, load_policy(config))
    assert isinstance(sampler, OpenAISampler)
    found: list[Completion] = []
    killed_at = 0
    for batch in sampler.draw(REQUESTS):
        found.extend(batch)
        if len(found) >= 40 and not killed_at:
            killed_at = len(found)
            server.kill()
            server.start()
    assert Counter((c.prompt_id, c.draw) for c in found) == Counter((r.prompt_id, r.draw) for r in REQUESTS)
    assert sampler.retried > 0, "the server must have been away while draws were wanted"
    again = _drawn(sampler)
    same = sum(again[c.prompt_id, c.draw] == c for c in found)
    with capsys.disabled():
        print(
            f"\nkilled after {killed_at} of {len(found)}: {sampler.retried} further tries, {same} draws the same again"
        )
    assert same >= 0.95 * len(found), "one seed, one draw (rounding may differ with what else the server draws)"
