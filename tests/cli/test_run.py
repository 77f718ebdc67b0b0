import json
import os
import re
import signal

import pytest

from optim_family import registry
from optim_family.cli import run_progress
from optim_family.study import cost
from optim_family.training import experiment
from optim_family.training.progress import ProgressListener
from optim_family.training.spec import RunSpec
from tests.helpers.cli_runner import optim_family, refusal

TINY = ["--model", "bn_mlp", "--limit", "20", "--steps", "4", "--every", "2"]
FILES = {
    "spec.json",
    "provenance.json",
    "metrics.jsonl",
    "status.json",
    "summary.json",
    "figure.svg",
    "figure.png",
}


@pytest.fixture
def run(capsys):
    return lambda *args: optim_family(capsys, "run", *args)


@pytest.fixture
def spec(run, tmp_path):
    """The specification that the arguments resolve to, as --dry-run prints it."""

    def resolve(*args):
        answer = run("--optimizer", "gd", *TINY, "--dry-run", "--json", "--out", tmp_path / "dry", *args)
        assert answer.code == 0, answer.err
        assert not (tmp_path / "dry").exists()
        return json.loads(answer.out)["spec"]

    return resolve


def test_a_run_ends_with_a_table_and_a_figure(run, tmp_path):
    answer = run("--optimizer", "gd", *TINY, "--out", tmp_path)
    assert answer.code == 0
    assert FILES | {"checkpoints", "lock"} == {path.name for path in tmp_path.iterdir()}
    assert re.search(r"^status +done$", answer.out, re.MULTILINE)
    assert f"figure: {tmp_path}/figure.svg  {tmp_path}/figure.png" in answer.out
    assert f"gd on bn_mlp, digits: 4 steps, written to {tmp_path}" in answer.err
    assert "step 4/4" in answer.err


def test_a_finished_run_is_shown_and_not_computed_again(run, tmp_path):
    arguments = ["--optimizer", "gd", *TINY, "--out", tmp_path, "--json"]
    first = run(*arguments)
    before = (tmp_path / "metrics.jsonl").stat().st_mtime_ns
    again = run(*arguments)
    assert (again.code, again.out) == (0, first.out)
    assert "finished; nothing is computed again" in again.err
    assert (tmp_path / "metrics.jsonl").stat().st_mtime_ns == before
    assert json.loads(again.out)["runs"][0]["status"] == "done"
    assert json.loads(again.out)["figure"] == {kind: f"{tmp_path}/figure.{kind}" for kind in ("svg", "png")}
    for resume in ([], ["--resume"]):
        assert "steps: 4, not 5" in refusal(run(*arguments, "--steps", "5", *resume))


def test_overlays_chosen_anew_draw_the_figure_of_a_finished_run_again(run, tmp_path):
    arguments = ["--optimizer", "gd", *TINY, "--out", tmp_path]
    run(*arguments)
    whole = (tmp_path / "figure.svg").read_bytes()
    assert run(*arguments, "--overlay", "none").code == 0
    bare = (tmp_path / "figure.svg").read_bytes()
    assert bare != whole
    run(*arguments)
    assert (tmp_path / "figure.svg").read_bytes() == bare
    run(*arguments, "--overlay", "all")
    assert (tmp_path / "figure.svg").read_bytes() == whole
    assert "there is no overlay 'edgy'" in refusal(run(*arguments, "--overlay", "edgy"))


