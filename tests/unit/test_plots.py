"""Tests of the figures: what they plot and how they label it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from known_answers import random_ratings

from mflib import ALS, SVD, Popularity
from mflib.model import FactorModel
from mflib.plots import COLORS, STYLES, axes, hits_by_popularity, learning_curve, style_of


class MyALS(ALS):
    """A student's variant of a model."""


class Mine(FactorModel):
    """A student's own model."""


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def with_history(model, *losses):
    model.history = [{"iteration": n, "loss": loss} for n, loss in enumerate(losses)]
    return model


def test_axes_returns_one_panel_or_several():
    figure, panel = axes()
    assert figure.axes == [panel]
    figure, panels = axes(3)
    assert figure.axes == list(panels)
    assert figure.get_size_inches().tolist() == [10.2, 3.2]
    for place, panel in enumerate(panels):  # each has a third of the figure to itself
        part = panel.figure.bbox
        assert part.x0 == pytest.approx(figure.bbox.width * place / 3, abs=5)
        assert part.width == pytest.approx(figure.bbox.width / 3, abs=5)


def test_notebooks_do_not_trim_a_figure_with_two_panels():
    """A page cuts a figure between its panels, so its image must be centred on the figure."""
    figure, (left, _) = axes(2)
    left.set(xlabel="x", ylabel="a label that is far to the left")
    figure.draw_without_rendering()
    box = figure.get_tightbbox(figure.canvas.get_renderer())
    assert box.x0 == pytest.approx(0, abs=0.02)
    assert box.x1 == pytest.approx(figure.get_figwidth(), abs=0.02)


def test_axes_hides_the_frame_at_the_top_and_right():
    _, panels = axes(2)
    for panel in panels:
        visible = {side for side, spine in panel.spines.items() if spine.get_visible()}
        assert visible == {"left", "bottom"}


@pytest.mark.parametrize("arguments", [{"columns": 0}, {"height": -1}])
def test_axes_rejects_invalid_sizes(arguments):
    (name, value) = next(iter(arguments.items()))
    with pytest.raises(ValueError, match=f"for {name}, got {value}"):
        axes(**arguments)


def test_learning_curve_plots_history_metric_and_baseline():
    model = with_history(ALS(), 3.0, 2.0, 1.5)
    curve = pd.DataFrame({"ndcg": [0.2, 0.3]}, index=[1, 3])
    left, right = learning_curve(model, curve, 0.1, "popularity").axes
    (loss,) = left.lines
    assert loss.get_xydata().tolist() == [[1, 3], [2, 2], [3, 1.5]]
    metric, baseline = right.lines
    assert metric.get_xydata().tolist() == [[1, 0.2], [3, 0.3]]
    assert set(baseline.get_ydata()) == {0.1}
    assert metric.get_marker() == STYLES["ALS"]["marker"]
    assert loss.get_color() == metric.get_color() == COLORS["ALS"]
    assert baseline.get_color() == COLORS["Popularity"]


def test_learning_curve_labels_model_metric_and_baseline():
    model = with_history(SVD(), 2.0, 1.0)
    curve = pd.DataFrame({"ndcg": [0.2]}, index=[2])
    left, right = learning_curve(model, curve, 0.1, "popularity").axes
    assert left.get_title() == "SVD on the training data"
    assert left.get_ylabel() == "training loss"
    assert right.get_title() == "SVD on held-out data"
    assert left.get_xlabel() == right.get_xlabel() == "iteration"
    assert [text.get_text() for text in right.get_legend().texts] == ["SVD", "popularity"]


@pytest.mark.parametrize(
    ("metric", "better"),
    [("RMSE", "lower"), ("held-out rmse", "lower"), ("MAE", "lower"), ("NDCG@10", "higher")],
)
def test_learning_curve_shows_which_direction_is_better(metric, better):
    curve = pd.DataFrame({metric: [0.2]}, index=[1])
    _, right = learning_curve(with_history(ALS(), 1.0), curve, 0.1, "popularity").axes
    assert right.get_ylabel() == f"{metric} ({better} is better)"


