"""The course of eta over a run: schedule, controller, and going on from a checkpoint."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dphrl.engines.common.eta_control import EtaCourse, EtaSettings
from dphrl.errors import ConfigError
from dphrl.method.eta import controlled_eta


def refuse() -> float:
    raise AssertionError("a schedule measures no drift")


def test_a_schedule_reads_its_step_alone() -> None:
    course = EtaCourse(EtaSettings(0.4, "linear", end=0.1))
    course.begin(2, None)
    found = []
    for step in range(2, 5):
        course.begin_step(step, 5)
        found.append(course.now)
        course.end_step(refuse)
    assert found == pytest.approx([0.25, 0.175, 0.1])


def test_the_controller_moves_the_next_step_and_goes_on_from_a_checkpoint() -> None:
    settings = EtaSettings(0.2, "target", drift_target=0.1, bounds=[0.05, 0.21])
    course = EtaCourse(settings)
    course.begin_step(0, 9)
    course.end_step(lambda: 0.15)
    assert course.now == 0.2 and course.next == 0.21 == controlled_eta(0.2, 0.15, target=0.1, low=0.05, high=0.21)
    again = EtaCourse(settings)
    again.begin(1, course.next)
    again.begin_step(1, 9)
    assert again.now == 0.21
    again.begin(0, 0.07)  # a new training on the same object
    assert again.now == again.next == 0.2
    with pytest.raises(ConfigError, match="step 3 holds no eta"):
        again.begin(3, None)


def test_a_method_without_anchors_has_weight_0() -> None:
    assert EtaCourse(EtaSettings.of(SimpleNamespace(eta=None))).now == 0.0
