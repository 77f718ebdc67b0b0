"""`--out` where the user may not write, for a user without root's privilege to write everywhere."""

import ctypes
import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT
from tests.helpers.environments import ENVIRONMENT

RUN = "run --optimizer gd --model bn_mlp --limit 20 --steps 2 --every 2 -q --out"
STORED = ROOT / "tests" / "stored_runs" / "finished"
COMMANDS = {
    "a new run": f"{RUN} FOLDER/new",
    "a run in an empty folder": f"{RUN} FOLDER",
    "a comparison in a new folder": f"compare {STORED} -q --out FOLDER/new",
    "a comparison in an empty folder": f"compare {STORED} -q --out FOLDER",
    "a measurement": "measure --model bn_mlp --limit 20 --rtol 0.1 -q --out FOLDER/new",
    "an export": f"export {STORED} --to parquet -q --out FOLDER/new",
    "a new plugin": "optimizers new mine -q --out FOLDER/new",
}
# One process for all commands: each prints its error, and the script its exit code, in one line.
SCRIPT = """
import sys
from optim_family.cli import main
sys.stderr = sys.stdout
for command in sys.argv[1:]:
    try:
        main(command.split())
    except SystemExit as exited:
        print("exit code", exited.code, flush=True)
"""
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE = 24, 1  # of linux/prctl.h and linux/capability.h


def _obey_permissions():
    """Let the program that this process executes obey permissions, though it may be root's."""
    if os.geteuid() == 0 and ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0):
        raise OSError("the capability could not be dropped")


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What each command printed in a folder that nobody may write."""
    if os.geteuid() == 0 and not sys.platform.startswith("linux"):
        pytest.skip("root may write everywhere here")
    folder = tmp_path_factory.mktemp("permissions") / "closed"
    folder.mkdir(mode=0o555)
    commands = [command.replace("FOLDER", str(folder)) for command in COMMANDS.values()]
    printed = subprocess.run(
        [sys.executable, "-c", SCRIPT, *commands],
        env=ENVIRONMENT,
        preexec_fn=_obey_permissions,
        capture_output=True,
        text=True,
    ).stdout
    assert os.listdir(folder) == []
    texts = printed.splitlines()
    return dict(zip(COMMANDS, zip(texts[::2], texts[1::2], strict=True), strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_the_user_may_not_write_is_a_mistake_of_the_request(answers, command):
    message, exit_code = answers[command]
    assert exit_code == "exit code 2"
    assert message.startswith("optim-family: ") and "/closed" in message
    assert "Permission denied" in message and "choose another folder" in message
