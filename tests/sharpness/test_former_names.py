"""Former names of the core still work: docs/aliases.md lists them."""

import pytest
import torch

import optim_family
from optim_family import operators
from optim_family.sharpness import midpoint
from optim_family.space import ParameterSpace


def test_classes_have_their_former_names():
    assert optim_family.Trail is midpoint.Trail is midpoint.WeightHistory is optim_family.WeightHistory
    assert operators.Sandwich is operators.CongruenceOperator
    assert operators.Watched is operators.HookedOperator


def test_examine_knows_quantities_by_their_former_keyword():
    w = torch.nn.Parameter(torch.randn(5, dtype=torch.float64))
    hessian = operators.Diagonal(torch.arange(1.0, 6.0, dtype=torch.float64))
    former = optim_family.examine(hessian, ParameterSpace({"w": w}), looks=["trace"])
    assert set(former) == {"view", "reading", "trace"}


def test_hvp_is_known_by_its_former_name():
    torch.manual_seed(0)
    model, x = torch.nn.Linear(3, 2), torch.randn(4, 3)
    loss, chunks = torch.nn.functional.mse_loss, [(x, torch.randn(4, 2))]
    terms = optim_family.chunk_losses(model, loss, chunks)
    for hvp in ("retained", "rebuilt"):
        hessian = optim_family.Hessian(terms, [*model.parameters()], mode=hvp)
        assert hessian.mode == hessian.hvp == hvp
    assert optim_family.measure(model, loss, chunks, mode="rebuilt")["raw"].value > 0
    with pytest.raises(ValueError, match="there is no hvp 'rebuild'"):
        optim_family.measure(model, loss, chunks, mode="rebuild")


def test_every_row_of_the_page_names_something_that_exists():
    import importlib
    import re

    from tests.helpers import ROOT

    page = (ROOT / "docs" / "aliases.md").read_text(encoding="utf-8")
    names = re.findall(r"`(optim_family(?:\.\w+)+)`", page)
    assert len(names) >= 6
    for name in names:
        module, attribute = name.rsplit(".", 1)
        assert hasattr(importlib.import_module(module), attribute), name


def test_every_public_name_leads_somewhere():
    assert all(getattr(optim_family, name) is not None for name in optim_family.__all__)
