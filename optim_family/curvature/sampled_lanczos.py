"""The largest eigenvalues of a sum of many terms: a sample of the terms proposes, few full products correct.

A = Σ A_c over N terms (the chunks of a loss). B is the sum over m random terms, times N/m. The search keeps
the surrogate Ã of `surrogate_space`, exact on the vectors Q with known products and like B elsewhere:

    1  a full product with noise q, term by term; terms that stand out join the sample with their own weight
    2  Lanczos on B from q, until no eigenvalue of B can be above its largest Ritz value by more than 5 %
    3  x ← top eigenvector of Ã;   y ← A x, a full product;   Q ← Q + x
       θ ← λ₁ of A on Q, a lower bound of λ₁
       top ← λ₁(Ã + s (I − 𝒫)) at α = 1
       until top − θ ≤ rtol θ; once the eigenvector of Ã has converged, x is that of Ã + s (I − 𝒫)

For the k largest, step 3 compares the i-th eigenvalues, i ≤ k: the bound's eigenvector is the first whose
eigenvalue is above θ.

The quotient vᵀBv of a fixed unit vector v has the standard deviation σ √(1/m − 1/N), where σ is that of
vᵀA_cv over the terms, each divided by its share. Full products show σ at the proposals. With Z_SCORE such
deviations as s, λ₁ ≤ top except with a small probability, and by Weyl's inequality so are the others:
`error` is top − θ. So all directions that lie within s of θ must be in Q before the search ends.

Source: as `surrogate_space`; the deviation of the sample and the look at every term are our own.
"""

from dataclasses import replace
from itertools import starmap
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optim_family.curvature import lanczos_bound
from optim_family.curvature.krylov import ASYMMETRY, BOUND_RTOL
from optim_family.curvature.lanczos import Eigenpairs, value_errors
from optim_family.curvature.outlying_terms import outliers, sketched_product
from optim_family.curvature.surrogate_space import SurrogateSpace
from optim_family.operators import SymmetricOperator, require_finite_products
from optim_family.space import norm

# Operators with fewer terms are not sampled; with fewer than the second number it seldom pays.
MIN_TERMS, PAYING_TERMS = 8, 16
# The sample has this share of the terms, within limits.
SAMPLE_SHARE, MIN_SAMPLE, MAX_SAMPLE = 0.1, 1, 8
# The search ends without convergence after this many proposals, or vectors of the surrogate; so many more
# for each further eigenvalue, of which there are at most MAX_WANTED.
MAX_PROPOSALS, MAX_VECTORS = 8, 36
MORE_PROPOSALS, MORE_VECTORS, MAX_WANTED = 3, 8, 4
# Standard deviations of a quotient of the sample that s covers.
Z_SCORE: Final = 2.0
# Lanczos on B: relative error of the value, least and largest number of products.
FIRST_RTOL, FIRST_MIN, FIRST_MAX = 0.02, 9, 24
# With more terms that stand out a sample cannot represent the sum.
MAX_OUTLIERS: Final = 0.25
# The surrogate's eigenvector is good enough at this share of the error that a full product will show.
INNER_SHARE, INNER_MAX = 0.3, 8
# The finest tolerance: rounding in float32 is a hundredth of it.
FINEST_RTOL: Final = 1e-4

Array = NDArray[np.float64]


def can_sample(operator: SymmetricOperator, k: int, rtol: float, *, paying: bool = False) -> bool:
    """Whether the sum has enough terms (so that it pays) for k eigenvalues, and rtol is in reach."""
    large = operator.dim > 4 * (MAX_VECTORS + (k - 1) * MORE_VECTORS)
    large &= len(operator.shares) >= (PAYING_TERMS if paying else MIN_TERMS)
    return k <= MAX_WANTED and rtol >= FINEST_RTOL and large


def sample_size(terms: int) -> int:
    """m, for N terms."""
    return min(max(round(SAMPLE_SHARE * terms), MIN_SAMPLE), MAX_SAMPLE)


def sampled_top_eigenpairs(
    operator: SymmetricOperator,
    like: Tensor,
    k: int = 1,
    *,
    rtol: float = 1e-3,
    seed: int = 0,
    size: int | None = None,
) -> Eigenpairs:
    """The k most positive eigenvalues of A, a sum of terms, to the relative accuracy rtol.

    Not converged: the caller takes Lanczos instead. There is no `bound` for any spectrum.

    Args:
        operator: A on ℝᵈ, with at least MIN_TERMS terms.
        like: a vector [d] of the dtype and on the device of the products.
        k: number of eigenvalues, at most MAX_WANTED; a multiple one counts as often as it occurs.
        rtol: the search stops when each `error` is below rtol · |θ|.
        seed: of the noise and of the sample.
        size: number of terms in the sample; chosen by `sample_size` if None.

    Raises:
        FloatingPointError: a product is not finite.
    """
    generator = torch.Generator(like.device).manual_seed(seed)
    q = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    return SampledSearch(operator, q / norm(q).to(q.dtype), k, rtol, seed, size).run(generator)


