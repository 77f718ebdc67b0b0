import pytest
from matplotlib.figure import Figure

from optim_family.figures.along_panels import draw_along, draw_rotation
from optim_family.figures.curves import Curve
from optim_family.figures.overlays import mean_loss, steepest_drift
from optim_family.figures.panels import (
    _of_view,
    draw_accuracy,
    draw_loss,
    draw_ratio,
    draw_sharpness,
    sharpness_groups,
)
from optim_family.sharpness.views import VARIANTS, VIEWS
from tests.helpers.fake_runs import in_norm, make_run, with_along, with_batches


def curves(*runs):
    return [Curve(run, f"run {i}", i) for i, run in enumerate(runs)]


def without(run, *absent, instead="raw"):
    """The run with spherical views marked as not applicable, and others in their place."""
    for record in run.records:
        for view in absent:
            record["views"][view.replace("spherical-", "").replace("spherical", instead)] = record["views"][
                view
            ]
            record["views"][view] = None
    return run


def titles(*runs):
    groups = sharpness_groups(curves(*runs))
    axes = [Figure().add_subplot() for _ in groups]
    draw_sharpness(axes, groups, curves(*runs))
    return axes[0].get_title("left"), [[curve.view for curve in group] for group in groups]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_loss_panel_has_peaks_and_names_what_it_shows(ax):
    draw_loss(ax, curves(make_run(), make_run("rmsprop", status="diverged")))
    assert ax.get_yscale() == "log"
    assert legend(ax) == ["at the record", "peak since the previous record", "diverged"]


def test_accuracies_are_percent_with_a_star_at_the_fit(ax):
    run = make_run(records=20)
    draw_accuracy(ax, curves(run))
    (star,) = [line for line in ax.lines if line.get_marker() == "*"]
    first = next(record["step"] for record in run.records if record["train_accuracy"] == 1)
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (first, 100)
    low, high = ax.get_ylim()
    assert low < 100 * run.records[0]["test_accuracy"] and high > 100


def test_a_run_that_is_never_fitted_has_no_star(ax):
    run = make_run(records=20)
    for record in run.records:
        record["train_accuracy"] = 0.99
    draw_accuracy(ax, curves(run))
    assert not [line for line in ax.lines if line.get_marker() == "*"]


def test_the_sharpness_panel_shows_the_views_that_there_are():
    assert titles(make_run()) == ("Spherical sharpness, loss", [["spherical"]])
    assert titles(make_run("rmsprop")) == (
        "Spherical and spherical preconditioned sharpness",
        [["spherical"], ["spherical-preconditioned"]],
    )
    assert titles(make_run(records=0)) == ("Sharpness: no readings", [[]])


def test_a_view_that_does_not_apply_is_said_in_the_title():
    raw = without(make_run(norm="none"), "spherical")
    assert titles(raw) == ("Raw sharpness, loss / weight² (spherical does not apply)", [["raw"]])
    both = without(make_run("rmsprop"), "spherical", "spherical-preconditioned")
    assert titles(both)[0] == "Raw and preconditioned sharpness (spherical does not apply)"
    assert titles(make_run(), raw)[0] == titles(raw, make_run())[0]
    assert titles(make_run(), raw) == (
        "Spherical sharpness; raw where that is missing",
        [["spherical", "raw"]],
    )


def test_several_runs_are_compared_in_a_view_that_all_have():
    mixed = make_run()
    for record in mixed.records:
        record["views"]["raw"] = record["views"]["spherical"]
    raw = without(make_run(norm="none"), "spherical")
    assert titles(mixed, raw) == (
        "Raw sharpness, loss / weight² (spherical does not apply)",
        [["raw", "raw"]],
    )
    assert titles(make_run(), make_run("rmsprop")) == (
        "Spherical sharpness, loss",
        [["spherical", "spherical"]],
    )


def test_the_threshold_is_called_2_over_l_only_where_it_is(ax):
    run = make_run()
    draw_sharpness([ax], sharpness_groups(curves(run)), curves(run))
    assert legend(ax)[:2] == ["spherical", "threshold 2/ℓ"]
    run = make_run()
    for record in run.records:
        record["views"]["spherical"]["threshold"] *= 1.9
    other = Figure().add_subplot()
    draw_sharpness([other], sharpness_groups(curves(run)), curves(run))
    assert legend(other)[:2] == ["spherical", "threshold"]


