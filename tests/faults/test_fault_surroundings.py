"""No HOME, no terminal, LANG=C, a package that cannot be written to, no caches, a clock gone wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import optim_family
from optim_family.runs.run import read_run
from tests.helpers.counts import tries

# What is done to the surroundings before the command runs, in its process.
KINDS = {
    "no HOME": "os.environ.pop('HOME', None)",
    "no terminal": "os.environ.update(TERM='dumb'); os.environ.pop('COLUMNS', None)",
    "LANG=C": "os.environ.update(LANG='C', LC_ALL='C', PYTHONUTF8='0')",
    "read-only site-packages": """
import builtins
def guard(real, package={package!r}):
    def call(path, mode='r', *rest, **more):
        wants = mode if isinstance(mode, int) else (os.O_WRONLY if set(mode) & set('wax+') else 0)
        if isinstance(path, (str, os.PathLike)) and str(path).startswith(package) and wants & 3:
            raise OSError(30, 'Read-only file system', str(path))
        return real(path, mode, *rest, **more)
    return call
builtins.open, os.open, sys.dont_write_bytecode = guard(open), guard(os.open), True
""",
    "a clock that goes backwards": """
import itertools, time
ticks = itertools.count()
time.time = lambda: 2e9 - next(ticks)
""",
    "no temporary folder and no cache": "os.environ.update(TMPDIR='/nowhere', XDG_CACHE_HOME='/nowhere')",
}
COMMAND = (
    *("run", "--optimizer", "gd", "--model", "bn_mlp", "--limit", "20", "--steps", "2", "--every", "2"),
    *("--device", "cpu", "--rtol", "0.1"),
)
START = "import os, sys\n{kinds}\nfrom optim_family.cli import main\nmain(sys.argv[1:])\n"


# All at once in the ordinary tests; each by itself as well in `make faults`.
@pytest.mark.parametrize("kinds", [list(KINDS)] + tries(0, 1) * [[kind] for kind in KINDS], ids=len)
def test_a_run_goes_well_all_the_same(tmp_path, held, kinds):
    code = START.format(kinds="\n".join(KINDS[kind] for kind in kinds))
    code = code.replace("{package!r}", repr(str(Path(optim_family.__file__).parent)))
    kept = {k: v for k, v in os.environ.items() if k not in ("LANG", "LC_ALL", "HOME")}
    environment = kept | ({} if "no HOME" in kinds else {"HOME": str(tmp_path)})
    finished = subprocess.run(
        [sys.executable, "-c", code, *COMMAND, "--out", str(tmp_path / "run")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr.decode(errors="replace")
    assert read_run(tmp_path / "run").status["status"] == "done"
    assert (tmp_path / "run" / "figure.svg").exists()
    for _ in kinds:
        held("no HOME, no terminal, LANG=C, read-only package, clock backwards", of=6)
