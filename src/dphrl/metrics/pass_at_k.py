"""Pass@k, mean@n and greedy accuracy of every prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

from dphrl.errors import DataError
from dphrl.method.verdict_counts import by_draw, is_judged, is_right
from dphrl.types import GREEDY_DRAW, Completion


def pass_at_k(
    n_P: Int[np.ndarray, " prompts"], c_P: Int[np.ndarray, " prompts"], ks: Sequence[int] | None = None
) -> Float[np.ndarray, "prompts ks"]:
    """Unbiased chance that at least one of k draws is right, 1 - C(n-c, k) / C(n, k), of every prompt at every k.

    Args:
        n_P: judged draws of each prompt, >= 0; they may differ.
        c_P: right ones among them, 0 .. n.
        ks: the k wanted; every k from 1 to the largest n when None (for large n ask for a few: `report_ks`).
    Returns:
        Values in [0, 1], never falling in k. NaN where a prompt has fewer than k judged draws: no unbiased estimate
        exists there, and a mean that forgets it shows.
    Raises:
        ValueError: a k below 1 or above the largest n, or c outside 0 .. n.
    Source: Chen et al., Evaluating Large Language Models Trained on Code, arXiv:2107.03374, eq. 1.
    """
    _check_counts(n_P, c_P)
    n = int(n_P.max(initial=0))
    wanted = range(1, max(n, 1) + 1) if ks is None else ks
    require_ks(wanted, n)
    ks_K = np.asarray(wanted, dtype=np.int64)
    # Prompts with the same counts share a row: at most n+1 rows when every draw was judged.
    pairs, row_P = np.unique(np.stack([n_P, c_P], axis=1), axis=0, return_inverse=True)
    table = [_pass_at_k_row(int(n), int(c), ks_K) for n, c in pairs]
    return np.stack(table)[row_P.reshape(-1)]


def _pass_at_k_row(n: int, c: int, ks_K: Int[np.ndarray, " ks"]) -> Float[np.ndarray, " ks"]:
    """C(n-c, k) / C(n, k) = product over i < k of (n-c-i) / (n-i): factors in [0, 1], so no overflow and no rise."""
    i = np.arange(min(n, int(ks_K.max(initial=0))))
    all_wrong = np.cumprod(np.maximum(n - c - i, 0) / (n - i))
    known_K = ks_K <= n
    row_K = np.full(ks_K.shape, np.nan)
    row_K[known_K] = 1.0 - all_wrong[ks_K[known_K] - 1]
    return row_K


def mean_at_n(n_P: Int[np.ndarray, " prompts"], c_P: Int[np.ndarray, " prompts"]) -> Float[np.ndarray, " prompts"]:
    """Share of right draws among the judged ones, c / n in [0, 1]; NaN where no draw was judged.

    Raises:
        ValueError: c outside 0 .. n.
    """
    _check_counts(n_P, c_P)
    mean_P = np.full(n_P.shape, np.nan)
    np.divide(c_P, n_P, out=mean_P, where=n_P > 0)
    return mean_P


def greedy(completions: Iterable[Completion]) -> dict[str, float]:
    """Accuracy of each prompt's greedy completion (`draw == GREEDY_DRAW`).

    Returns:
        Prompt id -> 1.0 right, 0.0 wrong, NaN unjudged; NaN for every prompt when no greedy completion was drawn.
    Raises:
        DataError: some prompts have a greedy completion and others do not; or doubled or unverified completions.
    """
    draws = by_draw(completions)
    without = [prompt_id for prompt_id, by_number in draws.items() if GREEDY_DRAW not in by_number]
    if 0 < len(without) < len(draws):
        raise DataError(
            f"{len(without)} of {len(draws)} prompts lack a greedy completion: {without[:3]}; draw all or none"
        )
    first = {prompt_id: by_number.get(GREEDY_DRAW) for prompt_id, by_number in draws.items()}
    return {i: float(is_right(c)) if c is not None and is_judged(c) else float("nan") for i, c in first.items()}


def report_ks(n: int) -> tuple[int, ...]:
    """The k worth a row: powers of two up to n, and n itself. report_ks(12) = (1, 2, 4, 8, 12)."""
    powers = [1 << e for e in range(n.bit_length()) if 1 << e <= n]
    return tuple(sorted({*powers, n} - {0}))


def supported_k(known: Iterable[int], n: int) -> int:
    """The largest known k that n draws support well, k * k <= n: 8 of 64, 4 of 16; 1 where there is none.

    One right draw more or less moves a prompt's Pass@k by k / n at most, so here by 1 / k; at k = n a single lucky draw
    decides whether the prompt is solved.
    """
    return max((k for k in known if k * k <= n), default=1)


def require_ks(ks: Iterable[int], n: int) -> None:
    """Refuse a k that n draws cannot estimate: ValueError that names it."""
    for k in ks:
        if not 1 <= k <= n:
            raise ValueError(f"k={k} needs 1 <= k <= n={n}; draw at least {max(k, 1)} completions per prompt")


def _check_counts(n_P: Int[np.ndarray, " prompts"], c_P: Int[np.ndarray, " prompts"]) -> None:
    if not ((c_P >= 0) & (c_P <= n_P)).all():
        row = int(np.flatnonzero((c_P < 0) | (c_P > n_P))[0])
        raise ValueError(
            f"c={c_P[row]} needs 0 <= c <= n={n_P[row]} (row {row}); c counts right draws among the n judged"
        )
