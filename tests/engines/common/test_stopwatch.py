"""Tokens a second and shares of the time, from the readings of all processes."""

from __future__ import annotations

import pytest
import torch

from dphrl.engines.common.stopwatch import Stopwatch, throughput


def test_speeds_are_of_all_processes_over_their_mean_time() -> None:
    """Two processes, 10 s each: drawing 2 and 4 s, verdicts 1 s, anchors' 1 s; so 3 s of drawing, 6 s of training.

    Drawn 300 + 300 tokens: 200 a second. Trained 500 + 400, anchors 60 + 60: 1020 / 6 = 170, of which 120 / 6 = 20.
    """
    numbers = torch.tensor([[10.0, 2, 1, 1, 300, 500, 60], [10.0, 4, 1, 1, 300, 400, 60]])
    assert throughput(numbers) == pytest.approx(
        {
            "throughput/rollout_tokens_per_s": 200,
            "throughput/train_tokens_per_s": 170,
            "throughput/anchor_tokens_per_s": 20,
            "throughput/generation_share": 0.3,
            "throughput/verification_share": 0.1,
            "throughput/anchor_share": 0.1,
        }
    )


def test_without_anchors_or_time_nothing_is_made_up() -> None:
    found = throughput(torch.tensor([[10.0, 0, 0, 0, 0, 500, 0]]))
    assert found == {
        "throughput/train_tokens_per_s": 50,
        "throughput/generation_share": 0,
        "throughput/verification_share": 0,
    }
    assert throughput(torch.zeros(1, 7)) == {}


def test_a_reading_starts_again_from_nothing() -> None:
    watch = Stopwatch(torch.device("cpu"))
    assert not watch.running
    watch.start()
    with watch.on_host("generation"), watch.on_device("anchor"):
        watch.drawn, watch.anchors = 5, 7
    watch.trained += 3
    elapsed, drawing, _, anchors, *tokens = watch.read().tolist()
    assert tokens == [5, 3, 7] and elapsed >= drawing >= anchors > 0
    assert watch.running and watch.read().tolist()[1:] == [0] * 6