def test_predictions_are_drawn_from_the_edge_on_and_leave_the_axis_as_it_is():
    run = make_run()
    ranges = []
    for overlays in ((), ("loss",)):
        ax = Figure().add_subplot()
        draw_loss(ax, curves(run), overlays)
        ranges.append(ax.get_ylim())
    assert ranges[0] == ranges[1]
    assert [tuple(point) for point in ax.lines[-1].get_xydata()] == list(map(tuple, mean_loss(run).T))
    drawn = []
    for overlays in (("edge",), ("edge", "drift")):
        ax = Figure().add_subplot()
        draw_sharpness([ax], sharpness_groups(curves(run)), curves(run), overlays)
        drawn.append((ax.get_ylim(), len(ax.lines)))
    assert drawn[1] == (drawn[0][0], drawn[0][1] + 1)
    assert [tuple(point) for point in ax.lines[-1].get_xydata()] == list(map(tuple, steepest_drift(run).T))


def test_without_the_edge_there_is_no_threshold(ax):
    run = make_run()
    draw_sharpness([ax], sharpness_groups(curves(run)), curves(run), ())
    assert legend(ax)[0] == "spherical" and not [name for name in legend(ax) if "threshold" in name]
    assert not [line for line in ax.lines if line.get_linestyle() == ":"]


def test_ratios_of_a_single_run_show_each_kind_of_view_once(ax):
    run = make_run("rmsprop")
    for record in run.records:
        reading = record["views"]["spherical-preconditioned"]
        record["views"] |= {"preconditioned": reading, "riemannian": reading}
    draw_ratio(ax, curves(run))
    assert legend(ax) == ["spherical preconditioned and preconditioned", "riemannian"]


def beside(run):
    """The run with readings at the midpoint, a little lower, and of the mini-batches."""
    for record in run.records[1:]:
        for view, reading in list(record["views"].items()):
            lower = {key: 0.9 * reading[key] for key in ("value", "ratio") if reading[key] is not None}
            record["views"][f"{view}-midpoint"] = reading | lower
            batch = {"error": 0.1 * reading["value"], "standard_error": 0.04, "quotients": [1.0, 2.0]}
            numbers = {key: reading[key] for key in ("value", "threshold", "ratio", "products", "seconds")}
            record["views"][f"{view}-batch"] = numbers | batch
    return run


def test_midpoint_and_batches_stand_beside_their_view_with_one_threshold(ax):
    run = beside(make_run())
    title, groups = titles(run)
    assert (title, groups) == (
        "Spherical sharpness, loss",
        [["spherical", "spherical-midpoint", "spherical-batch"]],
    )
    draw_sharpness([ax], sharpness_groups(curves(run)), curves(run))
    labels = ["spherical", "spherical, midpoint", "spherical, batch", "threshold 2/ℓ"]
    assert legend(ax)[:4] == labels
    assert len([line for line in ax.lines if line.get_linestyle() == ":"]) == 1


def test_ratios_at_the_midpoint_and_of_batches_have_curves_and_looks_of_their_own(ax):
    run = beside(make_run("rmsprop"))
    draw_ratio(ax, curves(run))
    assert legend(ax) == [
        *("spherical preconditioned", "spherical preconditioned, midpoint"),
        "spherical preconditioned, batch",
    ]
    views = [view for view in run.records[-1]["views"] if view.startswith("spherical")]
    view_curves = [curve for group in sharpness_groups(curves(run)) for curve in group]
    assert {curve.view for curve in view_curves} == set(views) and len(views) == 6
    assert len({curve.color for curve in view_curves}) == len({c.style["marker"] for c in view_curves}) == 6
    names = [f"{view}{variant}" for view in VIEWS for variant in VARIANTS]
    looks = [_of_view(curves(run)[0], name).index for name in names]
    assert len(set(looks)) == len(names) == 18 and max(looks) < 280


def test_several_runs_are_compared_without_what_is_beside_their_views():
    assert titles(beside(make_run()), make_run("rmsprop")) == (
        "Spherical sharpness, loss",
        [["spherical", "spherical"]],
    )


def test_ratios_of_several_runs_are_each_in_its_own_metric(ax):
    adaptive = make_run("rmsprop")
    for record in adaptive.records:
        record["views"]["spherical"] |= {"threshold": 1.0, "ratio": 77.0}
    draw_ratio(ax, curves(make_run(), adaptive))
    assert not any(77 in line.get_ydata() for line in ax.lines)
    assert ax.get_title("left") == "Sharpness / threshold, each in its optimizer's metric"
    assert ax.get_legend() is None
    assert [text.get_text() for text in ax.texts] == ["edge of\nstability"]