def test_runs_go_to_a_folder_of_their_name_and_quiet_ones_say_only_the_answer(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = run("--optimizer", "gd", *TINY, "-q")
    assert (answer.code, answer.err) == (0, "")
    assert "figure: runs/gd-bn_mlp-digits-" in answer.out
    (folder,) = (tmp_path / "runs").iterdir()
    stored = json.loads((folder / "spec.json").read_text())
    known = RunSpec.model_fields.keys() & stored.keys()
    assert folder.name == RunSpec(**{key: stored[key] for key in known}).title


def test_divergence_is_3_and_keeps_result_and_figure(run, tmp_path):
    answer = run(
        "--optimizer", "gd", *TINY, "--norm", "none", "--lr", "1e20", "--weight-decay", "0", "--out", tmp_path
    )
    assert answer.code == 3
    assert re.search(r"^status +diverged$", answer.out, re.MULTILINE)
    assert {path.name for path in tmp_path.iterdir()} >= FILES
    assert (
        run(
            "--optimizer",
            "gd",
            *TINY,
            "--norm",
            "none",
            "--lr",
            "1e20",
            "--weight-decay",
            "0",
            "--out",
            tmp_path,
        ).code
        == 3
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_that_resume_continues(run, tmp_path, monkeypatch, number, code):
    class Impatient(ProgressListener):
        def on_step(self, step, loss):
            if step == 3:
                os.kill(os.getpid(), number)

    arguments = ["--optimizer", "gd", *TINY, "--lr", "0.05", "--out", tmp_path / "run"]
    with monkeypatch.context() as patched:
        patched.setattr(run_progress, "listener", lambda title, quiet: Impatient())
        answer = run(*arguments)
    assert (answer.code, answer.out) == (code, "")
    assert f"stopped by {signal.Signals(number).name}; a checkpoint is left" in answer.err
    assert "up to step 3 of 4; add --resume to continue it" in refusal(run(*arguments))
    answer = run("--resume", "--out", tmp_path / "run")
    assert answer.code == 0
    assert "step 4/4" in answer.err and "step 0/4" not in answer.err


def test_the_spectrum_of_a_finished_run_is_that_of_its_last_record(run, tmp_path):
    arguments = ["--optimizer", "rmsprop", *TINY, "--rtol", "1e-4", "--out", tmp_path]
    assert run(*arguments, "-q").code == 0
    answer = run(*arguments, "--trace", "--layers", "1")
    assert answer.code == 0
    assert "spectrum/step-00000004.json" in answer.err and "trace, spherical-preconditioned: " in answer.out
    assert {path.name for path in (tmp_path / "spectrum").iterdir()} == {
        f"step-00000004.{form}" for form in ("json", "svg", "png")
    }
    spectrum = json.loads((tmp_path / "spectrum" / "step-00000004.json").read_text())
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert set(spectrum) == {"step", "hvp", "view", "reading", "trace", "layers"}
    recorded = last.get("record", last)["views"]["spherical-preconditioned"]
    for field in ("value", "threshold", "ratio"):
        assert spectrum["reading"][field] == pytest.approx(recorded[field], rel=1e-3)
    assert json.loads(run(*arguments, "--json", "--trace").out)["runs"]


def test_the_spectrum_of_a_diverged_run_is_not_computed(run, tmp_path):
    exploding = ["--norm", "none", "--lr", "1e20", "--weight-decay", "0"]
    answer = run("--optimizer", "gd", *TINY, *exploding, "--trace", "--out", tmp_path)
    assert answer.code == 3 and "diverged: the spectrum at its end is not computed" in answer.err
    assert not (tmp_path / "spectrum").exists()


def test_compare_draws_several_runs_in_one_figure_and_one_table(run, capsys, tmp_path):
    for name in ("gd", "rmsprop"):
        assert run("--optimizer", name, *TINY, "--out", tmp_path / name, "-q").code == 0
    runs = tmp_path / "gd", tmp_path / "rmsprop"
    answer = optim_family(capsys, "compare", *runs, "--out", tmp_path / "new")
    assert answer.code == 0
    assert f"figure: {tmp_path}/new/comparison.svg" in answer.out
    assert re.search("^run +gd .* rmsprop ", answer.out, re.MULTILINE)
    assert re.search("^status +done +done$", answer.out, re.MULTILINE)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        *("comparison.svg", "comparison.png", "comparison.json")
    }
    assert json.loads((tmp_path / "new/comparison.json").read_text())[0]["provenance"]["versions"]
    whole = (tmp_path / "new/comparison.svg").read_bytes()
    answer = optim_family(capsys, "compare", *runs, "--out", tmp_path / "new", "--overlay", "tau", "--json")
    assert (tmp_path / "new/comparison.svg").read_bytes() != whole
    assert [each["path"] for each in json.loads(answer.out)["runs"]] == list(map(str, runs))


def test_the_defaults_are_those_of_the_specification_and_of_the_optimizer(spec):
    fields, values = RunSpec.model_fields, spec("--device", "cpu")
    for name in ("norm", "data", "loss", "ghost_batch", "rtol", "seed", "device", "precision"):
        assert values[name] == fields[name].default
    assert values["hyper"] == registry.load("gd").Hyper().model_dump()
    assert values["batch_size"] is None
    assert values["views"] == ["spherical"]


def test_the_batch_size_is_the_optimizers_unless_it_is_chosen(spec):
    limit = ["--limit", "100"]
    assert spec("--optimizer", "sgd", *limit)["batch_size"] == registry.load("sgd").batch_size == 50
    assert spec("--optimizer", "sgd", *limit, "--batch-size", "10")["batch_size"] == 10
    assert spec("--optimizer", "sgd", *limit, "--batch-size", "full")["batch_size"] is None


def test_views_are_repeated_or_separated_by_commas(spec):
    assert spec("--view", "raw,spherical", "--view", "riemannian")["views"] == [
        "raw",
        "spherical",
        "riemannian",
    ]


def test_every_hyper_parameter_is_an_option(spec):
    values = spec(
        *["--optimizer", "rmsprop", "--lr", "1e-3", "--beta2", "0.5", "--moment", "scalar"],
        *["--norm", "affine", "--rmsprop-norm", "tensor"],
    )
    assert values["norm"] == "affine"
    assert values["hyper"] == registry.load("rmsprop").Hyper().model_dump() | {
        "lr": 1e-3,
        "beta2": 0.5,
        "moment": "scalar",
        "norm": "tensor",
    }


@pytest.mark.parametrize(("option", "value"), [("--nesterov", True), ("--no-nesterov", False)])
def test_a_switch_has_two_options(spec, option, value):
    values = spec("--optimizer", "sgd", "--batch-size", "full", "--momentum", "0.9", option)
    assert values["hyper"]["nesterov"] is value


def test_help_with_an_optimizer_lists_its_hyper_parameters_with_default_range_and_meaning(run):
    answer = run("--optimizer=rmsprop", "--help")
    text = " ".join(answer.out.replace("│", " ").split())
    assert answer.code == 0
    assert "Hyper-parameters of rmsprop" in text
    assert "--beta2 FLOAT memory of the second moment β₂ (≥ 0, ≤ 1; default 0.99)" in text
    assert "--moment [diagonal|scalar]" in text
    assert "Hyper-parameters of" not in (plain := run("--help").out)
    assert "run --optimizer rmsprop --help" in " ".join(plain.split())


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ([], "run needs --optimizer, one of adamw, gd, lion, muon, rmsprop, sam, sgd, signgd"),
        (["--resume"], "run --resume needs --out, the folder of the run"),
        (["--optimizer", "rmsprob"], "no optimizer 'rmsprob'; did you mean 'rmsprop'? Known: adamw, gd"),
        (
            ["--optimizer", "rmsprop", "--beta", "1"],
            "rmsprop has no hyper-parameter 'beta'; did you mean '--beta2'? It has --lr, --weight-decay",
        ),
        (["--optimizer", "adam"], "no optimizer 'adam'; did you mean 'torch:Adam'?"),
        (["--optimizer", "Lion"], "no optimizer 'Lion'; did you mean 'lion'?"),
        (["--optimizer", "Lamb"], "no optimizer 'Lamb'; did you mean 'timm:lamb'?"),
        (
            ["--optimizer", "gd", "--point", "y"],
            "--point: the point y exists with schedule-free optimizers only",
        ),
        (
            ["--optimizer", "signgd", "--budget", "0"],
            "--budget: it must be greater than or equal to 2, not 0",
        ),
        (["--optimizer", "sam", "--radius", "0"], "--radius: it must be greater than 0, not 0"),
        (["--optimizer", "gd", "--wd", "1"], "no hyper-parameter 'wd'; did you mean '--weight-decay'?"),
        (["--optimizer", "gd", "--model", "resnet50"], "no model 'resnet50'; did you mean 'timm:resnet50'?"),
        (["--stepz", "1"], "run has no option '--stepz'; did you mean '--steps'?"),
        (["--lr", "1"], "run has no option '--lr'. With --optimizer NAME it has its hyper-parameters too"),
        (["--optimizer", "gd", "--lr", "-1"], "--lr: it must be greater than 0, not -1"),
        (["--optimizer", "gd", "--lr", "x"], "--lr: it must be a valid number, not x"),
        (["--optimizer", "gd", "--lr", "inf"], "--lr: it must be a finite number, not inf"),
        (["--optimizer", "sgd", "--nesterov"], "nesterov needs a momentum above 0"),
        (["--optimizer", "gd", "--steps", "0"], "--steps: it must be greater than or equal to 1, not 0"),
        (["--optimizer", "gd", "--view", "raw,shperical"], "no view 'shperical'; did you mean 'spherical'?"),
        (
            ["--optimizer", "gd", "--loss", "mae"],
            "no loss 'mae'; did you mean 'mse'? Known: mse, cross-entropy",
        ),
        (["--optimizer", "gd", "--model", "resnet81"], "no model 'resnet81'; did you mean 'resnet18'?"),
        (["--optimizer", "gd", "--data", "digit"], "no data set 'digit'; did you mean 'digits'?"),
        (
            ["--optimizer", "gd", *TINY, "--ghost-batch", "7"],
            "does not divide the training set of 20; choose",
        ),
        (["--optimizer", "gd", *TINY, "--norm", "none", "--view", "spherical"], "'spherical' does not apply"),
        (["--optimizer", "gd", "--device", "tpu:x"], "no device 'tpu:x'; use cpu, cuda or cuda:N"),
        (["--resume", "--out", "nowhere"], "there is no folder nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_gets_one_line_and_leaves_nothing_behind(run, tmp_path, monkeypatch, args, line):
    monkeypatch.chdir(tmp_path)
    assert line in refusal(run(*args))
    assert list(tmp_path.iterdir()) == []


def test_cuda_asked_for_and_absent_is_a_usage_error(run, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.chdir(tmp_path)
    assert "cuda" in refusal(run("--optimizer", "gd", "--device", "cuda"))


def test_all_mistakes_are_reported_at_once(run):
    line = refusal(
        run("--optimizer", "rmsprop", "--lr", "0", "--beta2", "2", "--steps", "x", "--loss", "mae")
    )
    assert all(f"--{name}: it must" in line for name in ("lr", "beta2", "steps"))
    assert "no loss 'mae'" in line


def test_a_plugin_that_fails_to_import_is_6(run, monkeypatch):
    broken = registry.PluginEntry("bad", "no_such_module:Bad", "bad-plugin", "1.0")
    monkeypatch.setattr(registry, "entries", lambda: {"bad": broken})
    answer = run("--optimizer", "bad")
    assert (answer.code, answer.out) == (6, "")
    assert answer.err.startswith("optim-family: optimizer 'bad' of bad-plugin 1.0 cannot be imported")


def test_a_dry_run_counts_the_trained_weights_and_names_what_would_be_written(run, tmp_path):
    answer = run("--optimizer", "gd", *TINY, "--dry-run", "--json", "--out", tmp_path / "new")
    plan = json.loads(answer.out)
    assert (
        plan["provenance"]["model"]["trained"] == 64 * 64 + 64 * 64
    )  # 8×8 pixels → 64 → 64, read-out frozen
    assert plan["writes"]["folder"] == str(tmp_path / "new")
    assert FILES < set(plan["writes"]["files"])
    assert list(tmp_path.iterdir()) == []
    assert re.search(r"^provenance.model.trained +8192$", run(*_plain(tmp_path)).out, re.MULTILINE)


def test_a_dry_run_estimates_the_time_of_all_steps_and_readings(run, tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "_seconds", lambda work: 0.5 + 0 * float(work()))
    for steps, every, records in ((4, 2, 3), (300, 100, 4)):
        sizes = ["--steps", steps, "--every", every]
        answer = run(*_plain(tmp_path), *sizes, "--json")
        total = steps * 0.5 + records * (cost.PRODUCTS + 1) * 0.5
        estimate = {"step_seconds": 0.5, "reading_seconds": cost.PRODUCTS * 0.5, "seconds": total}
        assert json.loads(answer.out)["estimate"] == estimate
    line = run(*_plain(tmp_path), *sizes).out.splitlines()[-1]
    assert line == "estimate on this machine: 3 min; 0.5 s a step, 7.5 s a reading"
    monkeypatch.setattr(cost, "IMAGES", 10)
    assert json.loads(run(*_plain(tmp_path), *sizes, "--json").out)["estimate"]["step_seconds"] == 1
    assert list(tmp_path.iterdir()) == []


def _plain(tmp_path):
    return ["--optimizer", "gd", *TINY, "--dry-run", "--out", tmp_path / "new"]


def test_a_dry_run_says_what_it_tries_and_a_plan_tries_nothing(run, tmp_path, monkeypatch):
    words = "trying bn_mlp on digits with gd: steps, products, an evaluation …\n"
    assert run(*_plain(tmp_path)).err == words

    def build(*arguments, **options):
        raise AssertionError("a plan builds nothing")

    monkeypatch.setattr(experiment, "build_experiment", build)
    planned = [word.replace("--dry-run", "--dry-run=plan") for word in map(str, _plain(tmp_path))]
    answer = run(*planned, "--steps", "7", "--every", "3", "--json")
    plan = json.loads(answer.out)
    assert answer.err == "" and plan["records"] == 4 and plan["spec"]["steps"] == 7
    assert plan["writes"]["folder"] == str(tmp_path / "new") and list(tmp_path.iterdir()) == []
    assert "'plans' is not one of 'try', 'plan'" in run("--optimizer", "gd", "--dry-run=plans").err


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--model", "bn_mpl"], "did you mean 'bn_mlp'"),
        (["--data", "digit"], "did you mean 'digits'"),
        (["--data", "npz:absent.npz"], "there is no file absent.npz"),
        (["--data", "folder:absent"], "there is no folder or tar file absent"),
        (["--data", "npz:"], "'npz:' names no file; write npz:PATH"),
        (["--schedule", "cosin:to=0"], "did you mean 'cosine'"),
        (["--schedule", "torch:StepLr"], "did you mean 'torch:StepLR'"),
        (["--schedule", "cosine:to=2"], "schedule 'cosine:to=2': to"),
        (["--batch-size", "21"], "a mini-batch of 21 is larger than the training set of 20"),
        (
            ["--limit", "100", "--ghost-batch", "33"],
            "a ghost batch of 33 does not divide the training set of 100",
        ),
    ],
)
def test_a_plan_refuses_what_needs_neither_network_nor_images(run, wrong, words):
    assert words in refusal(run("--optimizer", "gd", *TINY, *wrong, "--dry-run=plan"))


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="no folder in which nobody can create another one")
def test_a_folder_that_cannot_be_created_is_refused_before_the_network_is_built(run, monkeypatch):
    monkeypatch.setattr(experiment.build, "build", lambda *args, **options: pytest.fail("built"))
    assert "cannot be a run directory" in refusal(run("--optimizer", "gd", *TINY, "--out", "/proc/none/run"))


def test_a_plan_knows_the_size_of_a_set_of_the_catalogue(run):
    plan = ["--optimizer", "gd", "--model", "bn_mlp", "--data", "cifar10", "--dry-run=plan"]
    assert run(*plan, "--ghost-batch", "500").code == 0
    assert "does not divide the training set of 50000" in refusal(run(*plan, "--ghost-batch", "300"))
