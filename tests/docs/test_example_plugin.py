"""The example distribution, built, and installed beside the wheel in a new environment."""

import json
import shutil
import sys
import venv

import pytest
import torch

from optim_family import registry, testing
from optim_family.runs.run import read_run
from tests.helpers import ROOT
from tests.helpers.cli_runner import optim_family
from tests.helpers.environments import borrow_libraries, call, copy_sources

PLUGIN = ROOT / "examples" / "plugin"
TINY = "--limit", "20", "--steps", "3", "--every", "1"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The bin folder of an environment with both; other libraries are borrowed from this one."""
    work = tmp_path_factory.mktemp("work")
    sources = copy_sources(work / "optim-family"), work / "plugin"
    shutil.copytree(PLUGIN, sources[1], ignore=shutil.ignore_patterns("__pycache__"))
    for folder in sources:
        call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", work, cwd=folder)
    venv.create(work / "venv", with_pip=False)
    python = work / "venv" / "bin" / "python"
    options = "--no-deps", "--no-index", "--disable-pip-version-check", "--quiet"
    call(sys.executable, "-m", "pip", "--python", python, "install", *options, *work.glob("*.whl"), cwd=work)
    (site,) = (work / "venv").glob("lib/python*/site-packages")
    borrow_libraries(site)
    return python.parent


@pytest.fixture
def installed(environment, tmp_path, monkeypatch):
    """The distribution on this process' path as well, so that not every test needs a new interpreter."""
    (site,) = environment.parent.glob("lib/python*/site-packages")
    for part in site.glob("example_optimizers*"):
        shutil.copytree(part, tmp_path / "site" / part.name)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "example_optimizers"]:
        del sys.modules[name]


def test_its_own_tests_pass(environment, tmp_path):
    shutil.copytree(PLUGIN / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    options = "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-k", "not (rescaling or sharp)"
    answer = call(
        environment / "python", "-m", "pytest", *options, "tests", cwd=tmp_path, OMP_NUM_THREADS="1"
    )
    assert " passed" in answer and "skipped" not in answer


def test_the_slow_checks_pass_too(installed):
    kron = registry.load("kron")
    testing.check_threshold_is_sharp(kron)  # raises AssertionError where it is not


def test_both_are_listed_with_their_distribution(environment, tmp_path):
    rows = json.loads(call(environment / "optim-family", "optimizers", "--json", cwd=tmp_path))
    mine = {row["name"]: row for row in rows if row["distribution"] == "example-optimizers"}
    assert mine.keys() == {"example-lion", "kron"}
    assert mine["example-lion"]["class"] == "example_optimizers.lion:Lion"
    assert mine["example-lion"]["version"] == "1.0"


def test_lion_runs_in_the_new_environment(environment, tmp_path):
    command = (
        "run",
        "--optimizer",
        "example-lion",
        *TINY,
        "--view",
        "spherical",
        "--out",
        tmp_path / "out",
        "--quiet",
    )
    call(environment / "optim-family", *command, cwd=tmp_path, OMP_NUM_THREADS="1")
    run = read_run(tmp_path / "out")
    expected = {"target": "example_optimizers.lion:Lion", "distribution": "example-optimizers 1.0"}
    assert run.provenance["optimizer"] == expected
    assert run.status["status"] == "done" and len(run.records) == 4
    for record in run.records:
        assert record["views"]["spherical"]["value"] > 0
        assert record["views"]["spherical"]["threshold"] is None


def test_its_hyper_parameters_are_options(installed, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    answer = optim_family(capsys, "run", "--optimizer", "example-lion", "--help").out
    assert "Hyper-parameters of example-lion" in answer
    assert "memory of the momentum β₂ (≥ 0, ≤ 1; default 0.99)" in answer


def test_a_metric_that_is_not_diagonal_is_measured(installed, capsys, tmp_path):
    optim_family(capsys, "run", "--optimizer", "kron", *TINY, "--out", str(tmp_path / "out"), "--quiet")
    for record in read_run(tmp_path / "out").records:
        assert record["views"]["spherical"]["threshold"] is None
        reading = record["views"]["spherical-preconditioned"]
        assert reading["ratio"] == pytest.approx(reading["value"] / reading["threshold"])


def test_lion_takes_the_same_path_at_every_curvature(installed):
    paths = []
    for h in (2.0**-6, 1.0, 2.0**6):
        w = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
        lion, path = registry.load("example-lion")([w], lr=0.01), []
        for _ in range(200):
            w.grad = h * w.detach()
            lion.step()
            path.append(w.item())
        paths.append(path)
    assert paths[0] == paths[1] == paths[2]


def test_kron_of_vectors_is_scalar_and_of_one_by_one_is_rmsprop(installed):
    """A matrix [1, 1] has L = R = ĝ²: P = (ĝ² + ε)^{1/2}."""
    w = torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
    kron = registry.load("kron")([w], damping=0.25)
    w.grad = torch.tensor([[3.0]], dtype=torch.float64)
    assert kron.geometry().metric.power(1.0).dense().item() == pytest.approx((36 + 0.25) ** 0.5)
    v = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    kron = registry.load("kron")([v], damping=1e-12)
    v.grad = torch.tensor([4.0, -3.0], dtype=torch.float64)  # ρ = 5, ĝ = (20, −15), ‖ĝ‖ = 25
    g = v.grad / 5
    assert g @ kron.geometry().metric.power(1.0).dense() @ g == pytest.approx(25.0)
