"""What a checkpoint lacks: written, read, and refused where it does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dphrl.engines.common.checkpoint_extras import GivenSettings, InFlight, pass_over
from dphrl.engines.common.processes import Processes
from dphrl.errors import RunDirError
from dphrl.method.anchor_stats import AnchorStats

STATS = AnchorStats.unpack(torch.tensor([[3.0, 0.5, -1.0, 1.5, -2.0, 0.25]]))
BATCH = {"completion_ids": torch.tensor([[1, 2], [3, 4]]), "advantages": torch.tensor([0.1, -0.1])}
HELD = InFlight(
    loss=torch.tensor(0.75),
    last_logged=4,
    metrics={"reward": [0.1, float("nan")], "kl": [1 / 3], "b/c": []},
    anchor_stats=[STATS, STATS],
    batches=[BATCH, BATCH],
    micro_step=3,
    bad_in_a_row=1,
)


SECOND = Processes(rank=1, count=4)


def load(folder: Path, micro_batches: int = 2, rows: int = 2, *, within: bool = True) -> InFlight | None:
    return InFlight.load(str(folder), SECOND, micro_batches=micro_batches, rows=rows, within=within)


def test_what_is_written_is_read_to_the_bit_and_in_order(tmp_path: Path) -> None:
    HELD.save(str(tmp_path), SECOND)
    assert [path.name for path in tmp_path.iterdir()] == ["in-flight-1-of-4.safetensors"]
    found = load(tmp_path)
    assert found is not None and found.loss == HELD.loss and list(found.metrics) == ["reward", "kl", "b/c"]
    assert found.metrics["kl"] == [1 / 3] and found.metrics["b/c"] == [] and str(found.metrics["reward"][1]) == "nan"
    assert (found.last_logged, found.micro_step, found.bad_in_a_row) == (4, 3, 1)
    assert [torch.equal(s.pack(), STATS.pack()) for s in found.anchor_stats] == [True, True]
    assert len(found.batches) == 2 and all(torch.equal(found.batches[1][k], BATCH[k]) for k in BATCH)


@pytest.mark.parametrize(("micro_batches", "rows"), [(1, 2), (2, 4)])
def test_a_generation_that_is_cut_otherwise_is_refused(micro_batches: int, rows: int, tmp_path: Path) -> None:
    HELD.save(str(tmp_path), SECOND)
    with pytest.raises(RunDirError, match=r"saved within a generation.*train\.micro_batch"):
        load(tmp_path, micro_batches, rows)
    replace(HELD, batches=[], micro_step=0, anchor_stats=[]).save(str(tmp_path), SECOND)
    found = load(tmp_path, micro_batches, rows, within=False)
    assert found is not None and found.batches == found.anchor_stats == []


def test_a_missing_file_matters_within_a_generation_alone(tmp_path: Path) -> None:
    assert load(tmp_path, within=False) is None
    with pytest.raises(RunDirError, match=r"in-flight-1-of-4\.safetensors does not fit"):
        load(tmp_path)


def test_settings_given_win_over_those_of_the_checkpoint() -> None:
    def made(rate: float, decay: float) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        weight = torch.nn.Parameter(torch.ones(2))
        optimizer = torch.optim.AdamW([weight], lr=rate, weight_decay=decay)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))

    old, old_schedule = made(0.1, 0.3)
    for _ in range(3):
        old.step()
        old_schedule.step()
    new, schedule = made(0.8, 0.0)
    given = GivenSettings(new, schedule)
    new.load_state_dict(old.state_dict())
    schedule.load_state_dict(old_schedule.state_dict())
    assert new.param_groups[0]["weight_decay"] == 0.3
    given.put_back(new, schedule)
    (group,) = new.param_groups
    assert (group["weight_decay"], group["initial_lr"], group["lr"]) == (0.0, 0.8, 0.2)
    assert schedule.get_last_lr() == [0.2] and schedule.last_epoch == 3


def test_a_sampler_is_led_on_by_whole_passes() -> None:
    class Sampler:
        num_samples = 5
        generator = torch.Generator().manual_seed(0)

    plain = torch.Generator().manual_seed(0)
    orders = [torch.randperm(5, generator=plain).tolist() for _ in range(3)]
    pass_over(Sampler, 2)
    assert torch.randperm(5, generator=Sampler.generator).tolist() == orders[2]
    pass_over(None, 2)
