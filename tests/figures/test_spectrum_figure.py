import numpy as np
import pytest

from optim_family.curvature.gauss_quadrature import SpectralDensity
from optim_family.errors import UsageError
from optim_family.figures.spectrum_figure import draw_batches, draw_density, draw_layers, figure
from optim_family.figures.style import save

NODES, WEIGHTS = [[-2.0, 0.0, 5.0, 40.0], [-1.0, 0.1, 4.0, 41.0]], [[0.1, 0.7, 0.19, 0.01]] * 2


def reading(value, threshold=50.0):
    return {"value": value, "threshold": threshold, "error": 0.01 * value}


def a_record(*absent, layers=3, batches=8, threshold=50.0):
    density = SpectralDensity(np.array(NODES), np.array(WEIGHTS), dim=100, products=8, seconds=1.0)
    quotients = [30.0 + (7 * i) % 5 for i in range(batches)]
    record = {
        "view": "spherical-preconditioned",
        "reading": reading(41.0, threshold),
        "density": density.as_record(),
        "trace": {"value": 1234.4321, "standard_error": 56.789},
        "layers": {f"stage{i}.conv.weight": reading(10.0 + i) for i in range(layers)},
        "batch_sharpness": {
            "value": 32.0,
            "error": 1.0 if batches > 1 else None,
            "confidence": 0.95,
            "quotients": quotients,
        },
    }
    return {name: value for name, value in record.items() if name not in absent}


def titles(drawn):
    return [ax.get_title("left") for ax in drawn.axes]


def key(drawn):
    return [text.get_text() for text in drawn.legends[0].get_texts()]


def verticals(ax):
    return [
        line.get_xdata()[0]
        for line in ax.lines
        if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2
    ]


DENSITY, LAYERS, BATCHES = (
    "Density of all 100 eigenvalues",
    "Each layer by itself",
    "Each mini-batch along its gradient",
)


@pytest.mark.parametrize(
    ("absent", "panels"),
    [
        ((), [DENSITY, LAYERS, BATCHES]),
        (("trace",), [DENSITY, LAYERS, BATCHES]),
        (("layers",), [DENSITY, BATCHES]),
        (("density", "batch_sharpness"), [LAYERS]),
        (("layers", "batch_sharpness"), [DENSITY]),
    ],
)
def test_what_was_measured_is_drawn_each_with_the_sharpness_and_the_threshold(absent, panels):
    drawn = figure(a_record(*absent))
    assert titles(drawn) == panels
    assert all({41.0, 50.0} <= set(verticals(ax)) for ax in drawn.axes)
    rest = [] if "batch_sharpness" in absent else ["batch sharpness 32"]
    assert sorted(key(drawn)) == sorted(["λ₁ 41", "threshold 50", *rest])


def test_a_view_without_threshold_shows_none():
    drawn = figure(a_record(threshold=None))
    assert sorted(key(drawn)) == ["batch sharpness 32", "λ₁ 41"]
    assert all(50.0 not in verticals(ax) for ax in drawn.axes)


def test_nothing_measured_is_refused():
    with pytest.raises(UsageError, match="nothing to draw"):
        figure(a_record("density", "layers", "batch_sharpness"))


def test_the_heading_says_what_and_in_which_view():
    texts = [text.get_text() for text in figure(a_record(), title="gd", subtitle="step 7").texts]
    assert texts == ["gd", "step 7, spherical preconditioned view"]
    assert figure(a_record()).texts[1].get_text() == "spherical preconditioned view"


def test_the_curve_is_the_density_and_a_lone_eigenvalue_has_its_own_height(ax):
    record = a_record()
    draw_density(ax, record)
    density = SpectralDensity.from_record(record["density"])
    curve = max(ax.lines, key=lambda line: len(line.get_xdata()))
    np.testing.assert_allclose(curve.get_ydata(), density.at(curve.get_xdata())[0], rtol=1e-12)
    assert np.trapezoid(curve.get_ydata(), curve.get_xdata()) == pytest.approx(1, abs=1e-3)
    (level,) = {line.get_ydata()[0] for line in ax.lines if list(line.get_xdata()) == [0, 1]}
    one = SpectralDensity(np.array([[3.0]]), np.array([[1.0]]), dim=1, products=1, seconds=0.0)
    assert level == pytest.approx(float(one.at(np.array([3.0]), density.width)[0][0]) / 100)
    assert ax.get_yscale() == "log" and ax.get_ylim()[0] < level
    assert ax.get_title("right") == "trace 1234 ± 57, width 0.43, 2 directions"


def test_one_direction_has_a_curve_and_no_band():
    record = a_record("trace")
    record["density"] |= {"nodes": NODES[:1], "weights": WEIGHTS[:1]}
    drawn = figure(record)
    assert drawn.axes[0].get_title("right") == "width 0.42, 1 direction"
    drawn.draw_without_rendering()


@pytest.mark.parametrize("count", [1, 3, 40])
def test_layers_stand_in_their_order_and_make_the_room_that_they_need(ax, count):
    record = a_record(layers=count)
    draw_layers(ax, record)
    assert [bar.get_width() for bar in ax.patches] == [10.0 + i for i in range(count)]
    assert [text.get_text() for text in ax.get_yticklabels()] == list(record["layers"])
    assert ax.yaxis_inverted()
    height, few = figure(record).get_figheight(), figure(a_record()).get_figheight()
    assert height > few if count == 40 else height == few


def test_mini_batches_are_sorted_with_their_mean_and_its_interval(ax):
    record = a_record()
    draw_batches(ax, record)
    (dots,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert list(dots.get_xdata()) == sorted(record["batch_sharpness"]["quotients"])
    assert 32.0 in verticals(ax)
    (band,) = ax.patches
    assert (band.get_x(), band.get_width()) == (31.0, 2.0)
    assert ax.get_title("right") == "band: 95 % confidence"


def test_a_single_batch_has_no_interval(ax):
    draw_batches(ax, a_record(batches=1))
    assert not ax.patches and ax.get_title("right") == ""
    assert [tick for tick in ax.get_yticks() if ax.get_ylim()[0] <= tick <= ax.get_ylim()[1]] == [1]


def test_the_files_are_the_same_bytes_every_time(tmp_path):
    pairs = [
        save(figure(a_record("density", "layers")), tmp_path / folder)
        for folder in "ab"
        if not (tmp_path / folder).mkdir()
    ]
    for first, second in zip(*pairs, strict=True):
        assert first.read_bytes() == second.read_bytes()
