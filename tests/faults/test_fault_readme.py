"""The README's three commands from one machine to many, carried out on something small."""

import re
import shlex
import subprocess
import sys

import pytest

from optim_family.runs.run import find_runs, read_run
from tests.helpers import ROOT
from tests.helpers.counts import SHARE
from tests.helpers.environments import ENVIRONMENT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\.venv/bin/((?:torchrun|optim-family study run) .*)$", TEXT, flags=re.MULTILINE)
SMALL = {
    "optim-family": "--set train.steps=4 --set measure.every=2 --set data.limit=100 --set train.model=bn_mlp "
    "--set train.seeds=[0] --only optimizer=gd --out runs/small",
    "torchrun": "--steps 4 --every 2 --device cpu",
}


def test_there_are_three():
    assert [line.split()[0] for line in COMMANDS] == ["optim-family", "torchrun", "optim-family"]


@pytest.mark.skipif(SHARE is None, reason="a minute each: part of `make faults`")
@pytest.mark.parametrize("line", COMMANDS)
def test_it_is_carried_out(tmp_path, line):
    if "submitit" in line:
        pytest.importorskip("submitit", reason="the extra slurm is not installed")
    program, *rest = shlex.split(line.replace("partition=gpu", "cluster=local"))
    modules = {"optim-family": "optim_family", "torchrun": "torch.distributed.run"}
    options = shlex.split(SMALL[program])
    finished = subprocess.run(
        [sys.executable, "-m", modules[program], *rest, *options],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    runs = find_runs(tmp_path / "runs")
    assert runs and all(read_run(path).status["status"] == "done" for path in runs)
