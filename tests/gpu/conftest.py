"""Tests for a CUDA card: skipped without one, and rehearsed on one that does not exist."""

import os

import pytest
import torch

from tests.helpers.rehearsed_cuda import install, rehearsed_cuda

REHEARSAL = bool(os.environ.get("OPTIM_FAMILY_REHEARSAL"))
if REHEARSAL:
    install()


@pytest.fixture(autouse=True)
def card():
    """A card, or the one that does not exist."""
    if REHEARSAL:
        with rehearsed_cuda():
            yield
    elif torch.cuda.is_available():
        yield
    else:
        pytest.skip("there is no CUDA card")


@pytest.fixture
def real_card():
    """A card with kernels of CUDA and cuDNN, with memory and a clock of its own."""
    if REHEARSAL:
        pytest.skip("only a real card can tell")
