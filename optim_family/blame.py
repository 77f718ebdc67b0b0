"""Who failed: an exception of a plugin names it, and what it prints does not mix with the answer."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from optim_family import registry
from optim_family.curvature.hessian import out_of_memory
from optim_family.errors import OptimFamilyError, PluginError, one_line


@contextmanager
def blamed(optimizer: str, what: str) -> Iterator[None]:
    """An exception inside names the plugin, but for a lack of memory; what a plugin prints goes to stderr."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (OptimFamilyError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        source = registry.entry(optimizer).source
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise PluginError(f"the optimizer {optimizer} ({source}) failed in {what}: {reason}") from error
