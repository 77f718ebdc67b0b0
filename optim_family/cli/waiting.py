"""A word where the first import of torch makes a terminal wait."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import final


@final
class Notice(MetaPathFinder):
    """Finds no module; says once that one is looked for."""

    def __init__(self, module: str, say: Callable[[], None]) -> None:
        self.module, self.say, self.said = module, say, False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None: the others find it."""
        if fullname == self.module and not self.said:
            self.said = True
            self.say()
        return None


@contextmanager
def noticed(module: str, say: Callable[[], None]) -> Iterator[None]:
    """Say it when the module is first imported inside."""
    notice = Notice(module, say)
    sys.meta_path.insert(0, notice)
    try:
        yield
    finally:
        sys.meta_path.remove(notice)
