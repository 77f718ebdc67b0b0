import itertools
import math

import numpy as np
import pytest

from optim_family.figures.curves import (
    INTERVALS,
    Curve,
    downsample,
    legend,
    log_axis,
    mark_divergence,
    plot_curve,
    plot_reading,
)
from optim_family.figures.style import RING
from tests.helpers.fake_runs import make_run


def test_no_two_of_many_runs_look_alike():
    run = make_run(records=3)
    looks = [Curve(run, "", look).style for look in range(280)]
    seen = {(look["color"], str(look["linestyle"]), look["marker"]) for look in looks}
    assert len(seen) == 280
    neighbours = itertools.pairwise(looks)
    assert all(a["color"] != b["color"] and a["linestyle"] != b["linestyle"] for a, b in neighbours)


@pytest.mark.parametrize("records", [0, 1, 2, 7, 8, 9, 15, 16, 100])
def test_markers_lie_on_the_curve(records):
    for look in range(12):
        start, every = Curve(make_run(records=records), "", look).style["markevery"]
        assert 0 <= start < every <= max(1, records)


def test_points_leave_out_what_is_not_finite():
    run = make_run(records=4)
    run.records[1]["train_loss"] = None
    run.records[2]["views"]["spherical"]["error"] = None
    run.records[3]["views"] = {}
    assert list(Curve(run, "", 0).points("train_loss")[0]) == [0, 20, 30]
    assert list(Curve(run, "", 0, "spherical").points("value")[0]) == [0, 10, 20]
    assert list(Curve(run, "", 0, "spherical").points("value", "error")[0]) == [0, 10]


def test_few_points_are_all_drawn():
    points = np.random.default_rng(0).normal(size=(3, 6 * INTERVALS)).cumsum(1)
    assert downsample(points) is points
    assert downsample(np.empty((2, 0))).shape == (2, 0)


