"""What it costs, side by side in one process; never timed in tests."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def seconds(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds that a piece of work takes, and its result."""
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result
