"""The declarations of both optimizers, compared with their real steps."""

import pytest
from example_optimizers.kron import Kron
from example_optimizers.lion import Lion

from optim_family import testing


@pytest.mark.parametrize("optimizer", [Kron, Lion], ids=lambda optimizer: optimizer.__name__)
@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_it_passes_every_check(optimizer, check):
    """A check that fails raises an AssertionError."""
    check(optimizer)
