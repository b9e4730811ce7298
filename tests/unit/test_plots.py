"""Figures: what they plot and what they call it."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mflib import ALS
from mflib.plots import COLORS, axes, learning_curve


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_axes_stand_side_by_side_without_frames():
    figure, pair = axes()
    assert figure.axes == [pair]
    figure, pairs = axes(3)
    assert figure.axes == list(pairs)
    assert figure.get_size_inches().tolist() == [13.5, 3.2]
    for each in [pair, *pairs]:
        assert not each.spines["top"].get_visible()
        assert not each.spines["right"].get_visible()
        assert each.spines["left"].get_visible()


def test_learning_curve_shows_the_history_and_the_metric_beside_the_baseline():
    model = ALS()
    model.history = [{"iteration": i, "loss": loss} for i, loss in enumerate([3.0, 2.0, 1.5])]
    curve = pd.DataFrame({"ndcg": [0.2, 0.3]}, index=[1, 3])
    left, right = learning_curve(model, curve, 0.1, "popularity").axes
    (loss,) = left.lines
    assert loss.get_xydata().tolist() == [[1, 3], [2, 2], [3, 1.5]]
    metric, baseline = right.lines
    assert metric.get_xydata().tolist() == [[1, 0.2], [3, 0.3]]
    assert set(baseline.get_ydata()) == {0.1}
    assert [text.get_text() for text in right.get_legend().texts] == ["ALS", "popularity"]
    assert (left.get_title(), right.get_title()) == (
        "ALS on the training data",
        "ALS on held-out data",
    )
    assert (left.get_ylabel(), right.get_ylabel()) == ("training loss", "ndcg")
    assert loss.get_color() == metric.get_color() == COLORS["ALS"]
    assert baseline.get_color() == COLORS["Popularity"]
