"""What a server may answer to a request for one completion: read strictly, for a wrong token would train."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dphrl.errors import SamplerError
from dphrl.sampling.base import Request
from dphrl.sampling.decoding import until_stop


class Unusable(Exception):
    """An answer that another try may mend: no JSON, no choice, an aborted completion, a status that passes."""

    def __init__(self, text: str, wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.wait_s = wait_s
        """What the server asked to wait before the next try."""


def read_answer(body: bytes, request: Request, *, stop_ids: Sequence[int], max_new_tokens: int) -> tuple[int, ...]:
    """Token ids of the one completion in the body of a 200 answer, up to and with the first end token.

    Args:
        body: JSON of /completions with `return_token_ids`.
        stop_ids: tokens that end a completion of the policy.
        max_new_tokens: the limit that was asked for.
    Raises:
        Unusable: another try may give a good answer.
        SamplerError: the server has another idea of the prompt or of the end of a completion, or gives no token ids.
    """
    choice = _only_choice(body)
    ids = choice.get("token_ids")
    if ids is None:
        raise SamplerError(
            "the server gives text but no token ids, and tokenizing text again can give other tokens than were drawn; "
            "it must know `return_token_ids` (vLLM from 0.10.2, SGLang from mid-2026), or use sampling.backend=vllm"
        )
    if not _are_ids(ids) or not ids or len(ids) > max_new_tokens:
        raise Unusable(f"token_ids is {_short(ids)}; it must be 1..{max_new_tokens} token ids")
    seen = choice.get("prompt_token_ids")
    if seen is not None and seen != list(request.prompt_ids):
        raise SamplerError(
            f"the server read other tokens of prompt {request.prompt_id!r} than the {len(request.prompt_ids)} that "
            "were sent; it must take token ids as they are (no begin token added, nothing cut)"
        )
    row, stopped = until_stop(ids, stop_ids)
    reason = choice.get("finish_reason")
    if stopped or (reason == "length" and len(row) == max_new_tokens):
        return row
    if reason not in ("stop", "length"):
        raise Unusable(f"finish_reason is {_short(reason)}; it must be 'stop' or 'length'")
    raise SamplerError(
        f"the server ended a completion of prompt {request.prompt_id!r} after {len(row)} of {max_new_tokens} tokens "
        f"(finish_reason {reason}) with token {row[-1]}, which is no end token of this policy "
        f"({', '.join(map(str, stop_ids))}); serve the same model, with room for prompt and completion"
    )


def _only_choice(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
        (choice,) = content["choices"]
        return dict(choice)
    except (ValueError, TypeError, KeyError):
        raise Unusable(f"the answer is no JSON object with one choice: {_short(body)}") from None


def _are_ids(ids: Any) -> bool:
    return isinstance(ids, list) and all(type(i) is int and i >= 0 for i in ids)


def _short(value: Any) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else repr(value)
    return text if len(text) <= 80 else f"{text[:80]} ..."
