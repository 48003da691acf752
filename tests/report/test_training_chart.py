"""The axis of a training curve."""

from __future__ import annotations

import numpy as np
import pytest

from dphrl.report.charts.curves import Curve
from dphrl.report.charts.line_charts import training_chart
from dphrl.report.comparison import Entry


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ((0.1, 0.2), {"zero": False}),
        ((0.2, 0.2), {"domain": [0.0, 0.2]}),
        ((-0.2, -0.2), {"domain": [-0.2, 0.0]}),
        ((0.0, 0.0), {"domain": [0.0, 1.0]}),
    ],
)
def test_a_flat_curve_has_an_axis_with_a_length(values: tuple[float, float], scale: dict[str, object]) -> None:
    value = np.array(values)
    chart = training_chart({Entry("dph_f"): Curve(np.array([2.0, 4.0]), value, value, value, 1)}, "eta", {})
    assert chart["encoding"]["y"]["scale"] == scale
