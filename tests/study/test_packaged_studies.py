"""The studies that are shipped."""

import re

import pytest

from optim_family.resources import folder
from optim_family.study import spec

README = (folder("studies") / "README.md").read_text(encoding="utf-8")
TABLE = dict(re.findall(r"^\| `([\w-]+)` \|.*\| (\d+) \|", README, re.MULTILINE))
every_study = pytest.mark.parametrize("name", spec.names())


@every_study
def test_it_parses_and_is_listed_with_the_number_of_its_runs(name):
    study = spec.load(name)
    assert study.question.endswith("?")
    assert int(TABLE[name]) == len(study.runs)


@every_study
def test_its_runs_can_be_told_apart_and_begin_anywhere(name):
    runs = spec.load(name).runs
    assert len({run.title for run in runs}) == len(runs)
    assert {run.device for run in runs} == {"auto"}


@every_study
def test_its_optimizers_meet_under_the_same_loss(name):
    runs = [run.model_dump(mode="json") for run in spec.load(name).runs]
    fields = ("data", "limit", "loss", "steps", "every", "precision")
    # On two cores gradient descent has other images, or other ghost batches, than mini-batches.
    mixed = name in ("case-1-case-2-cifar10", "bn-cifar10-cpu")
    groups = [(run["model"], run["batch_size"] is None) if mixed else () for run in runs]
    settings = {(group, *(run[field] for field in fields)) for group, run in zip(groups, runs, strict=True)}
    assert len(settings) == len(set(groups))
    if any(run["batch_size"] for run in runs):
        assert {run["ghost_batch"] for run in runs} != {None}


def test_the_list_names_no_others():
    assert sorted(TABLE) == spec.names()


def test_the_example_of_the_readme_is_a_study(tmp_path):
    text, _ = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    assert len(spec.load(str(tmp_path / "mine.toml")).runs) == 2 * 2 * 2 * 3 + 2 * 3


def test_the_demo_covers_what_it_promises():
    runs = spec.load("digits").runs
    arms = {(run.optimizer, run.hyper.get("preconditioning"), run.hyper["weight_decay"] > 0) for run in runs}
    kinds = {("gd", None), ("sgd", None), ("rmsprop", "scale-invariant"), ("rmsprop", "raw"), ("adamw", None)}
    assert arms == {(*kind, decay) for kind in kinds for decay in (True, False)}
    assert {run.optimizer for run in runs if run.norm == "none"} == {"gd"}
