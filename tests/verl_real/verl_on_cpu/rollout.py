"""A rollout server for tests: one Ray actor that holds a transformers model and answers verl's calls."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import numpy as np
import ray
import torch
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput


@ray.remote(num_cpus=0)
class Server:
    """The k-th draw of a prompt is a function of (seed, prompt, k), in whatever order requests come."""

    def __init__(self, path: str, seed: int, limit: int) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval().requires_grad_(False)
        self.end = AutoTokenizer.from_pretrained(path).eos_token_id
        self.seed, self.limit, self.step = seed, limit, 0
        self.asked: Counter[tuple[int, ...]] = Counter()

    async def generate(self, request_id: str, prompt_ids: list[int], sampling_params: Any, **_: Any) -> TokenOutput:
        key = tuple(prompt_ids)
        rng = np.random.default_rng([self.seed, self.asked[key], *key])
        self.asked[key] += 1
        temperature = sampling_params.get("temperature", 1.0)
        ids, logps, cache = list(prompt_ids), [], None
        for _ in range(sampling_params.get("max_tokens", self.limit)):
            new = ids if cache is None else ids[-1:]
            out = self.model(torch.tensor([new]), past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            logp = torch.log_softmax(out.logits[0, -1].float() / (temperature or 1.0), -1)
            token = int(logp.argmax())
            if temperature:
                below = torch.cumsum(logp.double().exp(), 0).numpy()
                token = min(int(np.searchsorted(below, rng.random() * below[-1])), len(below) - 1)
            ids.append(token)
            logps.append(float(logp[token]))
            if token == self.end:
                break
            await asyncio.sleep(0)
        return TokenOutput(
            token_ids=ids[len(prompt_ids) :],
            log_probs=logps if sampling_params.get("logprobs") else None,
            stop_reason="completed",
            extra_fields={"global_steps": self.step},
        )

    def update(self, weights: dict[str, torch.Tensor], step: int) -> None:
        missing, unexpected = self.model.load_state_dict(weights, strict=False)
        assert not unexpected and all("lm_head" in name for name in missing), (missing, unexpected)
        self.step = step
        self.asked.clear()  # the draws of a step follow from it, so that a resumed training has the same

    async def wake_up(self) -> None: ...
    async def sleep(self) -> None: ...
    async def abort_all_requests(self, reject_request: bool = False) -> None: ...
    async def resume_generation(self) -> None: ...
    async def clear_kv_cache(self) -> None: ...
    async def release_kv_cache(self) -> None: ...
    async def resume_kv_cache(self) -> None: ...
    async def start_profile(self, **_: Any) -> None: ...
    async def stop_profile(self) -> None: ...


class Replica(RolloutReplica):
    """What verl's trainer starts."""

    async def launch_servers(self) -> None:
        name = f"hf_server_{self.replica_rank}"
        arguments = (self.model_config.path, self.config.seed, self.config.response_length)
        self._server_handle, self._server_address = Server.options(name=name).remote(*arguments), name
        self.servers = [self._server_handle]


class Adapter(BaseRollout):
    """In the training worker: hands the weights to the server."""

    async def resume(self, tags: list[str]) -> None: ...
    async def release(self) -> None: ...

    async def update_weights(self, weights: Any, global_steps: int | None = 0, **_: Any) -> None:
        copies = {name: weight.detach().float().cpu().clone() for name, weight in weights}
        server = ray.get_actor(f"hf_server_{torch.distributed.get_rank()}")
        await server.update.remote(copies, global_steps or 0)
