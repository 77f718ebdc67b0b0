"""The loss over ghost batches: value, gradient and Hessian are those of one function."""

import dataclasses
from typing import get_args

import pytest
import torch
from torch.nn import functional

from optim_family.curvature.hessian import Hessian
from optim_family.data import datasets
from optim_family.errors import UsageError
from optim_family.networks import build
from optim_family.space import flatten
from optim_family.training.objective import LOSSES, Objective, half_squared_error
from optim_family.training.spec import Loss


def make(limit=60, model="bn_mlp", dtype=torch.float64, norm="frozen-affine", **options):
    digits = datasets.load("digits", limit=limit)
    network = build.build(model, classes=10, channels=1, size=digits.size, dtype=dtype, norm=norm)
    return Objective(network, digits, **options)


def test_mse_is_half_the_squared_distance_to_one_hot_labels():
    outputs, labels = torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([0, 1])
    assert half_squared_error(outputs, labels, 2).item() == pytest.approx(0.5 * (0 + 0.5) / 2)


@pytest.mark.parametrize("ghost_batch", [20, 60])
@pytest.mark.parametrize("loss", ["mse", "cross-entropy"])
def test_value_gradient_and_hessian_belong_to_one_function(loss, ghost_batch):
    objective = make(loss=loss, ghost_batch=ghost_batch)
    value = objective.gradient(0)
    chunks = objective.chunk_losses()
    assert len(chunks) == 60 // ghost_batch
    total = sum(chunk() for chunk in chunks)
    torch.testing.assert_close(value, total.detach(), rtol=1e-13, atol=0)
    gradient = objective.space.gradient()
    torch.testing.assert_close(
        gradient, flatten(torch.autograd.grad(total, objective.space.tensors)), rtol=1e-10, atol=1e-13
    )
    w = objective.space.weights()
    torch.testing.assert_close(objective.hessian() @ w, -gradient, rtol=1e-7, atol=1e-10)  # H w = −g


def test_the_ghost_batch_is_part_of_the_loss():
    one, three = (float(make(ghost_batch=size).gradient(0)) for size in (60, 20))
    assert abs(one - three) > 1e-6


def test_evaluation_agrees_with_the_training_loss_and_leaves_everything_as_it_was():
    objective = make(ghost_batch=20)
    loss = float(objective.gradient(0))
    gradient, weights = objective.space.gradient(), objective.space.weights()
    evaluation = objective.evaluate()
    assert evaluation.train_loss == pytest.approx(loss, rel=1e-12)
    assert 0 <= evaluation.train_accuracy <= 1 and 0 <= evaluation.test_accuracy <= 1
    assert objective.model.training
    assert torch.equal(objective.space.weights(), weights)
    assert torch.equal(objective.space.gradient(), gradient)
    assert float(objective.gradient(0)) == loss


def test_the_test_set_is_judged_with_statistics_of_the_whole_training_set():
    objective = make(ghost_batch=60)
    objective.evaluate()
    model, x = objective.model, objective.data.images(objective.data.x_train, torch.float64)
    with torch.no_grad():
        trained = model(x)
        judged = model.eval()(x)
    # With one ghost batch only the variance differs, by the factor n/(n − 1) of the unbiased estimate.
    assert float((trained - judged).norm() / trained.norm()) < 0.02
    assert not torch.equal(trained, judged)


def test_training_and_measuring_move_no_buffer():
    objective = make()
    before = {name: b.clone() for name, b in objective.model.named_buffers()}
    objective.gradient(0)
    objective.hessian() @ objective.space.weights()
    assert before and all(torch.equal(b, before[name]) for name, b in objective.model.named_buffers())


def test_mini_batches_visit_every_example_once_an_epoch_and_depend_on_step_and_seed_only():
    objective = make(batch_size=20)
    epoch = torch.cat([objective._batch(step) for step in range(3)])
    assert sorted(epoch.tolist()) == list(range(60))
    assert objective._batch(4).tolist() != objective._batch(1).tolist()
    assert torch.equal(make(batch_size=20)._batch(4), objective._batch(4))
    assert not torch.equal(make(batch_size=20, seed=1)._batch(4), objective._batch(4))
    assert objective.ghost_batch == 20


