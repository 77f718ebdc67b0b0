import matplotlib.text
import numpy as np
import pytest

from optim_family.analysis import study_table
from optim_family.figures import study_figure
from optim_family.figures.study_figure import accuracy_small_multiples, sharpness_small_multiples
from optim_family.runs.run import series
from tests.helpers.fake_runs import in_norm, make_run

RUNS = [make_run(limit=n, seed=seed, records=12) for n in (100, 200) for seed in (0, 1)] + [
    make_run("rmsprop", limit=100, records=12),
    make_run("rmsprop", {"preconditioning": "raw"}, limit=100, records=12, status="diverged"),
]


def drawn(draw, runs=RUNS):
    frame = study_table.run_rows(runs)
    figure = draw(runs, frame["arm"].tolist(), frame["setting"].tolist())
    figure.draw_without_rendering()
    return figure


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


@pytest.mark.parametrize("draw", [sharpness_small_multiples, accuracy_small_multiples])
def test_there_is_a_cell_for_every_setting_and_optimizer(draw):
    figure = drawn(draw)
    assert len(figure.axes) == 2 * 2
    assert {"gd", "rmsprop", "bn_cnn, 100 images", "bn_cnn, 200 images"} <= set(texts(figure))
    assert [bool(ax.lines) for ax in figure.axes] == [True, True, True, False]
    assert not any(spine.get_visible() for spine in figure.axes[3].spines.values())


@pytest.mark.parametrize("draw", [sharpness_small_multiples, accuracy_small_multiples])
def test_steps_are_told_below_the_lowest_cell_of_a_column(draw):
    figure = drawn(draw)
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "step", "step", "step"]
    assert [ax.xaxis.get_tick_params()["labelbottom"] for ax in figure.axes[:3]] == [False, True, True]
    assert len({ax.get_xlim() for ax in figure.axes}) == 1


@pytest.mark.parametrize("draw", [sharpness_small_multiples, accuracy_small_multiples])
def test_an_arm_has_one_look_in_all_cells(draw):
    figure = drawn(draw)
    frame = study_table.run_rows(RUNS)
    looks = {}
    for ax in figure.axes:
        for line in ax.lines:
            if line.get_linestyle() not in (":", "None") and len(line.get_xdata()) == 12:
                looks.setdefault(line.get_color(), set()).add((line.get_marker(), str(line.get_linestyle())))
    assert len(looks) == frame["arm"].nunique() and all(len(look) == 1 for look in looks.values())
    keys = {
        f"{optimizer} {text.get_text()}"
        for optimizer, ax in (("gd", figure.axes[2]), ("rmsprop", figure.axes[1]))
        for text in ax.get_legend().get_texts()
    }
    assert keys == set(frame["arm"])
    assert [bool(ax.get_legend()) for ax in figure.axes] == [False, True, True, False]


@pytest.mark.parametrize(
    ("draw", "drawn_lines"), [(sharpness_small_multiples, 4), (accuracy_small_multiples, 2)]
)
@pytest.mark.parametrize("crowd", [1, 2])
def test_a_crowd_has_no_markers(draw, drawn_lines, crowd, monkeypatch):
    monkeypatch.setattr(study_figure, "CROWD", crowd)
    (ax,) = drawn(draw, [make_run(seed=seed, records=12) for seed in range(2)]).axes
    lines = [line for line in ax.lines if len(line.get_xdata()) == 12]
    assert len(lines) == drawn_lines
    assert any(line.get_marker() for line in lines) == (crowd == 2)


def test_thresholds_are_dotted_and_those_of_the_own_metric():
    figure = drawn(sharpness_small_multiples)
    for ax, run in ((figure.axes[0], RUNS[0]), (figure.axes[1], RUNS[4])):
        view = "spherical" if run.spec["optimizer"] == "gd" else "spherical-preconditioned"
        limit = [record["views"][view]["threshold"] for record in run.records]
        assert any(list(line.get_ydata()) == limit for line in ax.lines if line.get_linestyle() == ":")


def test_sharpness_in_a_norm_is_called_a_lower_bound_and_drawn_without_a_threshold_too():
    figure = drawn(sharpness_small_multiples, [in_norm(make_run(), threshold=False), make_run("rmsprop")])
    norm, metric = figure.axes
    assert norm.get_title("right") == "lower bound" and metric.get_title("right") == ""
    assert [list(line.get_ydata())[:1] for line in norm.lines if line.get_ydata().size][-1:] == [[9.0]]


@pytest.mark.parametrize("draw", [sharpness_small_multiples, accuracy_small_multiples])
def test_three_seeds_are_their_median_and_a_band(draw):
    seeds = [make_run(seed=seed, records=12) for seed in range(3)]
    (ax,) = drawn(draw, seeds).axes
    (line,) = [x for x in ax.lines if x.get_linestyle() not in (":", "None") and len(x.get_xdata()) == 12]
    field = "test_accuracy" if draw is accuracy_small_multiples else "spherical.value"
    scale = 100 if draw is accuracy_small_multiples else 1
    values = scale * np.array([series(run, field) for run in seeds])
    assert np.allclose(line.get_ydata(), np.median(values, axis=0))
    (band,) = ax.collections
    ends = band.get_paths()[0].vertices[:, 1]
    assert np.isclose(ends.min(), values.min()) and np.isclose(ends.max(), values.max())


@pytest.mark.parametrize("draw", [sharpness_small_multiples, accuracy_small_multiples])
def test_seeds_of_which_one_diverged_are_lines_of_their_own(draw):
    seeds = [make_run(seed=seed, records=12, status="diverged" if seed else "done") for seed in range(3)]
    assert not drawn(draw, seeds).axes[0].collections


@pytest.mark.parametrize("draw", [sharpness_small_multiples, accuracy_small_multiples])
def test_settings_that_no_optimizer_shares_are_in_one_column(draw):
    runs = [make_run(limit=100, records=12), make_run("rmsprop", limit=200, records=12)]
    figure = drawn(draw, runs)
    assert len(figure.axes) == 2 and all(ax.lines for ax in figure.axes)
    assert {"gd, bn_cnn, 100 images", "rmsprop, bn_cnn, 200 images"} <= {*texts(figure)}


def test_accuracies_of_a_row_share_an_axis_that_shows_them_and_stars_stand_where_training_is_fitted():
    figure = drawn(accuracy_small_multiples)
    first, second, third, _ = figure.axes
    assert first.get_ylim() == second.get_ylim() != third.get_ylim()
    for ax in (first, second, third):
        low, high = ax.get_ylim()
        values = np.concatenate([line.get_ydata()[2:] for line in ax.lines if len(line.get_xdata()) == 12])
        assert low <= values.min() and values.max() <= high <= 101
    stars = [line for line in figure.axes[0].lines if line.get_marker() == "*"]
    row = study_table.run_rows(RUNS[:1]).iloc[0]
    assert (stars[0].get_xdata()[0], stars[0].get_ydata()[0]) == (
        row["fit_step"],
        100 * row["test_accuracy_at_fit"],
    )


@pytest.mark.parametrize("draw", [sharpness_small_multiples, accuracy_small_multiples])
def test_runs_without_records_or_with_strange_names_are_drawn(draw):
    runs = [make_run(records=0, status="running"), make_run(model="$x$<script>", records=1)]
    assert "$x$<script>" in texts(drawn(draw, runs))
