"""Contexts of the whole process, shared by its threads."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, final


@final
class SharedContext(AbstractContextManager[None]):
    """Enters a context with its first user and exits it with its last, in any threads.

    Two overlapping uses of an ordinary context would leave the process in the state inside the context.

    Args:
        make: returns a new context; called for each first user.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self.make, self.users, self.lock = make, 0, threading.Lock()
        self.context: AbstractContextManager[Any] | None = None

    def __enter__(self) -> None:
        with self.lock:
            if not self.users:
                context = self.make()
                context.__enter__()
                self.context = context
            self.users += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.users -= 1
            if not self.users and self.context is not None:
                context, self.context = self.context, None
                context.__exit__(None, None, None)
