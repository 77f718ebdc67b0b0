"""NaN and Inf in loss, gradient and product, a zero Hessian, a solver that does not converge."""

import json

import torch
from matplotlib.figure import Figure

from optim_family.curvature.hessian import Hessian
from optim_family.figures import run_figure
from optim_family.runs.run import read_run
from optim_family.sharpness import probe
from optim_family.study.spec import load
from optim_family.training.objective import Objective
from tests.helpers.cli_runner import optim_family

STUDY = """
question = "What is left of it?"
claims = ["edge"]
data = { name = "digits", limit = 20 }
train = { model = "bn_mlp", batch_size = "full", steps = 4, device = "cpu", seeds = SEEDS }
measure = { every = 2, rtol = 1e-2 }
[[grid]]
optimizer = "gd"
lr = 0.3
"""


def loss_becomes(value):
    def disturb(patch):
        real = Objective.gradient
        patch.setattr(
            Objective,
            "gradient",
            lambda self, step, **options: real(self, step, **options) if step < 3 else torch.tensor(value),
        )

    return disturb


def gradient_becomes(value):
    def disturb(patch):
        real = Objective.gradient

        def gradient(self, step, **options):
            loss = real(self, step, **options)
            if step == 2:
                self.space.tensors[0].grad.view(-1)[0] = value
            return loss

        patch.setattr(Objective, "gradient", gradient)

    return disturb


def product_becomes(change):
    def disturb(patch):
        real = Hessian.apply
        patch.setattr(Hessian, "apply", lambda self, v: change(real(self, v)))

    return disturb


KINDS = {
    "NaN loss": (loss_becomes(float("nan")), 3, "diverged"),
    "Inf loss": (loss_becomes(float("inf")), 3, "diverged"),
    "NaN gradient": (gradient_becomes(float("nan")), 3, "diverged"),
    "Inf gradient": (gradient_becomes(float("inf")), 3, "diverged"),
    "NaN product": (product_becomes(lambda hv: hv * float("nan")), 3, "diverged"),
    "Inf product": (product_becomes(lambda hv: hv * float("inf")), 3, "diverged"),
    "zero Hessian": (product_becomes(torch.zeros_like), 7, "failed"),  # differences of gradients are not zero
    "solver that does not converge": (
        lambda patch: patch.setattr(probe.Probe, "__init__", impatient(probe.Probe.__init__)),
        0,
        "done",
    ),
}


def impatient(real):
    def init(self, *args, **options):
        real(self, *args, **(options | {"max_products": 2}))

    return init


def strictly(text):
    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_is_not_finite_is_kept_as_it_is_and_the_report_renders(tmp_path, capsys, monkeypatch, held):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_figure, "figure", lambda *_args, **_options: Figure(figsize=(1, 1)))
    seeds = list(range(len(KINDS)))
    (tmp_path / "mine.toml").write_text(STUDY.replace("SEEDS", str(seeds)), encoding="utf-8")
    runs = load("mine.toml").runs
    for wanted, (kind, (disturb, code, status)) in zip(runs, KINDS.items(), strict=True):
        out = tmp_path / "runs" / "mine" / wanted.title
        options = [f"--{k.replace('_', '-')}={v}" for k, v in wanted.hyper.items() if k != "momentum"]
        with monkeypatch.context() as patch:
            disturb(patch)
            answer = optim_family(
                capsys,
                *("run", "--optimizer", "gd", "--model", "bn_mlp", "--limit", 20, "--steps", 4, "--every", 2),
                *("--rtol", 0.01, "--seed", wanted.seed, "--device", "cpu", "--out", out),
                *options,
            )
        assert answer.code == code, (kind, answer)
        run = read_run(out)
        assert run.status["status"] == status, kind
        for line in (out / "metrics.jsonl").read_text().splitlines():
            strictly(line)
        for file in out.glob("*.json"):
            strictly(file.read_text())
        if status == "diverged":
            assert run.records[-1]["train_loss"] is None, kind
        elif kind.startswith("solver"):
            assert not run.records[-1]["views"]["spherical"]["converged"]
        else:
            assert not run.records, "a zero Hessian is refused before the first record"
    answer = optim_family(capsys, "study", "report", "mine.toml", "--to", tmp_path / "page")
    assert answer.code == 0, answer.err
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert "diverged" in page
    for _ in KINDS:
        held("NaN or Inf loss, gradient, product; zero Hessian; no convergence", of=8)