def test_a_mini_batch_gradient_is_that_of_its_examples():
    objective = make(batch_size=20)
    loss = objective.gradient(5)
    part = objective._batch(5)
    x = objective.data.images(objective.data.x_train[part], torch.float64)
    expected = half_squared_error(objective.model(x), objective.data.y_train[part], 10)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(
        objective.space.gradient(), flatten(torch.autograd.grad(expected, objective.space.tensors))
    )


def test_a_mini_batch_of_several_ghost_batches_keeps_their_statistics_apart():
    objective = make(batch_size=20, ghost_batch=10)
    loss = objective.gradient(2)
    parts = torch.split(objective._batch(2), 10)
    x = [objective.data.images(objective.data.x_train[part], torch.float64) for part in parts]
    shares = [
        half_squared_error(objective.model(a), objective.data.y_train[p], 10)
        for a, p in zip(x, parts, strict=True)
    ]
    torch.testing.assert_close(loss, sum(shares).detach() / 2)
    torch.testing.assert_close(
        objective.space.gradient(), flatten(torch.autograd.grad(sum(shares) / 2, objective.space.tensors))
    )


@pytest.mark.parametrize("options", [{"ghost_batch": 20}, {"batch_size": 20}])
def test_images_that_are_kept_and_images_made_anew_give_the_same_numbers(options, monkeypatch):
    kept = make(dtype=torch.float32, **options)
    monkeypatch.setattr("optim_family.training.objective.KEPT_BYTES", 60 * 64 * 4 - 1)
    anew = make(dtype=torch.float32, **options)
    assert kept._kept is not None and anew._kept is None
    assert torch.equal(kept.gradient(3), anew.gradient(3))
    assert torch.equal(kept.space.gradient(), anew.space.gradient())
    assert kept.evaluate() == anew.evaluate()


def test_cross_entropy_is_torchs():
    objective = make(loss="cross-entropy", ghost_batch=60)
    x = objective.data.images(objective.data.x_train, torch.float64)
    expected = functional.cross_entropy(objective.model(x), objective.data.y_train)
    torch.testing.assert_close(objective.gradient(0), expected.detach())


def test_the_default_ghost_batch_is_the_largest_divisor_up_to_a_thousand():
    assert make(limit=60).ghost_batch == 60
    assert make(limit=1202).ghost_batch == 601


@pytest.mark.parametrize(
    ("limit", "options", "says"),
    [
        (60, {"ghost_batch": 25}, r"does not divide the training set of 60; choose one of 12, 15, 20, 30"),
        (60, {"batch_size": 61}, "larger than the training set of 60"),
        (1009, {}, r"must divide the training set of 1009, and none of 16 to 1000 does"),
        (60, {"batch_size": 32}, r"and the mini-batch of 32, .* or say --ghost-batch 4"),
        (
            60,
            {"batch_size": 30, "ghost_batch": 20},
            "does not divide the training set of 60 and the mini-batch of 30; .*, or another --batch-size$",
        ),
        (70, {"batch_size": 7, "ghost_batch": 10}, "choose one of 7, or another --batch-size$"),
        (
            75,
            {"batch_size": 15, "ghost_batch": 10},
            "choose one of 3, 5, 15, or another --limit and --batch-size$",
        ),
    ],
)
def test_batches_that_do_not_fit_are_refused(limit, options, says):
    with pytest.raises(UsageError, match=says):
        make(limit=limit, **options)


def test_graphs_are_planned_for_each_hessian(monkeypatch):
    objective = make(ghost_batch=20)
    assert objective.kept_graphs is None
    for kept, hvp in ((0, "rebuilt"), (1, "partly retained"), (3, "retained"), (1, "partly retained")):
        monkeypatch.setattr(Hessian, "_plan", lambda self, kept=kept: kept)
        assert objective.hessian().hvp == objective.kept_graphs == hvp


def value(batch):
    """The loss of a mini-batch that is given as closures."""
    return sum(float(chunk().detach()) for chunk in batch)


