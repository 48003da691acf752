"""The `vllm` backend: vLLM's engine in processes of its own, fed with token ids, a seed for each draw.

Several GPUs: `sampling.tensor_parallel` of them share one model; for more than one model, run one command for each
group of GPUs (CUDA_VISIBLE_DEVICES) on its own share of the prompts.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

from dphrl.config.precision import DTYPES
from dphrl.config.sources import ModelConfig, SamplingConfig
from dphrl.errors import SamplerError
from dphrl.models.policy import Policy
from dphrl.sampling.base import Request
from dphrl.sampling.decoding import decoded_completions
from dphrl.sampling.uniform import row_seed
from dphrl.types import GREEDY_DRAW, Completion

AHEAD = 2
"""Requests given to the engine, in multiples of what it draws at once: it never waits for the next ones."""
SHUTDOWN_S = 30.0


class VllmSampler:
    """Draws with vLLM; its log-probabilities are never used, they come from the training stack."""

    def __init__(self, policy: Policy, config: SamplingConfig, seed: int, model: ModelConfig) -> None:
        """Release the policy's weights and start an engine on the same folder.

        Raises:
            SamplerError: vLLM cannot start (the model's kind, its memory, the GPUs).
        """
        self.policy = policy
        self.config = config
        self.seed = seed
        self._given = 0
        policy.release()
        self._params = importlib.import_module("vllm.sampling_params")
        self._inputs = importlib.import_module("vllm.inputs")
        self._engine = _start(policy, config, model)

    def draw(self, requests: Sequence[Request]) -> Iterator[list[Completion]]:
        """About `batch_size` completions at a time; the draws of a prompt go in together and share its cache."""
        self._check_room(requests)
        todo = iter(sorted(requests, key=lambda r: (-len(r.prompt_ids), r.prompt_id, r.draw)))
        inside: dict[str, Request] = {}
        done: list[tuple[Request, tuple[int, ...]]] = []
        failure: SamplerError | None = None
        try:
            while True:
                while len(inside) < AHEAD * self.config.batch_size and (request := next(todo, None)):
                    inside[self._give(request)] = request
                try:
                    done += [(inside.pop(i), ids) for i, ids in (self._step() if inside else [])]
                except SamplerError as error:  # raised after what is done has been handed over
                    failure, todo = error, iter(())
                    inside.clear()
                if len(done) >= self.config.batch_size or (done and not inside):
                    batch, done = done, []
                    yield decoded_completions(self.policy, [r for r, _ in batch], [ids for _, ids in batch])
                elif not inside:
                    break
        finally:
            if inside:  # the caller stopped in the middle
                self._engine.abort_request(list(inside))
        if failure is not None:
            raise failure

    def close(self) -> None:
        """End the engine's processes; their memory is free afterwards."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.engine_core.shutdown(timeout=SHUTDOWN_S)

    def _check_room(self, requests: Sequence[Request]) -> None:
        """vLLM would end a completion early where its memory ends, and say that it met the limit."""
        room = self._engine.model_config.max_model_len
        needed = max((len(r.prompt_ids) for r in requests), default=0) + self.config.max_new_tokens
        if needed > room:
            raise SamplerError(
                f"vLLM has room for sequences of {room} tokens here, the longest prompt and "
                f"sampling.max_new_tokens={self.config.max_new_tokens} need {needed}; raise "
                "sampling.gpu_memory_utilization or tensor_parallel, or lower max_new_tokens"
            )

    def _give(self, request: Request) -> str:
        greedy = request.draw == GREEDY_DRAW
        parameters = self._params.SamplingParams(
            temperature=0.0 if greedy else self.config.temperature,
            top_p=1.0 if greedy else self.config.top_p,
            max_tokens=self.config.max_new_tokens,
            seed=row_seed(self.seed, request.prompt_id, request.draw),
            stop_token_ids=list(self.policy.stop_ids),
            detokenize=False,
            output_kind=self._params.RequestOutputKind.FINAL_ONLY,
        )
        name = str(self._given)
        self._given += 1
        self._engine.add_request(name, self._inputs.tokens_input(list(request.prompt_ids)), parameters)
        return name

    def _step(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and token ids of the requests that ended meanwhile."""
        try:
            outputs = [o for o in self._engine.step() if o.finished]
        except Exception as error:
            if type(error).__name__ != "EngineDeadError":
                raise
            raise SamplerError(
                "the vLLM engine died, its own message stands above; what was drawn is kept: run the same command "
                "again, with a lower sampling.gpu_memory_utilization or batch_size if it ran out of memory"
            ) from None
        for output in outputs:
            if output.outputs[0].finish_reason not in ("stop", "length"):
                raise SamplerError(f"vLLM ended a completion with {output.outputs[0].finish_reason!r}; run it again")
        return [(o.request_id, tuple(o.outputs[0].token_ids)) for o in outputs]


def _start(policy: Policy, config: SamplingConfig, model: ModelConfig) -> Any:
    try:
        llm = importlib.import_module("vllm").LLM(
            model=policy.source,
            revision=policy.revision,
            generation_config="vllm",  # not what the model ships (top_k, penalties): draws follow the policy itself
            dtype=DTYPES[model.dtype].stored,
            trust_remote_code=model.trust_remote_code,
            tensor_parallel_size=config.of_backend("tensor_parallel"),
            gpu_memory_utilization=config.of_backend("gpu_memory_utilization"),
            max_num_seqs=config.batch_size,
            max_model_len=-1,  # the model's context, or as much of it as there is memory for
            enable_prefix_caching=True,
            disable_log_stats=True,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise SamplerError(
            f"vLLM cannot start with model.path={policy.source}: {str(error).strip().splitlines()[-1]}; its own "
            "messages stand above (memory: lower sampling.gpu_memory_utilization; an unknown kind of model: use "
            "sampling.backend=transformers)"
        ) from None
    return llm.llm_engine
