"""The threshold in the docstring of an optimizer is its declared one, and that of docs/theory.md."""

import re

import pytest
import torch

from optim_family import registry
from tests.helpers import ROOT

THEORY = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
LETTERS = {"ηλ": "s", "β₁": "b", "β": "b", "η": "lr", "−": "-", "2 (": "2 * (", ") lr": ") * lr"}


def formula(optimizer):
    return re.search(r"threshold (2 [^.;]*)[.;]", optimizer.__doc__)[1]


@pytest.mark.parametrize("name", ["gd", "sgd", "rmsprop", "adamw"])
def test_the_formula_is_the_declaration(name):
    optimizer, text = registry.load(name), formula(registry.load(name))
    assert f"| {text} |" in THEORY
    for old, new in LETTERS.items():
        text = text.replace(old, new)
    momentum = {"gd": "momentum", "sgd": "momentum", "adamw": "beta1"}.get(name)
    w = torch.ones(3, requires_grad=True)
    w.grad = torch.ones(3)
    hyper = {"lr": 0.2, "weight_decay": 0.3} | ({momentum: 0.6} if momentum else {})
    declared = optimizer([w], **hyper).geometry().threshold
    assert declared == pytest.approx(eval(text, {"s": 0.06, "b": 0.6, "lr": 0.2}))
    assert declared != pytest.approx(optimizer([w], **hyper | {"weight_decay": 0.0}).geometry().threshold)
