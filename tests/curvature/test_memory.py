import numpy as np
import pytest
import torch

from optim_family.curvature import memory
from optim_family.errors import OptimFamilyError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes."
            ),
            "to allocate 4096 bytes;",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0"),
            "to allocate 2.50 GiB;",
        ),
        (MemoryError("Unable to allocate 3.2 TiB for an array"), "to allocate 3.2 TiB;"),
        (MemoryError(), "out of memory; everything written"),
    ],
)
def test_the_bytes_and_the_way_out_are_said_in_one_line(error, said):
    with pytest.raises(OptimFamilyError) as caught, memory.explain_oom():
        raise error
    assert (
        said in str(caught.value) and "--ghost-batch" in str(caught.value) and "\n" not in str(caught.value)
    )


def test_numpy_and_torch_really_speak_like_that():
    for work in (lambda: torch.empty(2**60), lambda: np.empty(2**50)):
        with pytest.raises(OptimFamilyError, match=r"allocate \d"), memory.explain_oom():
            work()


def test_other_failures_are_left_alone():
    with pytest.raises(RuntimeError, match="no luck"), memory.explain_oom():
        raise RuntimeError("no luck")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("CUDA error: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", False),
    ],
)
def test_the_libraries_of_cuda_run_out_of_memory_in_words_of_their_own(message, expected):
    assert memory.out_of_memory(torch.AcceleratorError(message)) is expected