def test_learning_curve_of_a_subclass_uses_the_style_of_its_base_class():
    curve = pd.DataFrame({"ndcg": [0.2, 0.3]}, index=[1, 2])
    left, right = learning_curve(with_history(MyALS(), 2.0, 1.0), curve, 0.1, "popularity").axes
    assert left.get_title() == "MyALS on the training data"
    assert right.get_legend().texts[0].get_text() == "MyALS"
    assert left.lines[0].get_color() == right.lines[0].get_color() == COLORS["ALS"]
    assert right.lines[0].get_marker() == STYLES["ALS"]["marker"]


def test_style_of_returns_the_style_of_the_nearest_base_class():
    student_bpr = type("BPR", (ALS,), {})  # both names have a style
    assert style_of(student_bpr()) == STYLES["BPR"]
    assert style_of(type("Mine", (student_bpr,), {})()) == STYLES["BPR"]


def test_learning_curve_plots_a_model_without_a_style():
    curve = pd.DataFrame({"ndcg": [0.2, 0.3]}, index=[1, 2])
    left, right = learning_curve(with_history(Mine(), 2.0, 1.0), curve, 0.1, "popularity").axes
    assert left.get_title() == "Mine on the training data"
    assert right.lines[0].get_color() == style_of(Mine())["color"] not in COLORS.values()


@pytest.mark.parametrize("iterations", [1, 2])
def test_learning_curve_plots_a_model_stopped_by_its_callback(iterations):
    curve = {0: 0.05}  # before training

    def stop(iteration, seconds, loss):
        curve[iteration + 1] = 0.1 * iteration
        return iteration + 1 == iterations

    model = ALS(2, iterations=9).fit(random_ratings(20, 10, 0.5), False, stop)
    figure = learning_curve(model, pd.DataFrame({"ndcg": curve}), 0.1, "popularity")
    left, right = figure.axes
    (loss,) = left.lines
    assert loss.get_xdata().tolist() == list(range(1, iterations + 1))
    assert right.lines[0].get_xdata().tolist() == list(range(iterations + 1))
    assert (loss.get_marker() == STYLES["ALS"]["marker"]) == (iterations == 1), "visible"
    figure.canvas.draw()
    for panel in (left, right):
        assert all(tick == round(tick) for tick in panel.get_xticks()), "whole iterations"


@pytest.mark.parametrize("iterations", [15, 35])
def test_learning_curve_marks_every_fifth_or_tenth_iteration(iterations):
    model = with_history(ALS(), *range(iterations))
    curve = pd.DataFrame({"ndcg": 0.2}, index=range(1, iterations + 1))
    figure = learning_curve(model, curve, 0.1, "popularity")
    figure.canvas.draw()
    for panel in figure.axes:
        assert all(tick % 5 == 0 for tick in panel.get_xticks())


def test_learning_curve_rejects_an_unfitted_model():
    with pytest.raises(RuntimeError, match=r"expected a fitted model, got ALS\(.*call fit"):
        learning_curve(ALS(), pd.DataFrame({"ndcg": [0.2]}, index=[1]), 0.1, "popularity")


@pytest.mark.parametrize(
    ("curve", "error", "message"),
    [
        (pd.Series([0.2], [1]), TypeError, "one column, the metric, for curve, got Series"),
        (pd.DataFrame({"ndcg": {}}), ValueError, r"at least one row, got shape \(0, 1\)"),
        (pd.DataFrame(), ValueError, r"one column.*, got shape \(0, 0\)"),
        (pd.DataFrame({"a": [1], "b": [2]}, [1]), ValueError, r"got shape \(1, 2\)"),
        (pd.DataFrame({"ndcg": [1, np.nan]}, [1, 2]), ValueError, r"finite .*, got \[1.0, nan\]"),
        (pd.DataFrame({"ndcg": ["much"]}, [1]), ValueError, r"finite numbers .*, got \['much'\]"),
        (
            pd.DataFrame({"ndcg": [0.1, 0.2]}, [1, 4]),
            ValueError,
            "from 0 to 3,.* got 1 to 4;",
        ),
        (pd.DataFrame({"ndcg": [0.1]}, [-1]), ValueError, "from 0 to 3,.* got -1 to -1"),
        (pd.DataFrame({"ndcg": [0.1]}, [1.5]), ValueError, "from 0 to 3,.* got 1.5 to 1.5"),
    ],
)
def test_learning_curve_rejects_an_invalid_curve(curve, error, message):
    with pytest.raises(error, match=message):
        learning_curve(with_history(ALS(), 3.0, 2.0, 1.0), curve, 0.1, "popularity")
    assert not plt.get_fignums(), "no empty figure remains"


