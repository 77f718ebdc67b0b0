"""Set torch's switches for precision and determinism inside a context; restore them."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
import torch.utils.deterministic

from optim_family.curvature.shared_context import SharedContext

_NOT_DETERMINISTIC: Final = re.compile(r"(\w+) does not have a deterministic implementation")


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 products in float32 inside: no TF32, bfloat16 or autocast."""
    with _full_precision, ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def tf32() -> Iterator[None]:
    """Multiply float32 numbers in TF32 on a GPU inside, also within `full_precision`; for training only."""
    backends: Any = torch.backends
    switches = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "tf32"
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


@contextmanager
def deterministic_convolutions() -> Iterator[None]:
    """Use deterministic convolutions inside, on a GPU too: the same product for the same vector."""
    with _convolutions:
        yield


@contextmanager
def deterministic() -> Iterator[None]:
    """Use deterministic operations inside, on a GPU too; torch warns of an operation that has none."""
    with _convolutions, _algorithms:
        yield


@contextmanager
def find_nondeterministic(names: list[str]) -> Iterator[None]:
    """Append the operations inside that are not deterministic; each warning of torch appears here only."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if match := _NOT_DETERMINISTIC.match(str(warning.message)):
            names += [match[1]] * (match[1] not in names)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


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


@contextmanager
def _same_algorithms() -> Iterator[None]:
    """On a GPU the deterministic variants of scatter, index and matrix products; on a CPU all are."""
    if not torch.cuda.is_available():
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    settings: Any = torch.utils.deterministic
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    filled = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings.fill_uninitialized_memory = False  # for bugs that read new memory; it costs a pass
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        settings.fill_uninitialized_memory = filled


_full_precision, _convolutions = SharedContext(_ieee), SharedContext(_same_kernels)
_algorithms = SharedContext(_same_algorithms)
