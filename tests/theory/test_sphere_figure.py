"""The figure and the film are made of the scene, the same bytes every time."""

import io

import numpy as np
import pytest
from PIL import Image

from optim_family.figures import style
from optim_family.theory import sphere_figure
from optim_family.theory.sphere import SETTLED
from optim_family.theory.sphere_figure import AnimatedLine


@pytest.fixture(scope="module")
def film(scene):
    return Image.open(io.BytesIO(sphere_figure.film(scene)))


def pixels(film, frame):
    film.seek(frame)
    return np.asarray(film.convert("RGB")).astype(int)


def test_the_figure_is_the_same_bytes_every_time(scene, tmp_path):
    first, again = (style.save(sphere_figure.figure(scene), tmp_path, stem) for stem in ("a", "b"))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]


def test_the_figure_shows_the_path_the_flow_and_both_curves(scene):
    sphere, sharpness, loss = sphere_figure.figure(scene).axes
    path, flow = sphere.get_lines()[1:3]
    assert len(path.get_xdata()) == len(scene.trajectory.tau)
    assert len(flow.get_xdata()) == len(scene.flow.tau)
    assert flow.get_zorder() >= path.get_zorder()
    words = [text.get_text() for text in sphere.texts]
    assert sorted(words) == ["flat", "sharp", "start"]
    for ax in (sharpness, loss):
        assert ax.get_yscale() == "log" and ax.get_legend()
    assert np.array_equal(loss.get_lines()[1].get_ydata(), scene.trajectory.losses)


def test_the_film_has_a_frame_a_step_and_lasts_at_the_end(film, scene):
    assert film.n_frames == len(scene.trajectory.tau)
    durations = []
    for frame in range(film.n_frames):
        film.seek(frame)
        durations.append(film.info["duration"])
    assert durations[0] == sphere_figure.SLOW and durations[-1] == sphere_figure.REST
    assert set(durations[sphere_figure.SLOW_FRAMES : -1]) == {sphere_figure.FAST}


def test_the_path_grows_from_frame_to_frame(film):
    """Dark pixels on the sphere: only the dot moves away, what was drawn stays."""
    dark = [
        int((pixels(film, frame)[:, : film.width // 2].sum(axis=2) < 200).sum()) for frame in (5, 40, 90, 170)
    ]
    assert dark == sorted(dark) and dark[-1] > 1.5 * dark[0]


def test_a_growing_line_shows_its_past_only():
    points = np.arange(10.0).reshape(5, 2)
    abscissae = []

    class Line:
        def set_data(self, x, y):
            abscissae.append(list(x))

    for step in (0, 1, 2, 99):
        AnimatedLine(Line(), points, begin=1).show(step)
    AnimatedLine(Line(), points, begin=1, tail=0).show(3)
    assert abscissae == [[], [0.0], [0.0, 2.0], [0.0, 2.0, 4.0, 6.0, 8.0], [4.0]]
    assert SETTLED > 0
