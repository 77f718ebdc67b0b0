"""Names of views, and of what is measured beside them."""

import pytest

from optim_family.sharpness.views import BATCH, MIDPOINT, parted, without_scale


@pytest.mark.parametrize("beside", ["", MIDPOINT, BATCH])
@pytest.mark.parametrize(
    ("view", "bare"),
    [
        ("raw", "raw"),
        ("spherical", "raw"),
        ("riemannian", "riemannian"),
        ("preconditioned", "preconditioned"),
        ("spherical-preconditioned", "preconditioned"),
    ],
)
def test_a_view_differs_by_its_scale_from_another_at_the_same_point(view, bare, beside):
    assert parted(view + beside) == (view, beside)
    assert without_scale(view + beside) == bare + beside
