import numpy as np
import torch

from optim_family.curvature.outlying_terms import SKETCH, outliers, sketched_product
from tests.helpers.operators_for_tests import SumOfMatrices, draw


def test_outliers_are_rows_far_from_the_others() -> None:
    sketches = np.random.default_rng(0).standard_normal((20, 128))
    assert outliers(sketches) == []
    sketches[[3, 8]] += 2.0
    assert outliers(sketches) == [3, 8]
    assert outliers(np.ones((8, 4))) == []


def test_a_sketch_keeps_the_distances_of_the_products_of_single_terms() -> None:
    operator = SumOfMatrices(draw(600, 600, seed=i) * (3.0 if i == 4 else 1.0) for i in range(10))
    q = draw(600, seed=20)
    product, sketches = sketched_product(operator, q, torch.Generator().manual_seed(0))
    assert torch.allclose(product, operator.whole() @ q) and sketches.shape == (10, SKETCH)
    whole = 10 * (operator.terms @ q)  # over the share
    exact = torch.cdist(whole, whole)
    kept = torch.cdist(torch.from_numpy(sketches), torch.from_numpy(sketches))
    off_diagonal = ~torch.eye(10, dtype=torch.bool)
    assert torch.allclose(kept[off_diagonal] / exact[off_diagonal], torch.tensor(1.0).double(), atol=0.3)
    assert outliers(sketches) == [4]
