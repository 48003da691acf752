"""The `openai` backend: a server that takes token ids at /completions and gives token ids back (vLLM, SGLang).

One request a draw, each under its own seed. A draw whose answer was lost is asked for again under the same seed, and
only an answer that was read counts: a server that dies and returns loses and doubles nothing.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import anyio
import httpx2
from anyio.from_thread import start_blocking_portal

from dphrl.config.sources import SamplingConfig
from dphrl.errors import ConfigError, SamplerError, nearest
from dphrl.models.policy import Policy
from dphrl.sampling.base import Request
from dphrl.sampling.decoding import decoded_completions
from dphrl.sampling.openai_answer import Unusable, read_answer
from dphrl.sampling.uniform import row_seed
from dphrl.types import GREEDY_DRAW, Completion

Answer = tuple[Request, tuple[int, ...]]

LONGEST_BACKOFF_S = 30.0
LONGEST_WAIT_S = 300.0
"""The most that a server's Retry-After is obeyed."""
TRIES_BEFORE_WARNING = 3
"""A draw that failed this often is worth a warning; one that a busy server put off is not."""
FIRST_CONTACT_S = 30.0
"""A server that has not named its models after this time counts as absent."""

_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of a server that may answer later."""
_REMEDY = {
    400: "the server refuses the prompt or a setting; is its context as long as the policy's?",
    401: "name the environment variable of the server's key in sampling.api_key_env",
    403: "name the environment variable of a key that may use it in sampling.api_key_env",
    404: "sampling.base_url must end where /completions is appended, mostly in /v1",
}
_LOG = logging.getLogger(__name__)


def random_backoff(attempt: int) -> float:
    """Seconds before the next try: random below 1, 2, 4 ... 30, so that many requests do not come back together.

    Args:
        attempt: tries made so far, >= 1.
    """
    return random.uniform(0.0, min(2.0 ** (attempt - 1), LONGEST_BACKOFF_S))


class OpenAISampler:
    """Draws from a server. The user vouches that it serves the policy's very weights: no answer can prove it."""

    def __init__(
        self,
        policy: Policy,
        config: SamplingConfig,
        seed: int,
        *,
        trained: bool = False,
        backoff: Callable[[int], float] = random_backoff,
    ) -> None:
        """Ask the server once what it serves; one that does not answer now is an error at once.

        Args:
            trained: the policy is the trained one, served as `sampling.served_final`.
            backoff: tries made so far -> seconds before the next one.
        Raises:
            ConfigError: the key's variable is not set, or the trained model has no name at the server.
            SamplerError: no server there, or no model of this name.
        """
        self.policy = policy
        self.config = config
        self.seed = seed
        self.retried = 0
        """Tries after the first, over all draws."""
        self._backoff = backoff
        self._failing = False
        self._url = str(config.base_url).rstrip("/")
        self._headers = _headers(config)
        self._model = self._served(_name(config, trained))

    def draw(self, requests: Sequence[Request]) -> Iterator[list[Completion]]:
        """Whatever was answered since the last batch; at most `sampling.concurrency` requests are in flight."""
        answers: SimpleQueue[Answer | None] = SimpleQueue()
        with start_blocking_portal() as portal:
            asking = portal.start_task_soon(self._ask_all, requests, answers)
            try:
                while batch := _next_batch(answers, self.config.batch_size):
                    yield decoded_completions(self.policy, [r for r, _ in batch], [ids for _, ids in batch])
                asking.result()
            finally:
                asking.cancel()

    def close(self) -> None:
        """Nothing to give back: connections last as long as the draws."""

    async def _ask_all(self, requests: Sequence[Request], answers: SimpleQueue[Answer | None]) -> None:
        """Workers that share one iterator: the bound on requests in flight. None is put after the last answer."""
        limits = httpx2.Limits(max_connections=self.config.of_backend("concurrency"))
        timeout = httpx2.Timeout(self.config.of_backend("timeout_s"), connect=FIRST_CONTACT_S)
        todo = iter(requests)

        async def work() -> None:
            for request in todo:
                answers.put((request, await self._ask(client, request)))

        try:
            async with (
                httpx2.AsyncClient(headers=self._headers, timeout=timeout, limits=limits) as client,
                anyio.create_task_group() as workers,
            ):
                for _ in range(min(len(requests), self.config.of_backend("concurrency"))):
                    workers.start_soon(work)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the first failure has cancelled the others
        finally:
            answers.put(None)

    async def _ask(self, client: httpx2.AsyncClient, request: Request) -> tuple[int, ...]:
        """One draw, tried until its answer is usable."""
        tries = 1 + self.config.of_backend("retries")
        for attempt in range(1, tries + 1):
            try:
                return await self._try(client, request)
            except (httpx2.RequestError, Unusable) as error:
                failure = error
            if attempt < tries:
                self._note(attempt, failure)
                await anyio.sleep(self._pause_s(attempt, failure))
        raise SamplerError(
            f"{self._url} gave no usable answer in {tries} tries, last: {_reason(failure)}; what was drawn is kept: "
            "mend or restart the server and run the same command (sampling.retries allows for longer breaks)"
        )

    async def _try(self, client: httpx2.AsyncClient, request: Request) -> tuple[int, ...]:
        response = await client.post(f"{self._url}/completions", json=self._body(request))
        if response.status_code in _LATER:
            raise Unusable(f"status {response.status_code}: {_said(response)}", _retry_after(response))
        if response.status_code != 200:
            raise self._refused(response, f"prompt {request.prompt_id!r}")
        ids = read_answer(
            response.content, request, stop_ids=self.policy.stop_ids, max_new_tokens=self.config.max_new_tokens
        )
        self._failing = False
        return ids

    def _body(self, request: Request) -> dict[str, Any]:
        """Names every setting that a server would otherwise take from the model's own generation settings."""
        greedy = request.draw == GREEDY_DRAW
        return {
            "model": self._model,
            "prompt": list(request.prompt_ids),
            "n": 1,
            "max_tokens": self.config.max_new_tokens,
            "temperature": 0.0 if greedy else self.config.temperature,
            "top_p": 1.0 if greedy else self.config.top_p,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "seed": row_seed(self.seed, request.prompt_id, request.draw),
            "stop_token_ids": list(self.policy.stop_ids),
            "return_token_ids": True,
        }

    def _served(self, wanted: str | None) -> str:
        try:
            response = httpx2.get(f"{self._url}/models", headers=self._headers, timeout=FIRST_CONTACT_S)
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise SamplerError(
                f"no server answers at sampling.base_url={self._url} ({_reason(error)}); start one, "
                "e.g. `vllm serve MODEL`, or mend the address"
            ) from None
        if response.status_code != 200:
            raise self._refused(response, "the list of its models")
        try:
            names = [str(model["id"]) for model in response.json()["data"]]
        except (ValueError, TypeError, KeyError):
            raise SamplerError(
                f"{self._url}/models answers {_said(response)}, no list of models; is this an OpenAI-compatible server?"
            ) from None
        if wanted is None and len(names) == 1:
            return names[0]
        if wanted is None or wanted not in names:
            raise SamplerError(
                f"sampling.served_model={wanted} is not served at {self._url}"
                f"{nearest(wanted or '', names)}; it serves {', '.join(names) or 'nothing'}"
            )
        return wanted

    def _refused(self, response: httpx2.Response, what: str) -> SamplerError:
        remedy = _REMEDY.get(response.status_code, "see the server's own log")
        return SamplerError(
            f"{self._url} answers {what} with status {response.status_code}: {_said(response)}; {remedy}"
        )

    def _pause_s(self, attempt: int, failure: Exception) -> float:
        return max(self._backoff(attempt), failure.wait_s if isinstance(failure, Unusable) else 0.0)

    def _note(self, attempt: int, failure: Exception) -> None:
        """Count a try; say once that the server is away, until it answers again."""
        self.retried += 1
        if attempt >= TRIES_BEFORE_WARNING and not self._failing:
            self._failing = True
            _LOG.warning("%s: %s; trying again", self._url, _reason(failure))


