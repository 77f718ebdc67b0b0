"""Set torch's switches for precision and determinism inside a context; restore them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from optim_family.curvature.shared_context import SharedContext


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 products in float32 inside: no TF32, bfloat16 or autocast."""
    with _full_precision, ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def deterministic() -> Iterator[None]:
    """Use deterministic convolutions inside, on a GPU too."""
    with _deterministic:
        yield


@contextmanager
def _ieee() -> Iterator[None]:
    backends: Any = torch.backends
    switches = [
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
    ]
    before, older = [switch.fp32_precision for switch in switches], _older_switches()
    try:
        if older:
            _set_older_switches(False, "highest")
        for switch in switches:
            switch.fp32_precision = "ieee"
        yield
    finally:
        if older:
            _set_older_switches(*older)
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


def _older_switches() -> tuple[bool, str] | None:
    """The values under torch's older names; None if they contradict the newer ones: torch then raises."""
    try:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _set_older_switches(tf32: bool, matmul: str) -> None:
    cudnn: Any = torch.backends.cudnn
    cudnn.allow_tf32 = tf32
    torch.set_float32_matmul_precision(matmul)


@contextmanager
def _same_kernels() -> Iterator[None]:
    cudnn: Any = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


_full_precision, _deterministic = SharedContext(_ieee), SharedContext(_same_kernels)
