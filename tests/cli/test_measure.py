"""`optim-family measure`: the readings of weights from a file, as a table, as JSON and as a figure."""

import json
import re
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from optim_family.data import datasets
from optim_family.networks import build
from optim_family.runs.run import read_run
from optim_family.sharpness.measure import measure
from optim_family.training.objective import half_squared_error
from tests.helpers.cli_runner import optim_family, refusal

TINY = ["--model", "bn_mlp", "--limit", "40", "--device", "cpu"]


@pytest.fixture
def run(capsys):
    return lambda *args: optim_family(capsys, "measure", *args)


@pytest.fixture
def answered(run):
    def answer(*args):
        command = run(*TINY, "--json", *args)
        assert command.code == 0, command.err
        return json.loads(command.out)

    return answer


def network(seed=0):
    return build.build("bn_mlp", classes=10, channels=1, size=(8, 8), seed=seed, dtype=torch.float64)


def test_the_readings_are_those_of_the_library_at_the_weights_of_the_file(answered, tmp_path):
    model, digits = network(seed=5), datasets.load("digits", limit=40)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    x = digits.images(digits.x_train, torch.float64)
    record = answered(
        *["--weights", tmp_path / "w.safetensors", "--precision", "float64", "--rtol", "1e-8"],
        *["--ghost-batch", "20", "--view", "raw,spherical,riemannian"],
    )
    chunks = [(x[i : i + 20], digits.y_train[i : i + 20]) for i in (0, 20)]
    views = ("raw", "spherical", "riemannian")
    loss = partial(half_squared_error, classes=10)
    for name, reading in measure(model, loss, chunks, views=views, rtol=1e-8).items():
        assert record["views"][name]["value"] == pytest.approx(reading.value, rel=1e-7)
        assert record["views"][name]["threshold"] is None
    assert record["model"]["trained"] == 2 * 64 * 64 and "exactly" in record["model"]["verdict"]
    assert len(record["weights"]["sha256"]) == 64


def test_a_reading_that_has_no_sample_says_that_lanczos_took_it(run):
    for options, said in (
        (["--ghost-batch", "10"], True),
        (["--ghost-batch", "2", "--k", "5"], True),
        (["--ghost-batch", "2"], False),
    ):
        command = run(*TINY, "--reading", "sampled", *options)
        assert command.code == 0 and ("a sample needs at least 8 ghost batches" in command.err) == said


def test_the_checkpoint_of_a_run_reads_as_its_last_record(answered, capsys, tmp_path):
    out = tmp_path / "run"
    training = ["--optimizer", "gd", "--steps", "3", "--every", "3", "--rtol", "1e-4", "--out", out]
    assert optim_family(capsys, "run", *TINY, *training, "-q").code == 0
    record = read_run(out).records[-1]
    measured = answered("--weights", out / "checkpoints" / "step-00000003.safetensors", "--rtol", "1e-4")
    value = record["views"]["spherical"]["value"]
    assert measured["views"]["spherical"]["value"] == pytest.approx(value, rel=1e-3)
    for field in ("train_loss", "train_accuracy", "test_accuracy"):
        assert measured[field] == record[field]


def test_k_eigenvalues_are_told_and_the_hessian_multiplies_as_it_was_asked_to(answered):
    modes = {hvp: answered("--k", "3", "--hvp", hvp, "--view", "raw") for hvp in ("retained", "rebuilt")}
    assert {hvp: record["hvp"] for hvp, record in modes.items()} == {hvp: hvp for hvp in modes}
    retained, rebuilt = (record["views"]["raw"]["top"] for record in modes.values())
    assert retained == rebuilt == sorted(retained, reverse=True) and len(retained) == 3


def test_a_table_for_people_with_everything_that_was_asked_for(run, tmp_path):
    answer = run(*TINY, "--trace", "--layers", "1", "--density", "--out", tmp_path / "new")
    assert answer.code == 0
    columns = " +".join(["view", "sharpness", "error", "upper bound − value", "residual", "HVPs", "seconds"])
    assert re.search(f"^{columns}$", answer.out, re.M)
    assert re.search(r"^spherical +[\d.e+]+ ", answer.out, re.M)
    assert re.search(r"^trace, spherical: -?[\d.e+]+ ± ", answer.out, re.M)
    assert re.search(r"^hidden|^fc|^layer", answer.out, re.M)
    assert f"figure: {tmp_path}/new/spectrum.svg  {tmp_path}/new/spectrum.png" in answer.out
    assert "8,192 weights, exactly scale-invariant" in answer.err and "accuracy" in answer.err
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        *("measurement.json", "spectrum.svg", "spectrum.png")
    }
    assert set(json.loads((tmp_path / "new/measurement.json").read_text())["spectrum"]) == {
        *("view", "reading", "density", "trace", "layers")
    }


def test_layers_without_a_depth_are_the_tensors_and_each_is_less_sharp_than_the_whole(answered):
    spectrum = answered("--layers", "--trace")["spectrum"]
    assert spectrum["layers"] and all("." in name for name in spectrum["layers"])
    whole = spectrum["reading"]
    for layer in spectrum["layers"].values():
        assert layer["value"] <= whole["value"] + whole["error"]


def test_without_a_look_to_draw_there_is_no_figure(answered, tmp_path):
    assert answered("--trace", "--out", tmp_path)["figure"] == {}
    assert [path.name for path in tmp_path.iterdir()] == ["measurement.json"]


def test_without_normalisation_the_spherical_sharpness_does_not_apply(run):
    answer = run(*TINY, "--norm", "none", "--json")
    assert set(json.loads(answer.out)["views"]) == {"raw"}
    assert "spherical sharpness: not applicable" in answer.err


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (
            ["--weights", "nowhere"],
            2,
            "nowhere cannot be read: No such file or directory; give a .safetensors",
        ),
        (["--weights", "text"], 5, "text is not a safetensors file"),
        (["--weights", "other"], 2, "does not fit bn_mlp: it has no "),
        (["--model", "resnet81"], 2, "did you mean 'resnet18'?"),
        (["--precision", "tf32"], 2, "a measurement never uses TF32"),
        (["--hvp", "kept"], 2, "no hvp 'kept'; "),
        (["--rtol", "2", "--limit", "0"], 2, "--rtol: it must be less than 1"),
        (["--layers", "0"], 2, "--layers: the depth must be a whole number above 0, not 0"),
        (["--layers", "x"], 2, "--layers: the depth must be a whole number above 0, not x"),
        (["--view", "preconditioned"], 2, "weights alone have no optimizer"),
        (["--budget", "0"], 2, "No such option '--budget'"),  # of a norm, and weights alone have none
        (["--norm", "none", "--view", "spherical"], 2, "'spherical' does not apply"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_gets_one_line(run, tmp_path, monkeypatch, args, code, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("no tensors")
    save_file({"a": torch.ones(1)}, tmp_path / "other")
    assert line in refusal(run(*TINY, *args), code)