@final
class SampledSearch:
    """Remembers the surrogate, s, and the evidence of the last full product.

    Attributes:
        history: after each proposal the products, those with the sample, θ, and top − θ of the first
            eigenvalue that has not converged.
    """

    def __init__(
        self, operator: SymmetricOperator, start: Tensor, k: int, rtol: float, seed: int, size: int | None
    ) -> None:
        self.operator, self.start, self.k, self.rtol = operator, start, k, rtol
        self.shares = np.array(operator.shares)
        self.order = torch.randperm(len(self.shares), generator=torch.Generator().manual_seed(seed)).tolist()
        self.size = size or sample_size(len(self.shares))
        self.max_proposals = MAX_PROPOSALS + (k - 1) * MORE_PROPOSALS
        self.max_vectors = MAX_VECTORS + (k - 1) * MORE_VECTORS
        self.products, self.sample_share = 0, 0.0
        self.theta = np.zeros(k)  # largest eigenvalues of A on Q; 0 while Q is smaller
        self.spread = 0.0  # σ, the largest of the proposals
        self.margin = np.inf  # s
        self.mismatch = np.inf  # ‖(I − 𝒫)(A − αB) q‖ at the last proposal q
        self.errors = np.full(k, np.inf)
        self.doubtful = 0  # the first eigenvalue whose bound is too large
        self.missing = 0  # directions above θ + rtol θ in the bound; a full product decides about one
        self.history: list[tuple[int, int, float, float]] = []

    def run(self, generator: torch.Generator) -> Eigenpairs:
        """The search, from noise."""
        product, sketches = sketched_product(self.operator, self.start, generator)
        self.products += 1
        flagged, length = outliers(sketches), float(norm(product))
        require_finite_products(length)
        self._draw(flagged)
        precise = self.operator.machine_epsilon <= torch.finfo(torch.float32).eps and 1e-15 < length < 1e15
        if len(flagged) > MAX_OUTLIERS * len(self.shares) or not precise:
            return self._result(False)
        self._search_sample()
        if self.space.filled <= self.k:  # the whole space of the sample's eigenvalues is known
            return self._result(False)
        self.space.learn(np.eye(self.space.filled)[0], product)
        while self.products <= self.max_proposals and self.space.filled < self.max_vectors:
            self._learn(self._proposal())
            if self.is_asymmetric or self.theta[0] <= 0:
                break
            converged = self._certify()
            theta, error = self.theta[self.doubtful], self.errors[self.doubtful]
            self.history.append((self.products, self.space.filled, float(theta), float(error)))
            if converged:
                return self._result(True)
            if self.missing > self.max_proposals + 1 - self.products:
                break
        return self._result(False)

    def _draw(self, flagged: list[int]) -> None:
        """B: the terms that stand out with weight 1, and a sample of the others."""
        self.others = [index for index in self.order if index not in flagged]
        sample = self.others[: self.size]
        self.sampled_part = 1 - float(self.shares[flagged].sum())  # share that the sample stands for
        weight = self.sampled_part / float(self.shares[sample].sum())
        weights = {**dict.fromkeys(flagged, 1.0), **dict.fromkeys(sample, weight)}
        self.sample_share = float(self.shares[[*weights]].sum())
        cheap = self.operator.weighted_terms(weights)
        self.space = SurrogateSpace(cheap, self.max_vectors, self.max_proposals + 1, self.start)

    def _search_sample(self) -> None:
        """Lanczos on B from the noise, until no eigenvalue can be far above its largest Ritz value."""
        space, component = self.space, lanczos_bound.least_component(self.operator.dim)
        space.expand(self.start)
        for p in range(1, FIRST_MAX):
            beta = space.expand(space.images[p - 1])
            if not beta:  # the span is invariant
                return
            diagonal = np.diag(space.projection)[:p]
            off_diagonal = np.append(np.diag(space.projection, -1)[: p - 1], beta)
            theta, vectors = np.linalg.eigh(space.projection[:p, :p])
            residuals = beta * np.abs(vectors[-1])
            error = value_errors(theta[::-1], residuals[::-1])[0]
            if p >= FIRST_MIN and error <= FIRST_RTOL * abs(theta[-1]):
                bound = lanczos_bound.upper_bound(diagonal, off_diagonal, component)
                if bound - theta[-1] <= BOUND_RTOL * abs(theta[-1]):
                    return

    def _proposal(self) -> Array:
        """The top eigenvector of Ã in coordinates [p], refined by products with B."""
        space = self.space
        for _ in range(INNER_MAX):
            theta, vectors = space.ritz(space.factor)
            residual = space.residuals(theta[:1], vectors[:, :1], space.factor)[0]
            length, gap = float(norm(residual)), max(theta[0] - theta[1], 1e-12 * abs(theta[0]))
            self.expected = theta[0] + self.margin * self._sine(vectors[:, 0]) ** 2 - self.theta[0]
            error = min(length, length**2 / gap)
            if np.isinf(self.margin):
                good = error <= FIRST_RTOL * abs(theta[0])
            else:
                gain = max(theta[0] - self.theta[0], self._tolerance[0])
                close = length <= INNER_SHARE * self.mismatch * self._sine(vectors[:, 0])
                good = error <= 0.1 * self._tolerance[0] or (close and error <= INNER_SHARE * gain)
            if good or space.filled == self.max_vectors or not space.expand(residual):
                break
        return space.ritz(space.factor)[1][:, 0]

    @property
    def _tolerance(self) -> Array:
        """rtol |θ|, [k]."""
        return self.rtol * np.abs(self.theta)

    def _certify(self) -> bool:
        """top − θ ≤ rtol θ, for each of the k; `errors` are the left sides, from Ã + s (I − 𝒫)."""
        space, k = self.space, self.k
        for _ in range(INNER_MAX):
            theta, vectors = space.ritz(1.0, self.margin)
            leading = min(k + 3, len(theta))
            rest = space.residuals(theta[:leading], vectors[:, :leading], 1.0, self.margin)
            residuals = norm_of_rows(rest)
            self.errors = theta[:k] + np.array(value_errors(theta[:leading], residuals)[:k]) - self.theta
            self.doubtful = i = int(np.argmax(self.errors > self._tolerance))
            self.missing = self._missing(theta)
            missed = theta[i] > self.theta[i] + self._tolerance[i]
            if self._is_certain or (missed and residuals[i] <= INNER_SHARE * self.margin):
                break
            if space.filled == self.max_vectors or not space.expand(rest[i]):
                break
        return self._is_certain

    def _missing(self, upper: Array) -> int:
        """Eigenvalues of the bound, largest first, that are above the k-th of A as far as Ã tells."""
        last = max(self.theta[-1], self.space.ritz(self.space.factor)[0][self.k - 1])
        return int(np.sum(upper[self.k - 1 :] > last + self.rtol * abs(last)))

    @property
    def _is_certain(self) -> bool:
        return bool((self.errors <= self._tolerance).all())

    def _learn(self, coordinates: Array) -> None:
        """A full product with the proposal, or once it has converged with a vector of the bound."""
        space = self.space
        if self.expected <= 0.5 * self._tolerance[0]:
            coordinates = space.ritz(1.0, self.margin)[1][:, self.doubtful]
        coordinates = space.direction(coordinates)
        q = space.vectors(coordinates[:, None])[0]
        quotients = torch.zeros(len(self.shares), dtype=torch.float64, device=q.device)

        def see(index: int, term: Tensor) -> None:
            quotients[index] = torch.dot(q, term)

        product = self.operator.apply_by_terms(q, see).detach()
        self.products += 1
        values = self.operator.all_reduce_terms(quotients).cpu().numpy() / self.shares
        self.spread = max(self.spread, float(np.std(values[self.others], ddof=1)))
        variance = max(0.0, 1 / self.size - 1 / len(self.others))
        self.margin = Z_SCORE * self.spread * variance**0.5 * self.sampled_part
        self.mismatch = space.learn(coordinates, product)
        exact = space.exact()[0][: self.k]
        self.theta[: len(exact)] = exact

    def _sine(self, coordinates: Array) -> float:
        """Between a vector of norm 1 and Q."""
        return float(np.linalg.norm(self.space.off_known(coordinates)))

    @property
    def is_asymmetric(self) -> bool:
        """The products contradict each other; Lanczos then judges whether rounding is the cause."""
        return self.space.asymmetry > ASYMMETRY

    def _result(self, converged: bool) -> Eigenpairs:
        empty = Eigenpairs((), self.start[None], (), (), np.inf, self.products, False, method="sampled")
        pairs = replace(empty, sample_products=self.space.filled, sample_share=self.sample_share)
        if not converged:
            return pairs
        values, vectors = self.space.exact()
        pairs_of_q = [(float(values[i]), vectors[:, i]) for i in range(self.k)]
        return replace(
            pairs,
            values=tuple(value for value, _ in pairs_of_q),
            vectors=self.space.vectors(vectors[:, : self.k]),
            residuals=tuple(starmap(self.space.residual_of_exact, pairs_of_q)),
            errors=tuple(max(float(error), 0.0) for error in self.errors),
            converged=True,
        )


def norm_of_rows(rows: Tensor) -> Array:
    """‖rᵢ‖ for the rows [m, d], in float64 [m]."""
    norms: Array = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).cpu().numpy()
    return norms
