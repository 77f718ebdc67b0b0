import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optim_family import registry
from optim_family.study.grid import RUN_KEYS, Mistake, as_grid_keys, expand
from optim_family.training.spec import RunSpec

GRID = {"optimizer": "gd", "model": "bn_mlp"}


def runs(grid, shared=None):
    specs = list(expand(shared or {}, grid))
    assert all(isinstance(run, RunSpec) for run in specs), specs
    return specs


def mistakes(grid, shared=None):
    return [item.text for item in expand(shared or {}, grid) if isinstance(item, Mistake)]


@settings(deadline=None, max_examples=25)
@given(
    lr=st.lists(st.floats(1e-4, 0.9), min_size=1, max_size=3, unique=True),
    weight_decay=st.lists(st.floats(0, 0.9), min_size=1, max_size=3, unique=True),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
)
def test_the_runs_are_the_product_of_the_lists(lr, weight_decay, seeds):
    specs = runs(
        {**GRID, "optimizer": ["gd", "adamw"], "lr": lr, "weight_decay": weight_decay, "seeds": seeds}
    )
    assert len({run.key for run in specs}) == len(specs) == 2 * math.prod(map(len, (lr, weight_decay, seeds)))
    combinations = {(run.optimizer, run.hyper["lr"], run.hyper["weight_decay"], run.seed) for run in specs}
    assert combinations == {
        (o, x, y, s) for o in ("gd", "adamw") for x in lr for y in weight_decay for s in seeds
    }


def test_what_is_left_open_is_as_the_optimizer_has_it():
    (gd,), (sgd,) = runs(GRID), runs({**GRID, "optimizer": "sgd"})
    assert gd.hyper == registry.load("gd").Hyper().model_dump(mode="json")
    assert (gd.batch_size, sgd.batch_size) == (None, registry.load("sgd").batch_size)
    assert gd.device == "auto" and gd.seed == 0


def test_full_and_all_say_what_json_says_by_null():
    (run,) = runs({**GRID, "optimizer": "sgd", "batch_size": "full"}, {"limit": "all"})
    assert (run.batch_size, run.limit) == (None, None)


def test_a_grid_overrides_what_all_share():
    (run,) = runs({**GRID, "steps": 7}, {"steps": 5, "loss": "cross-entropy"})
    assert (run.steps, run.loss) == (7, "cross-entropy")


def test_views_are_one_value():
    (run,) = runs(GRID, {"views": ["raw", "spherical"]})
    assert run.views == ("raw", "spherical")
    (run,) = runs(GRID, {"views": "spherical"})
    assert run.views == ("spherical",)


def test_a_hyper_parameter_named_like_a_field_of_the_run_carries_its_optimizer():
    (run,) = runs({**GRID, "optimizer": "rmsprop", "norm": "none", "rmsprop_norm": "tensor"})
    assert (run.norm, run.hyper["norm"]) == ("none", "tensor")


@pytest.mark.parametrize("optimizer", ["gd", "sgd", "rmsprop", "adamw"])
def test_a_run_spelled_out_is_a_grid_of_that_run(optimizer):
    (run,) = runs({**GRID, "optimizer": optimizer, "seeds": 3, "limit": 20})
    keys = {key: value for key, value in as_grid_keys(run).items() if value is not None}
    assert runs(keys) == [run]


def test_every_field_of_a_run_has_a_key():
    assert set(RUN_KEYS) == set(RunSpec.model_fields) - {"hyper", "seed"} | {"seeds"}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"zeta": 0.9},
            "gd has no hyper-parameter 'zeta'. It has lr, weight_decay, momentum",
        ),
        ({"momentun": 0.9}, "gd has no hyper-parameter 'momentun'; did you mean 'momentum'? It has lr, "),
        ({"seeds": [1, 2, 1]}, "seeds: 1 stands twice"),
        ({"modle": "x"}, "gd has no hyper-parameter 'modle'; did you mean 'model'?"),
        ({"lr": [0.1, -1]}, "gd lr: it must be greater than 0, not -1"),
        (
            {"lr": 10, "weight_decay": 1},
            "gd lr · weight_decay is the fraction of the weights removed in a step, 10 ≥ 1; choose a smaller",
        ),
        ({"lr": []}, "lr: give at least one value"),
        (
            {"norm": "nonne"},
            "there is no norm 'nonne'; did you mean 'none'? Known: frozen-affine, affine, none",
        ),
        ({"views": ["spherica"]}, "there is no views 'spherica'; did you mean 'spherical'?"),
        ({"views": "spherica"}, "there is no views 'spherica'; did you mean 'spherical'?"),
        ({"seeds": -1}, "seeds: it must be greater than or equal to 0, not -1"),
        ({"model": "bn_cn"}, "there is no model 'bn_cn'; did you mean 'bn_cnn'?"),
        ({"data": "digit"}, "there is no data set 'digit'; did you mean 'digits'?"),
        ({"optimizer": "gdd"}, "there is no optimizer 'gdd'; did you mean 'gd'?"),
    ],
)
def test_a_mistake_names_the_subject_and_the_nearest_right_name(change, line):
    (mistake,) = mistakes({**GRID, **change})
    assert mistake.startswith(line)


def test_what_a_grid_needs_and_has_not():
    assert mistakes({"optimizers": "gd"}) == [
        "it names no optimizer; did you mean that by 'optimizers'?",
        "it names no model",
    ]


def test_all_mistakes_come_at_once():
    lines = mistakes(
        {"optimizer": ["gd", "rmsprop"], "model": "bn", "lr": -1, "beta": 1, "norm": "x", "seeds": []}
    )
    assert (
        len(lines) == 4
        and len(mistakes({"optimizer": "gd", "model": "bn", "lr": -1, "bta": 1, "norm": "x"})) == 4
    )