def _next_batch(answers: SimpleQueue[Answer | None], most: int) -> list[Answer]:
    """One answer, waited for, and those that came meanwhile; empty after the last."""
    batch: list[Answer] = []
    while len(batch) < most and not (batch and answers.empty()):
        answer = answers.get()
        if answer is None:
            answers.put(None)  # for the call after this one
            break
        batch.append(answer)
    return batch


def _name(config: SamplingConfig, trained: bool) -> str | None:
    if trained and config.served_final is None:
        raise ConfigError(
            f"the server at sampling.base_url={config.base_url} serves the initial policy, not the trained one; serve "
            "RUN/train/final and give its name as sampling.served_final (and its address as sampling.base_url)"
        )
    return config.served_final if trained else config.served_model


def _headers(config: SamplingConfig) -> dict[str, str]:
    if config.api_key_env is None:
        return {}
    key = os.environ.get(config.api_key_env)
    if not key:
        raise ConfigError(
            f"sampling.api_key_env={config.api_key_env}: no such environment variable is set; "
            "export it, or leave the setting out for a server without a key"
        )
    return {"Authorization": f"Bearer {key}"}


def _retry_after(response: httpx2.Response) -> float:
    """Seconds that the server asks to wait; a date instead of a number is left to the backoff."""
    text = response.headers.get("retry-after", "")
    return min(float(text), LONGEST_WAIT_S) if text.isascii() and text.isdigit() else 0.0


def _said(response: httpx2.Response) -> str:
    text = " ".join(response.text.split())
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _reason(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip() if not isinstance(error, Unusable) else str(error)