def test_of_many_points_all_extremes_and_ends_of_every_interval_are_drawn():
    dice = np.random.default_rng(0)
    x, y = np.sort(dice.integers(0, 50_000, 60_000)) ** 2 / 7, dice.normal(size=(2, 60_000)) ** 3
    y[0, [0, 12_345, -1]] = 1e6, -1e6, 0  # the only record of a spike
    few = downsample(np.array([x, *y]))
    assert few.shape[1] <= 6 * INTERVALS and set(zip(*few, strict=True)) <= set(zip(x, *y, strict=True))
    width = (x[-1] - x[0]) / INTERVALS
    interval = [np.minimum((steps - x[0]) // width, INTERVALS - 1) for steps in (x, few[0])]
    for number in np.unique(interval[0]):
        all_, kept = np.array([x, *y])[:, interval[0] == number], few[:, interval[1] == number]
        assert (all_[:, [0, -1]] == kept[:, [0, -1]]).all()
        assert (all_.min(1) == kept.min(1)).all() and (all_.max(1) == kept.max(1)).all()


def test_a_long_run_is_drawn_with_its_spike_its_band_and_its_markers(ax):
    run = make_run(records=50_000)
    run.records[31_234]["views"]["spherical"] |= {"value": 1e9, "error": 1e9, "converged": False}
    plot_reading(ax, Curve(run, "", 1, "spherical"), "value")
    line, rings = ax.lines
    assert len(line.get_xdata()) <= 4 * INTERVALS and line.get_ydata().max() == 1e9
    assert 6 <= len(line.get_xdata()) // line.get_markevery()[1] <= 9
    assert (312_340, 1e9) in [tuple(point) for point in rings.get_xydata()]
    assert ax.collections[0].get_paths()[0].vertices[:, 1].max() == 2e9


def test_a_line_has_its_points_in_its_scale(ax):
    run = make_run(records=5)
    plot_curve(ax, Curve(run, "", 1), "test_accuracy", scale=100)
    (line,) = ax.lines
    assert list(line.get_ydata()) == [100 * record["test_accuracy"] for record in run.records]
    assert line.get_color() == Curve(run, "", 1).color


def test_a_single_point_of_a_line_without_markers_is_visible(ax):
    plot_curve(ax, Curve(make_run(records=1), "", 0), "train_loss", marker="")
    assert ax.lines[0].get_marker() == "_"


def test_a_diverged_run_ends_in_a_cross_within_the_panel(ax):
    run = make_run(records=5, status="diverged")
    run.records[-1]["train_loss"] = 1e30
    ax.set_ylim(1e-3, 10)
    mark_divergence(ax, [Curve(run, "", 0), Curve(make_run(records=5), "", 1)], "train_loss")
    (mark,) = ax.lines
    assert (mark.get_xdata()[0], mark.get_ydata()[0], mark.get_marker()) == (40, 10, "X")


def test_a_band_shows_the_error_and_rings_what_did_not_converge(ax):
    run = make_run(records=4)
    for i, record in enumerate(run.records):
        record["views"]["spherical"] |= {"value": 100.0, "ratio": 0.5, "error": 10.0, "converged": i != 2}
    plot_reading(ax, Curve(run, "", 0, "spherical"), "ratio")
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (pytest.approx(0.45), pytest.approx(0.55))
    ring = ax.lines[-1]
    assert (list(ring.get_xdata()), ring.get_marker(), ring.get_markerfacecolor()) == (
        [20],
        RING["marker"],
        "none",
    )


def test_no_band_reaches_zero_or_infinity(ax):
    run = make_run(records=3)
    for record, error in zip(run.records, (1e3, 1e308, 0.0), strict=True):
        record["views"]["spherical"] |= {"value": 1e-3, "error": error}
    plot_reading(ax, Curve(run, "", 0, "spherical"), "ratio")
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert heights.min() > 0 and all(map(math.isfinite, heights))


def test_a_logarithmic_axis_holds_all_ordinary_values(ax):
    log_axis(ax, [[3.0, 400.0, 520.0, 380.0], [500.0, 510.0, 520.0, 530.0]])
    low, high = ax.get_ylim()
    assert ax.get_yscale() == "log" and low < 3 and high > 530
    assert ax.yaxis.get_major_formatter()(200.0) == "200"


def test_a_logarithmic_axis_cuts_an_explosion_off(ax):
    log_axis(ax, [[1.0] * 50 + [1e30], [0.5] * 50])
    assert 1000 < ax.get_ylim()[1] < 1e5


def test_a_logarithmic_axis_says_what_it_hides(ax):
    log_axis(ax, [[1.0, -2.0, 0.0, 5.0]])
    assert ax.get_yscale() == "log" and ax.get_title("right") == "2 values ≤ 0 not shown"


def test_an_axis_without_positive_values_stays_linear(ax):
    log_axis(ax, [[0.0, 0.0]])
    assert ax.get_yscale() == "linear" and ax.get_title("right") == "nothing above 0"


@pytest.mark.parametrize("values", [[1.0], [1e-300, 1e300], [5e-324], [1.7e308], [450.0, 451.0], [1e7, 2e7]])
def test_a_logarithmic_axis_bears_extreme_values(ax, values):
    log_axis(ax, [values])
    ax.figure.draw_without_rendering()
    assert ax.get_yscale() == "log"


@pytest.mark.parametrize(
    "span, value, text",
    [
        ((1e5, 5e5), 2e5, r"$2\times10^{5}$"),
        ((5e4, 5e5), 5e4, r"$5\times10^{4}$"),  # as the others on this axis
        ((5e4, 5e5), 1e5, r"$10^{5}$"),
        ((1e4, 9e4), 5e4, "50000"),
        ((0.1, 0.5), 0.5, "0.5"),
        ((1e-5, 1e-4), 2e-5, r"$2\times10^{-5}$"),
        ((0.1, 0.5), 0, "0"),
    ],
)
def test_ticks_are_short_numbers_written_in_one_way(ax, span, value, text):
    log_axis(ax, [span])
    assert ax.yaxis.get_major_formatter()(value) == text


def test_a_far_start_does_not_squeeze_the_rest_and_a_triangle_points_to_it(ax):
    values = [1e6, 40.0, 30.0, 25.0, 20.0, 18.0]
    ax.plot(range(6), values)
    log_axis(ax, [values], skip_first=True)
    assert ax.get_ylim()[1] < 100
    (triangle,) = ax.lines[1:]
    assert triangle.get_marker() == "^" and triangle.get_xdata().tolist() == [0]


def test_a_start_among_the_other_values_is_shown(ax):
    values = [50.0, 40.0, 30.0, 25.0, 20.0, 18.0]
    ax.plot(range(6), values)
    log_axis(ax, [values], skip_first=True)
    assert ax.get_ylim()[1] > 50 and len(ax.lines) == 1


def test_a_key_is_grey_unless_a_colour_is_given(ax):
    legend(ax, {"a": {}, "b": {"color": "red"}})
    colours = [handle.get_color() for handle in ax.get_legend().legend_handles]
    assert colours[1] == "red" and colours[0] != "red"


@pytest.mark.parametrize(
    "span, ticks",
    [
        ((0.5, 2.0), [0.5, 0.7, 1, 1.5, 2]),
        ((0.1, 10.0), [0.1, 0.2, 0.5, 1, 2, 5, 10]),
        ((400, 520), [400, 440, 480, 520]),
    ],
)
def test_a_short_logarithmic_axis_has_enough_round_numbers(ax, span, ticks):
    log_axis(ax, [span])
    low, high = ax.get_ylim()
    assert [t for t in ax.get_yticks() if low <= t <= high] == pytest.approx(ticks)
