"""The bound that knows nothing of the spectrum, against operators whose spectrum is known."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from optim_family.curvature import lanczos_bound
from optim_family.curvature.lanczos import Eigenpairs, top_eigenpairs
from optim_family.curvature.lanczos_bound import RISK, least_component, upper_bound
from optim_family.operators import Diagonal, SymmetricOperator
from optim_family.sharpness.probe import Probe

Array = NDArray[np.float64]
Random = np.random.Generator

# --- the two parts ----------------------------------------------------------------------------------------


def test_a_random_direction_has_a_component_of_known_law() -> None:
    """On a circle the angle is uniform, on the sphere (Archimedes) the height."""
    assert least_component(1) == 1.0
    assert least_component(2) == pytest.approx(math.sin(math.pi * RISK / 2) ** 2, rel=1e-10)
    assert least_component(3) == pytest.approx(RISK**2, rel=1e-10)


def test_in_many_dimensions_the_component_is_that_of_a_gaussian() -> None:
    quantile = RISK * math.sqrt(math.pi / 2)  # of |N(0, 1)|, to RISK³
    assert least_component(10**7) * 10**7 == pytest.approx(quantile**2, rel=1e-5)


def test_the_part_of_the_start_that_is_not_random_does_not_count() -> None:
    assert least_component(1_000, share=0.5) == pytest.approx(least_component(1_000) / 4)


def lanczos(spectrum: Array, start: Array, steps: int) -> tuple[Array, Array]:
    """α [m] and β [m] of diag(spectrum), by orthogonalising the Krylov vectors."""
    basis = [start / np.linalg.norm(start)]
    alpha, beta = np.zeros(steps), np.zeros(steps)
    for j in range(steps):
        rest = spectrum * basis[j]
        alpha[j] = rest @ basis[j]
        for _ in range(2):
            rest -= np.array(basis).T @ (np.array(basis) @ rest)
        beta[j] = np.linalg.norm(rest)
        basis.append(rest / beta[j])
    return alpha, beta


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_with_the_true_component_the_bound_holds_for_certain(steps: int) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        spectrum, start = np.sort(rng.standard_normal(40)), rng.standard_normal(40)
        component = float((start[-1] / np.linalg.norm(start)) ** 2)
        assert upper_bound(*lanczos(spectrum, start, steps), component) >= spectrum[-1] * (1 - 1e-10)


def test_the_bound_is_attained() -> None:
    """Of two eigenvalues one step knows mean and spread; a mass c² at the top then has no other place."""
    spectrum, start = np.array([-1.0, 2.0]), np.array([math.sqrt(0.9), math.sqrt(0.1)])
    assert upper_bound(*lanczos(spectrum, start, 1), 0.1) == pytest.approx(2.0, rel=1e-10)


def test_a_larger_component_or_one_more_step_leaves_less_room() -> None:
    rng = np.random.default_rng(0)
    spectrum, start = rng.standard_normal(200), rng.standard_normal(200)
    bounds = [upper_bound(*lanczos(spectrum, start, steps), 1e-6) for steps in (2, 5, 10, 20)]
    assert bounds == sorted(bounds, reverse=True)
    assert upper_bound(*lanczos(spectrum, start, 5), 1e-3) < bounds[1]


# --- readings of operators with known spectra --------------------------------------------------------------


def clustered(rng: Random, dim: int) -> Array:
    spectrum = rng.standard_normal(dim).clip(-4, 4)
    members = min(dim, int(rng.integers(2, 7)))
    spectrum[:members] = 10 * (1 - 10 ** rng.uniform(-4, -0.7) * rng.random(members))
    return spectrum


def negative(rng: Random, dim: int) -> Array:
    spectrum = rng.standard_normal(dim) - 60 * rng.random(dim)
    spectrum[-1] = rng.uniform(1, 50)
    return spectrum


def outlier(rng: Random, dim: int) -> Array:
    spectrum = rng.standard_normal(dim)
    spectrum[0] = rng.uniform(5, 1000)
    return spectrum


KINDS: dict[str, Callable[[Random, int], Array]] = {
    "clustered": clustered,
    "negative beside 50, -80, 30": lambda rng, dim: np.resize([50.0, -80.0, 30.0], dim),
    "most of it negative": negative,
    "degenerate": lambda rng, dim: rng.choice([5.0, 1.0, 0.0, -2.0], dim),
    "zero": lambda rng, dim: np.zeros(dim),
    "indefinite": lambda rng, dim: rng.standard_normal(dim),
    "one outlier": outlier,
    "geometric": lambda rng, dim: 10 * rng.uniform(0.7, 0.99) ** np.arange(dim),
}
SEEDS = 32


class Reflected(SymmetricOperator):
    """R diag(a) R with a Householder reflection R = I − 2uuᵀ: the spectrum a in another basis."""

    def __init__(self, spectrum: Tensor, normal: Tensor) -> None:
        self.dim, self.spectrum = len(spectrum), spectrum
        self.normal = normal / torch.linalg.vector_norm(normal)

    def apply(self, v: Tensor) -> Tensor:
        return self.reflect(self.spectrum * self.reflect(v))

    def reflect(self, v: Tensor) -> Tensor:
        return v - 2 * (self.normal @ v) * self.normal


def reading(kind: str, seed: int, **options: Any) -> tuple[float, Eigenpairs]:
    """The true λ₁ and what is found, in up to 3,000 dimensions; every other operator in float32."""
    rng, dtype = np.random.default_rng([seed, len(kind)]), (torch.float64, torch.float32)[seed % 2]
    dim = int(10 ** rng.uniform(0, 3.5))
    spectrum = torch.from_numpy(KINDS[kind](rng, dim)).to(dtype)
    normal, start = (torch.from_numpy(rng.standard_normal(dim)).to(dtype) for _ in range(2))
    pairs = top_eigenpairs(Reflected(spectrum, normal), start, rtol=1e-3, **options)
    return float(spectrum.double().max()), pairs


def violations(kind: str, **options: Any) -> list[tuple[float, float, float]]:
    """Where the true value lies outside [value − rounding, value + bound]."""
    readings = [reading(kind, seed, **options) for seed in range(SEEDS)]
    rows = [(true, p.values[0], p.bound) for true, p in readings]
    return [row for row in rows if not -2e-5 * abs(row[0]) <= row[0] - row[1] <= row[2]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_true_value_lies_within_the_bound(kind: str) -> None:
    assert violations(kind) == []


@pytest.mark.parametrize("kind", ["clustered", "geometric", "indefinite"])
def test_a_restart_does_not_break_the_bound(kind: str) -> None:
    assert violations(kind, basis_size=8) == []


def test_without_the_dimension_it_would_be_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanczos_bound, "least_component", lambda dim, share: 0.2)
    assert len(violations("clustered")) > 3


def test_the_estimate_that_readings_stop_on_is_not_such_a_bound() -> None:
    """It speaks of the eigenvalues that were met; in a cluster some were not."""
    readings = [reading("clustered", seed) for seed in range(SEEDS)]
    assert any(true - pairs.values[0] > pairs.errors[0] for true, pairs in readings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_three_million_dimensions(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    spectrum, normal, start = torch.randn(3, 3_000_000, generator=generator, dtype=dtype)
    spectrum[:3] = torch.tensor([80.0, -200.0, 60.0])
    pairs = top_eigenpairs(Reflected(spectrum, normal), start, rtol=1e-4, basis_size=12)
    assert pairs.values[0] == pytest.approx(80.0, rel=1e-4)
    assert 80.0 - pairs.values[0] <= pairs.bound < 1.0


def test_a_warm_start_has_a_bound_too() -> None:
    """What is remembered may be orthogonal to the eigenvector that has risen just above."""
    for seed in range(SEEDS):
        spectrum = torch.from_numpy(clustered(np.random.default_rng(seed), 500))
        order, remembered = spectrum.argsort(descending=True), torch.zeros(500, dtype=torch.float64)
        remembered[order[1]] = 1.0
        probe = Probe("raw", seed=seed)
        probe.load_state_dict({"count": 1, "start": remembered})
        reading_of_ones = probe(Diagonal(spectrum), torch.ones(500, dtype=torch.float64))
        assert 0 <= float(spectrum.max()) - reading_of_ones.value <= reading_of_ones.bound


def test_an_invariant_space_leaves_no_room() -> None:
    pairs = top_eigenpairs(Diagonal(torch.tensor([3.0, 2.0, 1.0])), torch.ones(3))
    assert pairs.bound < 1e-4