def test_sampled_batches_of_the_full_batch_are_the_whole_set_once():
    objective = make(ghost_batch=20)
    (batch,) = objective.sample_batches(5, seed=0)
    assert value(batch) == pytest.approx(float(objective.gradient(0)), rel=1e-13)


def test_sampled_batches_are_independent_of_each_other_and_of_the_steps():
    objective = make(batch_size=20, ghost_batch=10)
    batches = objective.sample_batches(6, seed=0)
    assert [len(batch) for batch in batches] == [2] * 6
    values = list(map(value, batches))
    steps = [float(objective.gradient(step)) for step in range(3)]
    assert len({round(loss, 12) for loss in values + steps}) == 9
    again = objective.sample_batches(6, seed=0)
    assert list(map(value, again)) == values
    other = objective.sample_batches(6, seed=1)
    assert not set(map(value, other)) & set(values)
    every = sum(len(set(part.args[0].tolist())) for batch in batches for part in batch)
    assert every == 6 * 20  # without replacement within a mini-batch


def test_how_the_hessian_multiplies_is_chosen():
    for hvp in ("retained", "rebuilt"):
        assert make(hvp=hvp).hessian().hvp == hvp


def layouts(objective):
    """The layout of the input of every convolution in one forward pass."""
    seen = []
    for module in objective.model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(lambda _, x: seen.append(x[0].stride(1) == 1))
    objective.gradient(0)
    return seen


@pytest.mark.parametrize("batch_size", [None, 20])
@pytest.mark.parametrize("kept", [True, False])
def test_on_a_cpu_every_convolution_sees_the_channels_last(monkeypatch, kept, batch_size):
    if not kept:
        monkeypatch.setattr("optim_family.training.objective.KEPT_BYTES", 0)
    objective = make(model="bn_cnn", ghost_batch=20, batch_size=batch_size)
    assert objective.memory_format == "channels-last"
    seen = layouts(objective)
    assert seen and all(seen)


def test_the_layout_changes_the_loss_by_rounding_alone():
    first, last = (make(model="bn_cnn", memory_format=f) for f in ("contiguous", "channels-last"))
    assert not any(layouts(first))
    assert float(first.gradient(0)) == pytest.approx(float(last.gradient(0)), rel=1e-12)
    torch.testing.assert_close(first.space.gradient(), last.space.gradient(), rtol=1e-9, atol=1e-12)
    assert first.evaluate().test_loss == pytest.approx(last.evaluate().test_loss, rel=1e-9)


def test_a_network_that_cannot_take_channels_last_is_given_the_other_layout():
    class Views(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(4 * 36, 10)

        def forward(self, x):
            return self.fc(self.conv(x).view(len(x), -1))

    digits = datasets.load("digits", limit=20)
    objective = Objective(Views(), digits)
    assert objective.memory_format == "contiguous"
    objective.gradient(0)


def test_further_test_sets_are_evaluated_beside_the_first():
    digits = datasets.load("digits", limit=60)
    half = len(digits.y_test) // 2
    parts = {"a": slice(None, half), "b": slice(half, None)}
    digits = dataclasses.replace(
        digits, further_tests={name: (digits.x_test[p], digits.y_test[p]) for name, p in parts.items()}
    )
    network = build.build("bn_mlp", classes=10, channels=1, size=digits.size)
    evaluation = Objective(network, digits, ghost_batch=20).evaluate()
    assert set(evaluation.further) == {
        f"test_{what}_{name}" for what in ("loss", "accuracy") for name in "ab"
    }
    for what, whole in (("loss", evaluation.test_loss), ("accuracy", evaluation.test_accuracy)):
        mean = (evaluation.further[f"test_{what}_a"] + evaluation.further[f"test_{what}_b"]) / 2
        assert mean == pytest.approx(whole, rel=1e-6)
    assert evaluation.test_loss > 0


def test_every_loss_of_a_specification_has_its_function():
    assert tuple(LOSSES) == get_args(Loss)
    with pytest.raises(KeyError, match="hinge"):
        make(loss="hinge")
