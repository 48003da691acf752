"""The `openai` backend against a small server that misbehaves: no draw is lost, none is doubled, failures are named."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dphrl.config.load import build_config
from dphrl.errors import ConfigError, SamplerError
from dphrl.models.policy import Policy, load_policy
from dphrl.sampling.base import Request
from dphrl.sampling.openai_answer import Unusable, read_answer
from dphrl.sampling.openai_sampler import OpenAISampler, random_backoff
from dphrl.sampling.uniform import row_seed
from dphrl.types import GREEDY_DRAW, Completion

END, LIMIT = 1, 8


def tokens_of(seed: int) -> list[int]:
    """What the server draws under a seed: other tokens for other seeds, the end token last."""
    return [4 + (seed >> 8 * i) % 100 for i in range(seed % (LIMIT - 1))] + [END]


class Server:
    """An HTTP server on a free port of 127.0.0.1; `fault` decides what becomes of the n-th completion request."""

    def __init__(self) -> None:
        self.fault: Callable[[int, dict[str, Any]], Any] = lambda n, body: None
        self.models = ["policy"]
        self.asked: list[dict[str, Any]] = []
        self.answered: list[int] = []
        self.headers: list[dict[str, str]] = []
        self.inside = self.most_inside = 0
        self.lock = threading.Lock()
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        self.http = _Quiet(("127.0.0.1", self.port), _Handler)
        self.http.owner = self
        self.port = self.http.server_address[1]
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    owner: Server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: _Quiet

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.owner.headers.append(dict(self.headers))
        self._answer(200, {"data": [{"id": name} for name in self.server.owner.models]})

    def do_POST(self) -> None:
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with owner.lock:
            owner.asked.append(body)
            number = len(owner.asked)
            owner.inside += 1
            owner.most_inside = max(owner.most_inside, owner.inside)
        try:
            fault = owner.fault(number, body)
        finally:
            with owner.lock:
                owner.inside -= 1
        if fault == "drop":
            self.connection.close()
        elif fault is not None:
            self._answer(*fault)
        else:
            with owner.lock:
                owner.answered.append(body["seed"])
            self._answer(200, answer(tokens_of(body["seed"]), prompt=body["prompt"]))

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(BrokenPipeError):
            self.wfile.write(data)


def answer(ids: Any, prompt: Any = None, reason: Any = "stop") -> dict[str, Any]:
    return {"choices": [{"text": "not read", "token_ids": ids, "prompt_token_ids": prompt, "finish_reason": reason}]}


class Backoff:
    """No wait between tries; `on` runs before the n-th further try."""

    def __init__(self, on: Callable[[int], None] = lambda n: None) -> None:
        self.on, self.times = on, 0

    def __call__(self, attempt: int) -> float:
        self.times += 1
        self.on(self.times)
        return 0.0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(build_config({"model": {"path": "demo", "device": "cpu"}}))


REQUESTS = [Request(f"p{i}", draw, (5, 6, 7 + i)) for i in range(10) for draw in (GREEDY_DRAW, 0, 1, 2)]


def sampler(
    server: Server, policy: Policy, *, trained: bool = False, backoff: Any = None, **more: Any
) -> OpenAISampler:
    values = {"backend": "openai", "base_url": server.url, "max_new_tokens": LIMIT, "concurrency": 4, **more}
    config = build_config({"sampling": values}).sampling
    return OpenAISampler(policy, config, 3, trained=trained, backoff=backoff or Backoff())


def drawn(sampler: OpenAISampler) -> dict[tuple[str, int], Completion]:
    """Every completion by its key; a doubled or lost one fails."""
    found = [c for batch in sampler.draw(REQUESTS) for c in batch]
    keys = Counter((c.prompt_id, c.draw) for c in found)
    assert keys == Counter((r.prompt_id, r.draw) for r in REQUESTS)
    for c in found:
        assert list(c.token_ids) == tokens_of(row_seed(3, c.prompt_id, c.draw)) and c.finish_reason == "stop"
    return {(c.prompt_id, c.draw): c for c in found}


def test_each_draw_is_asked_for_once_under_its_own_seed(server: Server, policy: Policy) -> None:
    found = drawn(sampler(server, policy))
    assert len(server.asked) == len(REQUESTS) == len({body["seed"] for body in server.asked})
    assert all(c.text == policy.decode(c.token_ids) for c in found.values())
    by_prompt = Counter((tuple(b["prompt"]), b["temperature"], b["max_tokens"]) for b in server.asked)
    assert by_prompt[(5, 6, 7), 0.0, LIMIT] == 1 and by_prompt[(5, 6, 7), 1.0, LIMIT] == 3
    body = server.asked[0]
    assert body["return_token_ids"] and body["n"] == 1 and END in body["stop_token_ids"]
    assert (body["top_k"], body["repetition_penalty"], body["min_p"]) == (-1, 1.0, 0.0), "else the model's own apply"


def test_no_more_requests_are_in_flight_than_allowed_and_order_does_not_matter(server: Server, policy: Policy) -> None:
    """Four at a time wait for one another and are answered last come, first served, ten times over."""
    gate, turn = threading.Barrier(4), threading.Condition()
    next_of = {last // 4: last for last in range(4, len(REQUESTS) + 1, 4)}

    def hold(number: int, body: dict[str, Any]) -> None:
        gate.wait(timeout=30)
        round_ = (number + 3) // 4
        with turn:
            assert turn.wait_for(lambda: next_of[round_] == number, timeout=30)
            next_of[round_] -= 1
            turn.notify_all()

    server.fault = hold
    drawn(sampler(server, policy))
    assert server.most_inside == 4 and len(server.asked) == len(REQUESTS)


FAULTS: list[Any] = [
    "drop",
    (429, {"error": "busy"}),
    (500, b"<html>oops</html>"),
    (503, {}),
    (200, b"garbage"),
    (200, {"choices": []}),
    (200, answer([])),
    (200, answer([3, "x"])),
    (200, answer([3, 4], reason="abort")),
    (200, answer([3, 4], reason=None)),
]


def test_passing_faults_cost_a_try_each_and_no_draw(server: Server, policy: Policy) -> None:
    server.fault = lambda n, body: FAULTS[n // 3 % len(FAULTS)] if n % 3 == 0 and n <= 57 else None
    one = sampler(server, policy)
    drawn(one)
    assert one.retried == 19 == len(server.asked) - len(REQUESTS)
    assert sorted(server.answered) == sorted(row_seed(3, r.prompt_id, r.draw) for r in REQUESTS)


def test_a_server_that_dies_and_returns_loses_and_doubles_nothing(
    server: Server, policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    """It stops while four requests are in flight, and comes back on its port when the client has tried 12 times."""
    died, gate = threading.Event(), threading.Barrier(4)

    def die(number: int, body: dict[str, Any]) -> str | None:
        if 13 <= number <= 16:
            if gate.wait(timeout=30) == 0:
                server.stop()
                died.set()
            died.wait(timeout=30)
            return "drop"
        return None

    server.fault = die
    returning = Backoff(lambda times: server.start() if times == 12 else None)
    one = sampler(server, policy, backoff=returning)
    drawn(one)
    assert died.is_set() and one.retried >= 12
    assert Counter(server.answered).most_common(1)[0][1] == 1
    assert len([r for r in caplog.records if "trying again" in r.message]) == 1


def test_a_server_that_stays_away_ends_the_run_and_keeps_what_was_drawn(server: Server, policy: Policy) -> None:
    server.fault = lambda n, body: (503, {"error": "gone"}) if n > 10 else None
    one = sampler(server, policy, retries=2)
    kept: list[Completion] = []
    with pytest.raises(SamplerError, match=r"no usable answer in 3 tries.*503.*gone.*same command"):
        for batch in one.draw(REQUESTS):
            kept.extend(batch)
    assert {row_seed(3, c.prompt_id, c.draw) for c in kept} == set(server.answered)
    assert len(kept) == 10


def test_a_wait_that_the_server_asks_for_is_kept(server: Server, policy: Policy) -> None:
    one = sampler(server, policy)
    for error, expected in ((Unusable("busy", 7.0), 7.0), (Unusable("odd"), 0.0), (OSError(), 0.0)):
        assert one._pause_s(1, error) == expected


def test_the_pause_between_tries_grows_to_half_a_minute() -> None:
    for attempt, low, high in ((1, 0.8, 1.0), (3, 3.0, 4.0), (20, 25.0, 30.0)):
        assert low < max(random_backoff(attempt) for _ in range(300)) <= high


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ((401, {"error": "no key"}), "status 401.*no key.*api_key_env"),
        ((404, b""), "must end where"),
        ((400, {"error": "too long"}), "'p0'.*too long.*context"),
        ((200, {"choices": [{"text": "words"}]}), "no token ids.*return_token_ids"),
        ((200, answer([3, END], prompt=[0, 5, 6])), "other tokens of prompt 'p0'"),
        ((200, answer([3, 9])), "token 9, which is no end token"),
        ((200, answer([3, 9], reason="length")), "after 2 of 8 tokens"),
    ],
)
def test_lasting_faults_are_errors_at_once(server: Server, policy: Policy, fault: Any, message: str) -> None:
    server.fault = lambda n, body: fault
    with pytest.raises(SamplerError, match=message):
        list(sampler(server, policy, concurrency=1).draw(REQUESTS))
    assert len(server.asked) == 1


def test_a_caller_that_stops_leaves_no_request_behind(server: Server, policy: Policy) -> None:
    """The requests in flight hang until the test lets go; closing the draws must not wait for them."""
    let_go = threading.Event()
    server.fault = lambda n, body: None if n <= 4 else (let_go.wait(timeout=30), None)[1]
    draws = sampler(server, policy).draw(REQUESTS)
    assert next(draws)
    draws.close()
    assert len(server.asked) <= 8 and not let_go.is_set()
    let_go.set()


def test_first_contact_names_what_is_wrong(server: Server, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SamplerError, match=r"served_model=polisy.*did you mean 'policy'"):
        sampler(server, policy, served_model="polisy")
    server.models = ["a", "b"]
    with pytest.raises(SamplerError, match=r"served_model=None.*it serves a, b"):
        sampler(server, policy)
    with pytest.raises(ConfigError, match="served_final"):
        sampler(server, policy, trained=True)
    assert sampler(server, policy, trained=True, served_final="b")._model == "b"
    with pytest.raises(ConfigError, match=r"DPHRL_TEST_KEY.*no such environment variable"):
        sampler(server, policy, api_key_env="DPHRL_TEST_KEY")
    monkeypatch.setenv("DPHRL_TEST_KEY", "secret")
    sampler(server, policy, served_model="a", api_key_env="DPHRL_TEST_KEY")
    assert server.headers[-1]["Authorization"] == "Bearer secret"
    server.stop()
    with pytest.raises(SamplerError, match="no server answers at"):
        sampler(server, policy)
    server.start()


def test_a_completion_at_the_limit_has_no_end(policy: Policy) -> None:
    body = json.dumps(answer([4] * LIMIT, reason="length")).encode()
    assert read_answer(body, REQUESTS[0], stop_ids=policy.stop_ids, max_new_tokens=LIMIT) == (4,) * LIMIT


def test_tokens_after_the_end_token_are_cut() -> None:
    body = json.dumps(answer([4, END, 9, 9], reason="length")).encode()
    assert read_answer(body, REQUESTS[0], stop_ids=[END], max_new_tokens=LIMIT) == (4, END)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
)


@given(st.binary() | _JSON.map(lambda v: json.dumps(v).encode()) | _JSON.map(lambda v: json.dumps(answer(v)).encode()))
def test_any_answer_is_read_or_refused(body: bytes) -> None:
    with suppress(Unusable, SamplerError):
        ids = read_answer(body, REQUESTS[0], stop_ids=[END], max_new_tokens=LIMIT)
        assert 1 <= len(ids) <= LIMIT and END not in ids[:-1] and (ids[-1] == END or len(ids) == LIMIT)
