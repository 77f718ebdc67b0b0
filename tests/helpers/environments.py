"""Commands in environments of their own: with these sources, or with none."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import optim_family
from tests.helpers import ROOT

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(optim_family.__file__).parents[1]),
}
SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "optim_family", "models", "studies")


def copy_sources(target: Path) -> Path:
    """The files that the project is built from, and nothing that a build has left in them."""
    target.mkdir(exist_ok=True)
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target / name)
    return target


def borrow_libraries(site: Path) -> None:
    """Let an environment see the libraries of this one, also those that this one borrows itself.

    A .pth file in a folder that a .pth file names is not read: an editable install here stays unseen.
    """
    folders = dict.fromkeys(folder for folder in sys.path if Path(folder).name == "site-packages")
    (site / "borrowed.pth").write_text("\n".join(folders) + "\n")


def call(*command, cwd, **env):
    """Stdout of a command that knows nothing of this checkout."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=inherited | env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_until(condition, process):
    """The value of a condition of the process once it is true."""
    end = time.monotonic() + 300
    while time.monotonic() < end and process.poll() is None:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"it did not begin: {process.communicate()}")
