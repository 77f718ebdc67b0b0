"""A reading of λ₁ along gradient descent, as multiples of a gradient, compared with other tools.

Two settings: a BN CNN of 23,184 weights on 512 digits, at twelve points 25 steps apart past the edge of
stability; resnet18 on 64 digits, at three points early in training. Full batch, one thread count. All tools
run in one process, in turn, for several rounds at each point; the median of the rounds counts. The true value
is that of `eigsh` at 1e-9 in a large basis. Two of the tools need `pip install '.[bench]'`; without it they
are left out.
"""

import math
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import final

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from benchmarks import seconds
from optim_family.curvature.lanczos import top_eigenpairs
from optim_family.data import datasets
from optim_family.networks import build
from optim_family.operators import SymmetricOperator
from optim_family.sharpness.probe import Probe
from optim_family.space import flatten, unflatten
from optim_family.training.objective import Objective

LR, DECAY, ROUNDS = 0.5, 2e-3, 3
CARD = 'summary = "as bn_cnn, of twice the width"\nbuiltin = "bn_cnn"\nkwargs = {{ width = 16 }}\n{rest}'
Solver = Callable[[Objective], float]
Sided = dict[str, list[float]]


def scipys(operator: SymmetricOperator, seed: int = 0, **options: object) -> float:
    def apply(v: np.ndarray) -> np.ndarray:
        vector = torch.from_numpy(v.ravel()).float().to(operator.device)
        return (operator @ vector).double().cpu().numpy()

    shape = (operator.dim, operator.dim)
    start = np.random.default_rng(seed).standard_normal(operator.dim)
    wrapped = LinearOperator(shape, matvec=apply, dtype=np.float64)
    return float(eigsh(wrapped, k=1, v0=start, return_eigenvectors=False, **options)[0])


@final
class Plain(SymmetricOperator):
    """Plain double backward; the graph is rebuilt for each product."""

    def __init__(self, objective: Objective) -> None:
        self.chunks, self.params, self.dim = (
            objective.chunk_losses(),
            objective.space.tensors,
            objective.space.dim,
        )

    @property
    def device(self) -> torch.device:
        """That of the weights."""
        return self.params[0].device

    def apply(self, v: Tensor) -> Tensor:
        """∇²L v, [d] → [d]."""
        total = torch.zeros_like(v)
        for chunk in self.chunks:
            gradient = torch.autograd.grad(chunk(), self.params, create_graph=True)
            total += flatten(torch.autograd.grad(gradient, self.params, unflatten(v, self.params)))
        return total


@final
class Recorded(SymmetricOperator):
    """An operator that remembers all its products, and so the Ritz values after each of them."""

    def __init__(self, middle: SymmetricOperator) -> None:
        self.middle, self.dim = middle, middle.dim
        self.vectors: list[Tensor] = []
        self.products: list[Tensor] = []

    def apply(self, v: Tensor) -> Tensor:
        """The product of the middle."""
        self.vectors.append(v.clone())
        self.products.append(self.middle @ v)
        return self.products[-1].clone()

    def gradient(self) -> Tensor | None:
        """That of the middle."""
        return self.middle.gradient()

    def enough(self, truth: float) -> float:
        """Products after which the largest Ritz value was right to 1e-3; ∞ if never."""
        vectors, products = (torch.stack(side).double() for side in (self.vectors, self.products))
        gram, projection = (vectors @ vectors.T).numpy(), (vectors @ products.T).numpy()
        for m in range(1, len(gram) + 1):  # after a restart the vectors are not orthogonal to all before
            top = eigh(projection[:m, :m], gram[:m, :m], eigvals_only=True)[-1]
            if abs(top / truth - 1) <= 1e-3:
                return m
        return math.inf


def curvlinops(objective: Objective) -> float:
    from curvlinops import HessianLinearOperator

    x, classes = objective.data.images(objective.data.x_train, torch.float32), objective.data.classes
    y = nn.functional.one_hot(objective.data.y_train, classes).float()
    operator = HessianLinearOperator(
        objective.model, nn.MSELoss(), list(objective.space.tensors), [(x, y)], check_deterministic=False
    )  # its mean runs over the classes as well
    return classes / 2 * float(eigsh(operator.to_scipy(np.float64), k=1, which="LA", ncv=8, tol=1e-3)[0][0])


def pyhessian(objective: Objective) -> float:
    from pyhessian import hessian

    x, y = objective.data.images(objective.data.x_train, torch.float32), objective.data.y_train
    evaluate, objective.model.eval = (
        objective.model.eval,
        lambda: objective.model,
    )  # it would leave training mode
    try:
        on_gpu = objective.device.type == "cuda"
        operator = hessian(objective.model, objective.loss_fn, data=(x, y), cuda=on_gpu)
        return float(operator.eigenvalues()[0][0])
    finally:
        objective.model.eval = evaluate


