import functools
import os
import subprocess
import sys

import matplotlib
import pytest

from optim_family.analysis.seed_medians import seed_medians
from optim_family.errors import CorruptError, UsageError
from optim_family.figures.run_figure import TAU_LABEL, figure
from optim_family.figures.style import save
from tests.helpers.fake_runs import in_norm, make_run, with_along, with_batches


def edited(run, **changes):
    """The run with some quantities of every record replaced; a function gets the old value."""
    for record in run.records:
        for name, change in changes.items():
            record[name] = change(record[name]) if callable(change) else change
    return run


def exploding():
    """Diverged with enormous numbers, and the last record that divergence leaves."""
    run = make_run(records=12, status="diverged")
    for power, record in enumerate(run.records[-3:], 1):
        record["train_loss"] = 10.0 ** (12 * power)
        record["views"]["spherical"]["value"] *= 1e4**power
        record["views"]["spherical"]["ratio"] *= 1e4**power
    run.records.append({"step": 120, "tau": 0.12, "train_loss": None, "views": {}, "elapsed": 1.0})
    return run


def negative():
    run = make_run(records=12)
    for record in run.records[:4]:
        reading = record["views"]["spherical"]
        reading |= {"value": -reading["value"], "ratio": -reading["ratio"]}
    return run


NULL = dict.fromkeys(
    "tau train_loss peak_loss train_accuracy test_accuracy weight_norm gradient_norm effective_lr lr".split()
)
RUNS = {
    "ordinary": [make_run(records=40)],
    "adaptive": [make_run("rmsprop", records=40)],
    "seven records": [make_run("rmsprop", records=7)],
    "one record": [make_run(records=1)],
    "no record": [make_run(records=0, status="running")],
    "all null": [edited(make_run(records=5), **NULL, views=lambda views: dict.fromkeys(views))],
    "zero loss": [edited(make_run(records=5), train_loss=0.0, peak_loss=0.0)],
    "diverged": [exploding()],
    "negative": [negative()],
    "all negative": [
        edited(negative(), views=lambda v: {"spherical": v["spherical"] | {"value": -1, "ratio": -1}})
    ],
    "no decay": [make_run(hyper={"weight_decay": 0.0}, records=9)],
    "everything": [exploding(), negative(), make_run("rmsprop", records=3), make_run(records=0, path="b")],
    "along": [with_along(with_batches(make_run(records=20)))],
    "along several": [with_along(make_run(records=20)), with_along(in_norm(make_run(records=20, path="b")))],
    "twelve": [make_run(hyper={"lr": 0.01 * (1 + i)}, records=8) for i in range(12)],
}


def every_text(drawn):
    return [text.get_text() for text in drawn.findobj(matplotlib.text.Text) if text.get_text()]


@functools.cache
def drawing(kind):
    drawn = figure(RUNS[kind])
    drawn.draw_without_rendering()
    return drawn


@pytest.mark.parametrize("kind", RUNS)
def test_every_kind_of_run_is_drawn_without_a_warning(kind):
    drawn = drawing(kind)
    titles = [ax.get_title("left") for ax in drawn.axes if ax.get_title("left")]
    assert titles[:2] == ["Training loss", "Accuracy, %"] and len(titles) == (6 if "along" in kind else 4)


def test_a_figure_needs_a_run():
    with pytest.raises(UsageError, match="name at least one run directory"):
        figure([])


def test_the_heading_names_optimizer_hyper_parameters_and_setting():
    texts = every_text(figure([make_run("rmsprop", records=4, status="stopped")]))
    assert "rmsprop  lr 0.01, wd 0.05, β₂ 0.99" in texts
    (setting,) = [text for text in texts if text.startswith("bn_cnn, digits")]
    assert setting.endswith("preconditioning scale-invariant, stopped")
    assert "mine" in every_text(figure([make_run(records=4)], title="mine"))


@pytest.mark.parametrize("width", [None, 3.25])
def test_a_long_heading_fits_the_sheet(width):
    long = "vgg11_narrow, no normalisation, 2000 images: optimizers, median and range of 3 seeds, more, "
    drawn = figure([make_run(records=4)], title=2 * long, width=width)
    ends = [text.get_window_extent(drawn._get_renderer()).x1 for text in drawn.texts]
    assert all(end <= drawn.bbox.x1 for end in ends)
    sizes = {text.get_fontsize() for text in figure([make_run(records=4)], title="mine").texts}
    assert max(sizes) == 12  # a short one keeps its size


def test_dollars_in_a_name_are_not_mathematics():
    drawn = figure([make_run(records=3, data="npz:$x_{.npz"), make_run(records=3, data="npz:$y.npz")])
    drawn.draw_without_rendering()
    assert any(r"\$x_{.npz" in text for text in every_text(drawn))


def test_several_runs_are_named_under_the_panels():
    drawn = drawing("twelve")
    (legend,) = drawn.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [
        f"gd  lr {lr}, wd 0.005" for lr in (*(f"0.0{i}" for i in range(1, 10)), "0.1", "0.11", "0.12")
    ]
    assert drawing("ordinary").legends == []


def boxes(drawn):
    """Everything that must not overlap, in pixels: panels with their labels, headings, the legend."""
    renderer = drawn._get_renderer()
    return [artist.get_tightbbox(renderer) for artist in (*drawn.axes, *drawn.texts, *drawn.legends)]


