import matplotlib.text
import pytest

from optim_family.analysis import study_table
from optim_family.figures import study_figure
from optim_family.figures.study_figure import accuracy_small_multiples, sharpness_small_multiples
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
    ("draw", "drawn_lines"), [(sharpness_small_multiples, 6), (accuracy_small_multiples, 3)]
)
@pytest.mark.parametrize("crowd", [2, 3])
def test_a_crowd_has_no_markers(draw, drawn_lines, crowd, monkeypatch):
    monkeypatch.setattr(study_figure, "CROWD", crowd)
    (ax,) = drawn(draw, [make_run(seed=seed, records=12) for seed in range(3)]).axes
    lines = [line for line in ax.lines if len(line.get_xdata()) == 12]
    assert len(lines) == drawn_lines
    assert any(line.get_marker() for line in lines) == (crowd == 3)


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


def test_accuracies_share_their_axis_and_stars_stand_where_training_is_fitted():
    figure = drawn(accuracy_small_multiples)
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
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