def ten_leading(objective: Objective) -> Tensor:
    """The eigenvectors of the ten largest eigenvalues, [10, d]."""
    start = torch.randn(objective.space.dim, generator=torch.Generator().manual_seed(0))
    options = {"k": 10, "rtol": 1e-5, "max_products": 400, "basis_size": 60}
    return top_eigenpairs(objective.hessian(), start, **options).vectors


def solvers() -> dict[str, Solver]:
    probe = Probe("raw")
    sides: dict[str, Solver] = {
        "optim-family": lambda o: probe(o.hessian(), o.space.weights()).value,
        "eigsh, defaults (largest magnitude)": lambda o: scipys(Plain(o)),
        "eigsh, which=LA, ncv=8, tol=1e-3": lambda o: scipys(Plain(o), which="LA", ncv=8, tol=1e-3),
    }
    return sides | optional_solvers()


def optional_solvers() -> dict[str, Solver]:
    """Those of the packages that are installed."""
    solvers = {"PyHessian, in training mode": pyhessian, "curvlinops, the same eigsh": curvlinops}
    return {name: solver for name, solver in solvers.items() if find_spec(solver.__name__)}


def trajectory(objective: Objective, points: list[int]) -> Iterator[int]:
    for step in range(points[-1] + 1):
        objective.gradient(step)
        if step in points:
            yield step
        w, g = objective.space.weights(), objective.space.gradient()
        objective.space.assign((1 - LR * DECAY) * w - LR * g)


def turns(sides: dict[str, Solver], objective: Objective, step: int) -> tuple[Sided, Sided]:
    """Time of each round of each tool, in gradients of that round, and its value of λ₁."""
    times: Sided = {name: [] for name in sides}
    values: Sided = {name: [] for name in sides}
    for _ in range(ROUNDS):
        gradient = statistics.median(seconds(partial(objective.gradient, step))[0] for _ in range(5))
        for name, solver in sides.items():
            time, value = seconds(partial(solver, objective))
            times[name].append(time / gradient)
            values[name].append(value)
    return times, values


def compare(title: str, card: str, limit: int, points: list[int]) -> None:
    digits = datasets.load("digits", limit=limit)
    model = build.build(card, classes=10, channels=1, size=digits.size)
    objective, sides = Objective(model, digits, ghost_batch=limit), solvers()
    costs: Sided = {name: [] for name in sides}
    relative: Sided = {name: [] for name in sides}
    errors: Sided = {name: [] for name in sides}
    probe, products, enough = Probe("raw"), [], []
    gradient_shares: list[
        float
    ] = []  # share of the gradient's square in the space of the ten largest eigenvalues
    overlaps: list[float] = []  # squared cosine of the top eigenvectors of this and the previous point
    before = None
    for step in trajectory(objective, points):
        truth = scipys(objective.hessian(), which="LA", ncv=40, tol=1e-9)
        times, values = turns(sides, objective, step)
        for name in sides:
            costs[name].append(statistics.median(times[name]))
            relative[name].append(statistics.median(np.divide(times[name], times["optim-family"])))
            errors[name] += [abs(value / truth - 1) for value in values[name]]
        recorded = Recorded(objective.hessian())
        products.append(probe(recorded, objective.space.weights()).products)
        enough.append(recorded.enough(truth))
        leading, slope = ten_leading(objective), objective.hessian().gradient()
        gradient_shares.append(float((leading @ slope).square().sum() / slope.square().sum()))
        if before is not None:
            overlaps.append(float(before @ leading[0]) ** 2)
        before = leading[0]
        objective.gradient(step)
        print(f"  step {step} done", file=sys.stderr)
    print(f"\n  {title}: D = {objective.space.dim:,}, n = {limit}, {len(points)} points in {ROUNDS} rounds")
    print("  | solver | gradients a reading (middle half) | times ours (middle half) | worst error |")
    print("  |---|---|---|---|")
    for name in sides:
        spreads = (np.quantile(ratios, [0.5, 0.25, 0.75]) for ratios in (costs[name], relative[name]))
        cells = ("{:.1f} ({:.1f} to {:.1f})".format(*spread) for spread in spreads)
        print(f"  | {name} | {' | '.join(cells)} | {max(errors[name]):.0e} |")
    print(
        f"  products of a reading: {statistics.median(products):g}; its value was right to 1e-3 after "
        f"{statistics.median(enough):g} (medians)"
    )
    print(
        f"  of the gradient's square {min(gradient_shares):.2f} to {max(gradient_shares):.2f} lie in the "
        "space of the ten largest eigenvalues;\n  squared cosine of successive top eigenvectors: "
        f"{min(overlaps):.3f} to {max(overlaps):.2f}"
    )


def main() -> None:
    with TemporaryDirectory() as folder:
        card = Path(folder) / "wide.toml"
        rest = "[adapt]\nreadout_norm = 10.0\nfreeze = ['fc.*']\n[expect]\ninvariant = 'bitwise'\n"
        card.write_text(CARD.format(rest=rest))
        compare("BN CNN past the edge", str(card), 512, [500 + 25 * i for i in range(12)])
    compare("resnet18 early in training", "resnet18", 64, [10, 20, 30])
