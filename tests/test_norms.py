"""Norms against their definitions: dual norm and maximiser by brute force, duality on random vectors."""

import itertools
import math

import pytest
import torch

from optim_family.geometry import DiagonalMetric, MetricNorm, ScalarMetric
from optim_family.norms import Block, BlockNorm, MaxNorm, SpectralNorm
from tests.helpers.operators_for_tests import draw

SHAPES, RADII = [(4, 3), (2, 2, 3)], [1.0, 0.5]
NORMS = {
    "l2": MetricNorm(ScalarMetric(24)),
    "metric": MetricNorm(DiagonalMetric(torch.linspace(0.3, 5, 24, dtype=torch.float64))),
    "max": MaxNorm(24),
    "spectral": SpectralNorm(SHAPES, RADII),
    "blocks": BlockNorm(
        [
            Block(torch.arange(12, 24), SpectralNorm([(4, 3)], [2.0]), 0.7),
            Block(torch.arange(0, 12), MaxNorm(12), 3.0),
        ]
    ),
}
every_norm = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)


@every_norm
def test_the_maximiser_has_norm_one_and_attains_the_dual_norm(norm):
    for seed in range(20):
        g = draw(24, seed=seed)
        s = norm.maximizer(g)
        assert norm.value(s) == pytest.approx(1, rel=1e-12)
        assert float(g @ s) == pytest.approx(norm.dual(g), rel=1e-12)


@every_norm
def test_no_step_of_norm_one_gains_more(norm):
    for seed in range(200):
        g, d = draw(24, seed=seed), draw(24, seed=seed + 1000)
        assert float(g @ d) <= norm.dual(g) * norm.value(d) * (1 + 1e-12)


@every_norm
def test_it_is_a_norm(norm):
    a, b = draw(24, seed=1), draw(24, seed=2)
    assert norm.value(-3 * a) == pytest.approx(3 * norm.value(a), rel=1e-12)
    assert norm.value(a + b) <= norm.value(a) + norm.value(b) + 1e-12
    assert norm.value(0 * a) == 0


@every_norm
def test_no_unit_step_is_longer_than_the_radius(norm):
    lengths = [float(norm.maximizer(draw(24, seed=seed)).norm()) for seed in range(50)]
    assert max(lengths) <= norm.radius() * (1 + 1e-12)
    if math.isfinite(norm.radius()) and not isinstance(norm, BlockNorm):
        assert max(lengths) == pytest.approx(norm.radius(), rel=1e-12)  # attained at every maximiser


def test_the_dual_of_the_maximum_norm_is_that_of_all_signs():
    g = draw(8)
    signs = torch.tensor(list(itertools.product([1.0, -1.0], repeat=8)), dtype=torch.float64)
    assert MaxNorm(8).dual(g) == pytest.approx(float((signs @ g).max()), rel=1e-12)


def test_blocks_descend_in_each_block_by_its_own_rule():
    norm, g = NORMS["blocks"], draw(24)
    step = norm.dual(g) * norm.maximizer(g)
    for block in norm.blocks:
        part = g[block.indices]
        own = block.norm.dual(part) * block.norm.maximizer(part) / block.weight**2
        assert torch.allclose(step[block.indices], own, rtol=1e-12)


def test_bad_arguments_have_one_line():
    with pytest.raises(ValueError, match=r"shape \(5,\)"):
        SpectralNorm([(4, 3), (5,)], [1.0, 1.0])
    with pytest.raises(ValueError, match="positive and finite"):
        SpectralNorm([(4, 3)], [0.0])
    with pytest.raises(ValueError, match="every weight once"):
        BlockNorm([Block(torch.tensor([0, 1]), MaxNorm(2)), Block(torch.tensor([1]), MaxNorm(1))])
    with pytest.raises(ValueError, match="weights of blocks"):
        BlockNorm([Block(torch.tensor([0, 1]), MaxNorm(2), 0.0)])
