"""The scene of the picture: what is hidden, and that the path does what the picture says."""

import math

import numpy as np
import pytest
import torch

from optim_family.theory.sphere import SETTLED, Camera
from optim_family.theory.trajectory import midpoints

CAMERA = Camera(longitude=0.7, elevation=0.4)


def test_the_camera_turns_and_does_not_stretch():
    assert np.allclose(CAMERA.axes @ CAMERA.axes.T, np.eye(3), atol=1e-15)
    assert np.linalg.det(CAMERA.axes) == pytest.approx(1)


def test_what_faces_the_viewer_is_seen_and_what_lies_behind_is_not():
    toward = torch.from_numpy(CAMERA.axes[2])
    seen = CAMERA.visible(
        torch.stack([toward, -toward, torch.from_numpy(CAMERA.axes[0] + 0.1 * CAMERA.axes[2])])
    )
    assert np.allclose(seen[0], 0, atol=1e-15)
    assert np.isnan(seen[1]).all()
    assert np.allclose(seen[2], [1, 0], atol=1e-15)


def test_up_is_up():
    assert (
        CAMERA.visible(torch.tensor([[math.cos(0.7), math.sin(0.7), 0.0], [0, 0, 1]]).double())[:, 1].argmax()
        == 1
    )


def test_a_pixel_shows_the_point_that_is_drawn_there():
    points, depth = CAMERA.disc(21)
    inside = np.isfinite(depth) & (depth > 1e-6)
    assert np.isnan(points[0, 0]).all() and inside[10, 10]
    drawn = CAMERA.visible(torch.from_numpy(points[inside]))
    across = np.linspace(-1, 1, 21)
    assert np.allclose(drawn[:, 0], np.broadcast_to(across, (21, 21))[inside], atol=1e-12)
    assert np.allclose(drawn[:, 1], np.broadcast_to(across[:, None], (21, 21))[inside], atol=1e-12)
    assert np.allclose(np.linalg.norm(points[inside], axis=1), 1, atol=1e-12)


def test_the_path_begins_high_ends_flat_and_oscillates_from_side_to_side(scene):
    losses = scene.trajectory.losses
    assert float(losses[0]) > 50 * float(losses[SETTLED:].median())
    assert float(scene.sharpness[-1]) < 0.25 * float(scene.sharpness[SETTLED])
    x, y, z = scene.trajectory.directions[SETTLED:].unbind(1)
    side = torch.sign(z - scene.toy.bend * x * y)
    assert torch.equal(side[1:], -side[:-1])


def test_the_flow_runs_through_the_middle_of_the_path(scene):
    """Within the amplitude a ≈ √(2ηλ/(4 + q)) of the iterates, and much nearer to their midpoints."""
    amplitude = math.sqrt(2 * scene.trajectory.eta_lambda / 4)
    middle = midpoints(scene.trajectory.directions)[SETTLED - 1 :]
    distance = (middle - scene.flow.points[:-1]).norm(dim=1)
    assert float(distance.max()) < amplitude
    assert torch.allclose(scene.flow.tau, scene.trajectory.tau[SETTLED:])


def test_nothing_of_the_flow_is_hidden(scene):
    assert np.isfinite(Camera().visible(scene.flow.points)).all()
    assert np.isfinite(Camera().visible(scene.trajectory.directions)).all()
