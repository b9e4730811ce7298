"""Figures: what they plot and what they call it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mflib import ALS
from mflib.plots import COLORS, STYLES, axes, learning_curve


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_axes_stand_side_by_side_without_frames():
    figure, pair = axes()
    assert figure.axes == [pair]
    figure, pairs = axes(3)
    assert figure.axes == list(pairs)
    assert figure.get_size_inches().tolist() == [10.2, 3.2]
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
    assert left.get_ylabel() == "training loss"
    assert right.get_ylabel() == "ndcg (higher is better)"
    assert metric.get_marker() == STYLES["ALS"]["marker"]
    assert loss.get_color() == metric.get_color() == COLORS["ALS"]
    assert baseline.get_color() == COLORS["Popularity"]


@pytest.mark.parametrize(("metric", "better"), [("RMSE", "lower"), ("NDCG@10", "higher")])
def test_learning_curve_says_which_direction_is_better(metric, better):
    model = ALS()
    model.history = [{"iteration": 0, "loss": 1.0}]
    curve = pd.DataFrame({metric: [0.2]}, index=[1])
    _, right = learning_curve(model, curve, 0.1, "popularity").axes
    assert right.get_ylabel() == f"{metric} ({better} is better)"


def test_models_are_told_apart_without_colour():
    for name, style in STYLES.items():
        assert COLORS[name] == style["color"]
    for key in ("color", "linestyle", "marker"):
        assert len({style[key] for style in STYLES.values()}) == len(STYLES)
    _, pair = axes()
    lines = [pair.plot([1, 2], [1, 2], **style)[0] for style in STYLES.values()]
    assert len({(str(line.get_linestyle()), line.get_marker()) for line in lines}) == len(STYLES)


def test_text_is_readable_where_a_figure_is_as_wide_as_a_phone():
    """At least 8.5 of 390 pixels, whatever the text is."""
    for columns in (1, 2):
        figure, pairs = axes(columns)
        for pair in np.ravel(pairs):
            pair.set(xlabel="x", ylabel="y", title="title")
            (line,) = pair.plot([0, 1], label="line")
            texts = [pair.title, pair.xaxis.label, pair.yaxis.label, *pair.get_xticklabels()]
            texts += [pair.annotate("here", (0, 0)), *pair.legend(handles=[line]).texts]
            for text in texts:
                inches = text.get_fontsize() / 72
                assert inches / figure.get_figwidth() * 390 > 8.5


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_long_titles_and_labels_stay_in_their_panel(columns):
    words = "Which of the likes that were held out are found by which of the models, and where?"
    figure, pairs = axes(columns)
    for pair in np.ravel(pairs):
        pair.set(title=words, xlabel=words)
        pair.set_ylabel("y")
    figure.canvas.draw()
    for place, pair in enumerate(np.ravel(pairs)):
        assert " ".join(pair.get_title().split()) == " ".join(pair.get_xlabel().split()) == words
        for text in (pair.title, pair.xaxis.label):
            box = text.get_window_extent()
            width = figure.bbox.width / columns
            assert place * width <= box.x0
            assert box.x1 <= (place + 1) * width