@pytest.mark.parametrize(
    "factors, low, high",
    [
        ([1.0] * 20, 0.04, 3),
        ([1e-6] + [1.0] * 19, 0.05, 3),
        ([1.0] * 19 + [1e9], 0.04, 12),
        ([1e-4] * 20, 1e-6, 3),
        ([50.0] * 20, 0.04, 80),
    ],
)
def test_one_far_ratio_does_not_ruin_the_panel_but_a_far_run_is_seen(ax, factors, low, high):
    run = make_run(records=20)
    for record, factor in zip(run.records, factors, strict=True):
        record["views"]["spherical"]["ratio"] *= factor
    draw_ratio(ax, curves(run))
    bottom, top = ax.get_ylim()
    late = run.records[10]["views"]["spherical"]["ratio"]
    assert low <= bottom < min(0.5, late) and max(2, late) < top <= high


def test_the_edge_is_drawn_where_no_view_has_a_threshold(ax):
    run = make_run()
    for record in run.records:
        record["views"]["spherical"] |= {"threshold": None, "ratio": None}
    draw_ratio(ax, curves(run))
    assert ax.get_title("right") == "no view has a threshold"
    assert ax.get_ylim() == (0, 2)


def test_with_momentum_both_plateaus_of_mini_batches_are_drawn_and_named(ax):
    run = make_run(hyper={"momentum": 0.9})
    large, small = "2(1 + β)ρ²/η", "2(1 − β)ρ²/η"
    plateaus = [f"threshold: plateau of large batches, {large}", f"plateau of small batches, {small}"]
    for record in run.records:  # a threshold that is not 2/ℓ
        record["views"]["spherical"]["threshold"] *= 1.9
    with_batches(run)
    draw_sharpness([ax], sharpness_groups(curves(run)), curves(run))
    assert legend(ax)[2:4] == plateaus
    lows = [record["views"]["spherical"]["threshold"] * 0.1 / 1.9 for record in run.records]
    assert any(list(line.get_ydata()) == pytest.approx(lows) for line in ax.lines)


def test_the_ratio_has_the_plateau_of_small_batches_as_a_line(ax):
    run = with_batches(make_run(hyper={"momentum": 0.9}))
    draw_ratio(ax, curves(run))
    assert legend(ax)[-1] == "plateau of small batches, (1 − β)/(1 + β)"
    assert any(list(line.get_ydata()) == pytest.approx([1 / 19] * 60) for line in ax.lines)
    without_momentum = make_run("rmsprop")
    other = Figure().add_subplot()
    draw_ratio(other, curves(without_momentum))
    assert not [text for text in legend(other) if "small" in text]


def test_a_normalised_step_has_its_threshold_named_and_is_a_lower_bound(ax):
    run = in_norm(make_run())
    groups = sharpness_groups(curves(run))
    axes = [Figure().add_subplot() for _ in groups]
    draw_sharpness(axes, groups, curves(run))
    assert legend(axes[1])[:2] == ["generalized (lower bound)", "threshold (2 − ηλ)/η"]
    draw_ratio(ax, curves(run, make_run("rmsprop")))
    assert ax.get_title("left") == "Sharpness / threshold, own geometry; lower bounds in norms"


def test_along_the_update_a_single_run_shows_values_and_2_over_lr():
    run = with_along(make_run())
    axes = [Figure().add_subplot() for _ in range(2)]
    draw_along(axes, curves(run))
    assert legend(axes[0]) == ["curvature, loss / weight²", "directional smoothness, loss / weight²"]
    assert legend(axes[1]) == ["critical sharpness, 1 / learning rate", "2/η"]
    critical, limit = (line.get_ydata() for line in axes[1].lines[:2])
    assert list(critical)[:2] == [record["along"]["critical"] for record in (run.records[1], run.records[3])]
    assert list(limit) == pytest.approx([2 / 0.2] * 58)


def test_along_the_update_several_runs_show_their_ratio_and_say_how_many_have_none(ax):
    run = with_along(make_run())
    draw_along([ax], curves(run, make_run("rmsprop")))
    assert ax.get_title("left") == "Critical sharpness / (2/η), along the last update"
    assert ax.get_title("right") == "1 of 2 have none"
    ratios = [record["along"]["critical_ratio"] for record in run.records[1:]]
    assert list(ax.lines[0].get_ydata()) == [ratio for ratio in ratios if ratio]
    other = Figure().add_subplot()
    draw_rotation(other, curves(run))
    assert list(other.lines[0].get_ydata()) == [record["along"]["rotation"] for record in run.records[1:]]
    assert (other.lines[1].get_ydata() == 0.03).all() and other.lines[1].get_linestyle() == ":"
    assert [text.get_text() for text in other.get_legend().get_texts()] == ["in equilibrium"]


def test_ratios_along_the_updates_are_drawn_where_no_view_has_a_threshold(ax):
    run = with_along(in_norm(make_run(), threshold=False))
    draw_ratio(ax, curves(run))
    assert legend(ax) == ["critical sharpness / (2/η)", "directional smoothness / its limit"]
    assert ax.get_title("right") == "no view has a threshold"
