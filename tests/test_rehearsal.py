"""The code of the CUDA path runs in CI: `tests/rehearsal` on a card that does not exist, in one process."""

import os
import subprocess
import sys

from tests.helpers import ROOT


def test_everything_runs_on_a_card_that_does_not_exist():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-s",
        "-p",
        "no:cacheprovider",
        "tests/rehearsal",
        "tests/gpu",
    ]
    environment = {**os.environ, "OPTIM_FAMILY_REHEARSAL": "1", "OMP_NUM_THREADS": "1"}
    environment = {key: value for key, value in environment.items() if not key.startswith("PYTEST_XDIST")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    print(done.stdout)  # with the table of waits: pytest -s shows it
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