def test_learning_curve_accepts_a_curve_that_ends_early():
    curve = pd.DataFrame({"ndcg": [0.1]}, index=[1])
    _, right = learning_curve(with_history(ALS(), 3.0, 2.0, 1.0), curve, 0.1, "popularity").axes
    assert right.lines[0].get_xydata().tolist() == [[1, 0.1]]


def test_learning_curve_rejects_a_baseline_that_is_not_finite():
    curve = pd.DataFrame({"ndcg": [0.2]}, index=[1])
    with pytest.raises(ValueError, match="finite number for baseline, got nan"):
        learning_curve(with_history(ALS(), 1.0), curve, float("nan"), "popularity")


def test_styles_differ_without_colour():
    for name, style in STYLES.items():
        assert COLORS[name] == style["color"]
    for key in ("color", "linestyle", "marker"):
        assert len({style[key] for style in STYLES.values()}) == len(STYLES)
    _, panel = axes()
    lines = [panel.plot([1, 2], [1, 2], **style)[0] for style in STYLES.values()]
    assert len({(str(line.get_linestyle()), line.get_marker()) for line in lines}) == len(STYLES)


def test_text_is_at_least_8_pixels_high_on_a_phone():
    """A figure is as wide as the screen, 390 pixels."""
    for columns in (1, 2):
        figure, panels = axes(columns)
        for panel in np.ravel(panels):
            panel.set(xlabel="x", ylabel="y", title="title")
            (line,) = panel.plot([0, 1], label="line")
            texts = [panel.title, panel.xaxis.label, panel.yaxis.label, *panel.get_xticklabels()]
            texts += [panel.annotate("here", (0, 0)), *panel.legend(handles=[line]).texts]
            for text in texts:
                inches = text.get_fontsize() / 72
                assert inches / figure.get_figwidth() * 390 > 8.5


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_long_titles_and_labels_stay_inside_their_panel(columns):
    words = "Which of the likes that were held out are found by which of the models, and where?"
    figure, panels = axes(columns)
    for panel in np.ravel(panels):
        panel.set(title=words, xlabel=words)
        panel.set_ylabel("y")
    figure.canvas.draw()
    for column, panel in enumerate(np.ravel(panels)):
        assert " ".join(panel.get_title().split()) == words
        assert " ".join(panel.get_xlabel().split()) == words
        for text in (panel.title, panel.xaxis.label):
            box = text.get_window_extent()
            width = figure.bbox.width / columns
            assert column * width <= box.x0
            assert box.x1 <= (column + 1) * width


def test_line_breaks_in_titles_are_kept():
    _, panel = axes()
    panel.set(title="Two short\nlines", xlabel="x\n(unit)")
    assert (panel.get_title(), panel.get_xlabel()) == ("Two short\nlines", "x\n(unit)")


def test_hits_by_popularity_accepts_users_with_fewer_than_ten_items_left():
    train = sp.csr_matrix(np.tri(6, 14, 5))  # user 5 has three items left
    test = sp.csr_matrix(np.eye(6, 14, 13) + np.eye(6, 14, 8))
    panel = hits_by_popularity({"popularity": Popularity().fit(train)}, train, test).axes[0]
    (shares,) = (line.get_ydata() for line in panel.lines)
    assert shares[0] == 1.0, "all items of this small catalogue are recommended"
