"""Names of views, and of what is measured beside them."""

import pytest

from optim_family.sharpness.views import BATCH, MIDPOINT, split_view_name, unscaled_view


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
    assert split_view_name(view + beside) == (view, beside)
    assert unscaled_view(view + beside) == bare + beside
