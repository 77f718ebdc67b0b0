"""Tests on a CUDA card that does not exist; `tests/test_rehearsal.py` runs them in a process of their own.

torch starts the threads of its devices once in a process, so that these tests would change all others:
without OPTIM_FAMILY_REHEARSAL=1 pytest collects none of them.
"""

import os
from pathlib import Path

import pytest
import torch

from optim_family import space
from optim_family.curvature import conv2d
from optim_family.training.loop import train
from tests.helpers.rehearsed_cuda import install, rehearsed_cuda
from tests.helpers.training_runs import spec, write_images

collect_ignore_glob = []
if os.environ.get("OPTIM_FAMILY_REHEARSAL"):
    install()
    torch.set_num_threads(1)
else:
    collect_ignore_glob.append("test_*.py")


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> str:
    """A data set of 40 training and 20 test images, [3, 8, 8]."""
    return write_images(tmp_path_factory.mktemp("data") / "images.npz", 8)


@pytest.fixture
def same_layout(monkeypatch):
    """The CPU computes in the layout of a GPU, with the same sums: its results are equal bitwise."""
    monkeypatch.setattr(conv2d, "_channels_last", lambda t: t)
    monkeypatch.setattr(conv2d, "PLACES", 0)
    monkeypatch.setattr(conv2d, "PATCHES", 0)
    monkeypatch.setattr(space, "BLOCK", 2**40)


@pytest.fixture
def run(images, tmp_path):
    """Train on the CPU, or on the card, into the folder of that name; returns the folder."""

    def execute(device: str, *, stop=None, resume=False, **changes) -> Path:
        folder = tmp_path / device
        fields = spec(**({"data": images, "limit": None} | changes), device=device)
        options = {"stop": stop, "resume": resume, "memory_format": "contiguous"}
        if device == "cpu":
            train(fields, folder, **options)
        else:
            with rehearsed_cuda():
                train(fields, folder, **options)
        return folder

    return execute
