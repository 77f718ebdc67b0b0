"""The page of the sphere: it shows the scene, turns and plays."""

import pytest
import torch

from optim_family.theory import sphere_page
from optim_family.theory.sphere import SETTLED
from tests.helpers.browser import browser


def test_the_data_are_those_of_the_scene(scene):
    data = sphere_page.data(scene)
    steps = len(scene.trajectory.tau)
    assert [len(data[name]) for name in ("path", "loss", "sharpness", "threshold")] == [steps] * 4
    assert len(data["flow"]) == len(data["flowSharpness"]) == steps - SETTLED
    assert len(data["valley"]) == len(data["colors"])
    for name in ("path", "flow", "valley"):
        assert torch.tensor(data[name]).norm(dim=1) == pytest.approx(1, abs=1e-5)
    assert data["sharpness"][5] == pytest.approx(float(scene.sharpness[4]), rel=1e-5)


def test_a_browser_turns_the_sphere_and_reads_out_a_step(scene, tmp_path):
    file = tmp_path / "sphere.html"
    file.write_text(sphere_page.page(scene), encoding="utf-8")
    with browser() as page:
        page.driver.get(file.as_uri())
        canvas = page.driver.find_element("id", "sphere")
        before = page.js("return [...sphere.view(), arguments[0].toDataURL()]", canvas)
        canvas.send_keys("\ue012")  # the left arrow
        after = page.js("return [...sphere.view(), arguments[0].toDataURL()]", canvas)
        assert after[0] == pytest.approx(before[0] + 0.1) and after[2] != before[2]
        form = "document.getElementById('sphere-controls')"
        page.js(f"{form}.elements.step.value = 70; {form}.dispatchEvent(new Event('input'))")
        text = page.js("return document.getElementById('readout').textContent")
        assert text.startswith("step 70,") and f"loss {float(scene.trajectory.losses[70]):.4g}" in text
        page.driver.find_element("id", "play").click()
        assert page.until(lambda: page.js(f"return Number({form}.elements.step.value) > 72"))
        assert page.messages() == [] and page.requests() == []


def test_the_loss_of_the_page_is_that_of_the_toy(scene, tmp_path):
    file = tmp_path / "sphere.html"
    file.write_text(sphere_page.page(scene), encoding="utf-8")
    points = torch.nn.functional.normalize(torch.randn(20, 3, dtype=torch.float64), dim=1)
    with browser() as page:
        page.driver.get(file.as_uri())
        values = page.js("return arguments[0].map((point) => sphere.loss(...point))", points.tolist())
    assert values == pytest.approx(scene.toy.loss(points).tolist())
