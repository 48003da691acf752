"""Whether a model says the same of a token however it is read: alone, beside longer rows, or while it is drawn.

A state that runs over the padding, positions that count it, or a cache that forgets a mask make several policies of one
model: one that is drawn from, one that is trained. No list of families says so; four short rows are read in every way.
Axes: R rows, T tokens of a completion, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from dphrl.errors import ModelError
from dphrl.models.autocast import computing_in
from dphrl.models.policy import Policy
from dphrl.models.positions import needs_positions, with_positions
from dphrl.models.scoring import pad_sequences, score
from dphrl.models.shared_attention import unshare_attention
from dphrl.sampling.rows.row_drawer import Decoding, RowDrawer

PROMPTS, TIME = (1, 9), 4
"""Tokens of the prompts, each with two completions, and of a completion. Padding is most of the shorter rows."""
ALLOWED = 3e-3
"""Nats: convolutions of a GPU are rounded to TF32, and a state is summed otherwise token by token."""

FAILURES = (TypeError, AttributeError, ValueError, RuntimeError, IndexError, KeyError, NotImplementedError)
"""What a forward of transformers raises where it does not take what it is given."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows that are read in several ways, and what the model says of each row alone."""

    model: Any
    prompts: list[tuple[int, ...]]
    completions: list[tuple[int, ...]]
    alone_RT: Float[Tensor, "rows time"]

    def compare(self, way: str, read: Callable[[], Tensor]) -> None:
        """Refuse the model where `read` gives other log-probabilities [rows, time].

        Raises:
            ModelError: it does, or its forward fails.
        """
        name = type(self.model).__name__
        with _failing(name, way):
            apart = float((read().cpu() - self.alone_RT).abs().mean())
        allowed = ALLOWED + 2 * torch.finfo(self.model.dtype).eps * float(self.alone_RT.abs().max())
        if not apart <= allowed:
            raise ModelError(
                f"{name} {way} with log-probabilities that are {apart:.2g} nats away from those of the same tokens "
                f"read alone (rounding explains {allowed:.1g}): something in it does not heed the mask of padding, or "
                "its cache; another policy would be trained than the one that is sampled, so use another model"
            )


def check_drawing(policy: Policy) -> None:
    """Refuse a model that transformers draws from as another policy than it is; a few short forwards, in eval mode.

    Raises:
        ModelError: by how much, and what rounding explains; or its forward fails.
    """
    with _rows_of(policy) as rows:
        rows.compare("draws", lambda: _drawn(policy, rows))


def check_one_policy(policy: Policy) -> None:
    """As `check_drawing`, of scoring and of padded rows in training too.

    Raises:
        ModelError: likewise; or its logits do not follow the rule in its config.
    """
    with _rows_of(policy) as rows:
        rows.compare("scores rows", lambda: _scored(policy, rows))
        rows.compare("reads padded rows", lambda: _padded(policy, rows))
        rows.compare("draws", lambda: _drawn(policy, rows))


@contextmanager
def _rows_of(policy: Policy) -> Iterator[_Rows]:
    """Within it the model computes in its weights' own type; its attention and torch's random numbers stay."""
    model = policy.model
    devices = [model.device] if model.device.type == "cuda" else []
    special = {*policy.stop_ids, policy.tokenizer.pad_token_id, policy.tokenizer.bos_token_id}
    vocabulary = model.config.get_text_config().vocab_size
    tokens = iter([t for n in range(vocabulary) if (t := (n + 5) * 7919 % vocabulary) not in special] * 9)
    texts = [tuple(next(tokens) for _ in range(length)) for length in PROMPTS]
    prompts = [prompt for prompt in texts for _ in range(2)]
    completions = [tuple(next(tokens) for _ in range(TIME)) for _ in prompts]
    with torch.no_grad(), torch.random.fork_rng(devices=devices), computing_in(model, None):
        try:
            with _failing(type(model).__name__, "reads a row"):
                alone = [_alone(model, p, c) for p, c in zip(prompts, completions, strict=True)]
            yield _Rows(model, prompts, completions, torch.stack(alone))
        finally:
            unshare_attention(model)


@contextmanager
def _failing(name: str, way: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except FAILURES as error:
        raise ModelError(f"{name} fails where it {way} ({type(error).__name__}: {error}); use another model") from None


def _alone(model: Any, prompt: tuple[int, ...], completion: tuple[int, ...]) -> Float[Tensor, " time"]:
    ids = torch.tensor([[*prompt, *completion]], device=model.device)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return _chosen(logits[0, len(prompt) - 1 : -1], ids[0, len(prompt) :]).cpu()


def _chosen(logits_TV: Tensor, ids_T: Tensor) -> Tensor:
    logps: Tensor = logits_TV.float().log_softmax(-1).gather(-1, ids_T[..., None].to(logits_TV.device))[..., 0]
    return logps


def _scored(policy: Policy, rows: _Rows) -> Tensor:
    scored = score(
        rows.model, rows.prompts, rows.completions, pad_id=policy.tokenizer.pad_token_id, temperature=1.0,
        batch_size=len(rows.prompts),
    )  # fmt: skip
    return torch.tensor([one.logps for one in scored])


def _padded(policy: Policy, rows: _Rows) -> Tensor:
    """As engines call the model for padded rows."""
    model = rows.model
    ids, mask, _ = pad_sequences(rows.prompts, rows.completions, policy.tokenizer.pad_token_id, model.device)
    called = with_positions(model) if needs_positions(model) else model
    logits = called(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return _chosen(logits[:, -TIME - 1 : -1], ids[:, -TIME:])


def _drawn(policy: Policy, rows: _Rows) -> Tensor:
    told = _Told(torch.tensor(rows.completions))
    tokenizer = policy.tokenizer
    decoding = Decoding(TIME, 1.0, 1.0, policy.stop_ids, tokenizer.pad_token_id, tokenizer.bos_token_id)
    RowDrawer(decoding).draw_by(rows.model, rows.prompts, told)
    return told.logps_RT


@dataclass(slots=True)
class _Told:
    """Picks the tokens that it is told, and keeps what the model says of them."""

    completions_RT: Int64[Tensor, "rows time"]
    logps_RT: Float[Tensor, "rows time"] = field(init=False)

    def __post_init__(self) -> None:
        self.logps_RT = torch.zeros(self.completions_RT.shape)

    def __call__(self, logits_RV: Tensor, rows: Tensor, position: int) -> Tensor:
        at = rows.cpu()
        token = self.completions_RT[at, position]
        self.logps_RT[at, position] = _chosen(logits_RV, token).cpu()
        return token.to(logits_RV.device)
