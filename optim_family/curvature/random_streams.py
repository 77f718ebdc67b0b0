"""The random streams of Python, numpy and torch, and the lock of the threads that draw from them."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
import torch


@final
@dataclass(frozen=True)
class RandomStreams:
    """The states of Python's, numpy's and torch's random numbers."""

    python: Any
    numpy: tuple[Any, ...]
    numpy_key: bytes
    torch_states: tuple[tuple["torch.device | None", bytes], ...]

    @classmethod
    def now(cls, devices: tuple[torch.device, ...] = ()) -> Self:
        """The present states, on these devices and the CPU."""
        name, key, *rest = np.random.get_state()
        states = [(None, torch.get_rng_state()), *((d, torch.cuda.get_rng_state(d)) for d in devices)]
        torch_states = tuple((device, state.numpy().tobytes()) for device, state in states)
        return cls(random.getstate(), (name, *rest), np.asarray(key).tobytes(), torch_states)

    def restore(self) -> None:
        """Restore all of them."""
        random.setstate(self.python)
        name, *rest = self.numpy
        np.random.set_state((name, np.frombuffer(self.numpy_key, dtype=np.uint32), *rest))
        for device, state in self.torch_states:
            numbers = torch.frombuffer(bytearray(state), dtype=torch.uint8)
            torch.set_rng_state(numbers) if device is None else torch.cuda.set_rng_state(numbers, device)


@final
class ReadWriteLock:
    """Many readers at a time, or one writer: readers draw no random numbers, the writer does."""

    def __init__(self) -> None:
        self.condition, self.readers, self.writing = threading.Condition(), 0, False

    @contextmanager
    def read(self) -> Iterator[None]:
        """Beside other readers, and no writer."""
        with self.condition:
            self.condition.wait_for(lambda: not self.writing)
            self.readers += 1
        try:
            yield
        finally:
            with self.condition:
                self.readers -= 1
                self.condition.notify_all()

    @contextmanager
    def write(self) -> Iterator[None]:
        """Alone."""
        with self.condition:
            self.condition.wait_for(lambda: not self.writing and not self.readers)
            self.writing = True
        try:
            yield
        finally:
            with self.condition:
                self.writing = False
                self.condition.notify_all()


random_lock = ReadWriteLock()
