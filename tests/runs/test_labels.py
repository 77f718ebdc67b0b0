import itertools

import pytest

from optim_family.runs.labels import arms, compact, label, labels, setting
from tests.helpers.fake_runs import run_spec


def test_one_run_shows_its_numbers_but_neither_zeros_nor_epsilon():
    assert label(run_spec()) == "rmsprop  lr 0.01, wd 0.05, β₂ 0.99"
    assert label(run_spec("gd", {"lr": 1e-5, "weight_decay": 0.0})) == "gd  lr 1e-5, wd 0"
    assert (
        label(run_spec("gd", {"momentum": 0.9, "nesterov": True})) == "gd  lr 0.2, wd 0.005, β 0.9, nesterov"
    )
    assert labels([run_spec()]) == [label(run_spec())]


def test_several_runs_show_what_differs():
    assert labels([run_spec(seed=0), run_spec(seed=1)]) == [
        "rmsprop  lr 0.01, wd 0.05, seed 0",
        "rmsprop  lr 0.01, wd 0.05, seed 1",
    ]
    assert labels([run_spec(batch_size=32), run_spec(hyper={"eps": 1e-4}, norm="none")]) == [
        "rmsprop  lr 0.01, wd 0.05, ε 1e-8, batch 32, frozen-affine norm",
        "rmsprop  lr 0.01, wd 0.05, ε 0.0001, full batch, no normalisation",
    ]


def test_beside_another_optimizer_the_important_numbers_are_told():
    assert labels([run_spec("gd"), run_spec()]) == [
        "gd  lr 0.2, wd 0.005",
        "rmsprop  lr 0.01, wd 0.05, β₂ 0.99",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"hyper": {"preconditioning": "raw"}},
        {"hyper": {"eps": 1e-7}},
        {"hyper": {"nesterov": True}},
        {"model": "resnet18"},
        {"data": "cifar10"},
        {"data": "npz:elsewhere/a.npz"},
        {"norm": "none"},
        {"limit": 100},
        {"loss": "cross-entropy"},
        {"batch_size": 8},
        {"ghost_batch": 8},
        {"seed": 1},
        {"steps": 201},
        {"every": 1},
        {"views": ["raw"]},
        {"rtol": 1e-2},
        {"device": "cuda"},
        {"precision": "float64"},
        {"hyper": {"lr": 0.01 + 1e-12}},
    ],
)
def test_runs_that_differ_in_any_field_have_different_labels(change):
    ours, theirs = labels([run_spec(data="npz:here/a.npz"), run_spec(**{"data": "npz:here/a.npz"} | change)])
    assert ours != theirs
    assert "#" not in ours or change == {"hyper": {"lr": 0.01 + 1e-12}}


def test_all_combinations_of_three_differences_have_different_labels():
    grid = itertools.product(("gd", "rmsprop"), (0, 1), ("digits", "cifar10"), (0.1, 0.2))
    texts = labels([run_spec(o, {"lr": lr}, seed=s, data=d) for o, s, d, lr in grid])
    assert len(set(texts)) == len(texts) == 16


def test_what_is_measured_is_told_only_if_nothing_else_tells_runs_apart():
    assert not any("steps" in text for text in labels([run_spec(steps=10), run_spec(steps=20, seed=1)]))
    assert labels([run_spec(steps=10), run_spec(steps=20)])[1].endswith("wd 0.05, steps 20")


def test_equal_specifications_are_told_apart_by_name_or_number():
    assert labels([run_spec(), run_spec()], ["a", "b"])[1].endswith(", b")
    assert labels([run_spec(), run_spec()])[1].endswith(", #2")


def test_setting_is_what_all_runs_share():
    same = "bn_cnn, full batch, frozen-affine norm, mse, seed 0, moment diagonal, norm global"
    ours, theirs = (
        run_spec(data="npz:x/a.npz", limit=100),
        run_spec(data="digits", hyper={"preconditioning": "raw"}),
    )
    assert setting([ours, theirs]) == same
    assert setting([ours]).startswith("bn_cnn, a.npz, 100 images, full batch")
    assert "moment" not in setting([run_spec("gd"), run_spec()])


@pytest.mark.parametrize(
    "value, text",
    [
        (1e-05, "1e-5"),
        (2.0, "2"),
        (1e20, "1e+20"),
        (0.1 + 0.2, "0.3"),
        (("raw", "x"), "raw+x"),
        (None, "unset"),
    ],
)
def test_values_are_compact(value, text):
    assert compact(value) == text


def test_arms_are_short_and_told_apart_within_their_optimizer():
    specs = [
        run_spec("gd", seed=3, model="resnet18"),
        run_spec("gd", {"weight_decay": 0.0}),
        run_spec(),
        run_spec(hyper={"preconditioning": "raw", "beta2": 0.9}),
    ]
    assert arms(specs) == [
        "gd lr 0.2, wd 0.005",
        "gd lr 0.2, wd 0",
        "rmsprop lr 0.01, wd 0.05, β₂ 0.99, scale-invariant",
        "rmsprop lr 0.01, wd 0.05, β₂ 0.9, raw",
    ]


def test_arms_name_a_mini_batch_and_a_full_batch_only_beside_one():
    assert arms([run_spec("gd"), run_spec(batch_size=32)]) == [
        "gd lr 0.2, wd 0.005",
        "rmsprop lr 0.01, wd 0.05, batch 32",
    ]
    assert arms([run_spec(), run_spec(batch_size=32)]) == [
        "rmsprop lr 0.01, wd 0.05, full batch",
        "rmsprop lr 0.01, wd 0.05, batch 32",
    ]


def test_arms_are_different_for_different_hyper_parameters_and_the_same_for_the_same():
    rates = [0.01, 0.01 + 1e-12, 0.01]
    one, other, again = arms([run_spec(hyper={"lr": lr}, seed=i) for i, lr in enumerate(rates)])
    assert one != other and one == again


def test_arms_do_not_name_a_schedule_that_all_have():
    assert (
        arms([run_spec("gd", schedule="cosine", seed=seed) for seed in (0, 1)]) == ["gd lr 0.2, wd 0.005"] * 2
    )


def test_arms_name_a_schedule():
    assert arms([run_spec("gd"), run_spec("gd", schedule="cosine")]) == [
        "gd lr 0.2, wd 0.005",
        "gd lr 0.2, wd 0.005, cosine",
    ]