@pytest.mark.parametrize("kind", RUNS)
def test_nothing_overlaps_and_nothing_leaves_the_sheet(kind):
    drawn = drawing(kind)
    rectangles = boxes(drawn)
    assert all(drawn.bbox.padded(1).fully_contains(*box.min) for box in rectangles)
    assert all(drawn.bbox.padded(1).fully_contains(*box.max) for box in rectangles)
    overlapping = [
        (a, b)
        for i, a in enumerate(rectangles)
        for b in rectangles[:i]
        if a.padded(-1).overlaps(b.padded(-1))
    ]
    assert not overlapping


def test_tau_is_shown_only_where_it_is_one_multiple_of_the_step():
    def shows_tau(*runs):
        return TAU_LABEL in every_text(figure(runs))

    assert TAU_LABEL in every_text(drawing("ordinary"))
    assert TAU_LABEL not in every_text(drawing("no decay"))
    assert shows_tau(make_run(records=4), make_run(records=4, seed=1))
    assert not shows_tau(make_run(records=4), make_run("rmsprop", records=4))
    assert not shows_tau(edited(make_run(records=4), tau=lambda tau: tau**2))


SAYS = {
    "edge": "threshold 2/ℓ",
    "drift": "steepest drift from the edge, $e^{-2τ}$",
    "loss": "mean at the edge, at most S ηλ / 4 with S = 2/ℓ",
    "tau": TAU_LABEL,
}


@pytest.mark.parametrize("chosen", [(), *((name,) for name in SAYS), tuple(SAYS)], ids=str)
def test_an_overlay_is_drawn_where_it_is_chosen_and_says_in_a_line_what_it_is(chosen):
    for runs in ([make_run()], [make_run(), make_run(seed=1)]):
        texts = set(every_text(figure(runs, overlays=chosen)))
        assert {name for name, words in SAYS.items() if words in texts} == set(chosen)


def test_saved_figures_are_the_same_bytes_every_time(tmp_path):
    runs = [make_run("rmsprop", records=7)]
    drawn, again = figure(runs), figure(runs)
    first, second = save(drawn, tmp_path), save(drawn, tmp_path, stem="second")
    assert first == [tmp_path / "figure.svg", tmp_path / "figure.png"]
    third = save(again, tmp_path, stem="third")
    assert (
        [p.read_bytes() for p in first] == [p.read_bytes() for p in second] == [p.read_bytes() for p in third]
    )
    assert b"<dc:date>" not in first[0].read_bytes()
    assert len(os.listdir(tmp_path)) == 6


def test_the_look_does_not_depend_on_the_users_settings():
    ordinary = figure([make_run(records=3)])
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30}):
        odd = figure([make_run(records=3)])
        assert matplotlib.rcParams["font.size"] == 30
    assert odd.axes[0].get_facecolor() == ordinary.axes[0].get_facecolor()
    assert odd.axes[0].title.get_fontsize() == ordinary.axes[0].title.get_fontsize()


def test_a_folder_that_is_not_there_is_said_in_one_line(tmp_path):
    with pytest.raises(CorruptError, match="could not be written"):
        save(drawing("one record"), tmp_path / "missing")


def test_drawing_needs_neither_torch_nor_a_display():
    heavy = "{'torch', 'pandas', 'matplotlib.pyplot'}"
    code = f"import sys, optim_family.figures.run_figure; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_panels_are_those_that_are_wanted_and_fit_the_width():
    drawn = figure(RUNS["ordinary"], panels=["ratio", "spherical", "loss"], width=3.25)
    drawn.draw_without_rendering()
    titles = [ax.get_title("left") for ax in drawn.axes if ax.get_title("left")]
    assert titles == ["Sharpness / threshold", "Spherical sharpness, loss", "Training loss"]
    assert drawn.get_figwidth() == 3.25 and len({ax.get_position().x0 for ax in drawn.axes}) == 1
    assert "bn_cnn" not in " ".join(every_text(drawn))


@pytest.mark.parametrize("width", [3.25, 6.75])
def test_nothing_overlaps_in_a_narrow_figure(width):
    drawn = figure(RUNS["twelve"][:3], width=width)
    drawn.draw_without_rendering()
    rectangles = boxes(drawn)
    assert all(not a.overlaps(b) for i, a in enumerate(rectangles) for b in rectangles[i + 1 :])
    sheet = drawn.bbox
    assert all(box.x0 >= -1 and box.x1 <= sheet.x1 + 1 and box.y0 >= -1 for box in rectangles)


def test_a_panel_says_how_many_runs_it_lacks():
    without = make_run(records=9, path="b", seed=1)
    for record in without.records:
        record["views"] = {"raw": record["views"]["spherical"]}
    texts = every_text(figure([make_run(records=9), without], panels=["spherical"]))
    assert "1 of 2 have none" in texts


def test_step_zero_counts_only_if_wanted():
    run = make_run(records=12)
    run.records[0]["views"]["spherical"]["value"] *= 1e5
    tops = [
        figure([run], panels=["sharpness"], with_start=wanted).axes[0].get_ylim()[1]
        for wanted in (False, True)
    ]
    assert tops[0] < run.records[0]["views"]["spherical"]["value"] < tops[1]


def test_a_median_has_a_band():
    group = seed_medians([make_run(seed=seed, records=9) for seed in range(3)])[0]
    bands = [
        sum(len(ax.collections) for ax in figure([group.median], ends=[ends]).axes)
        for ends in (group.ends, None)
    ]
    assert bands[0] == bands[1] + 2  # loss and accuracy; the readings have a band in any case
