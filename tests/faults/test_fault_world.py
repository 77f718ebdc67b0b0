"""torchrun: several processes compute what one does, and end together when one of them dies."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import optim_family
from optim_family.errors import Stopped
from optim_family.runs.run import read_run
from optim_family.training import checkpoint
from optim_family.training.loop import train
from tests.helpers.counts import SHARE
from tests.helpers.environments import free_port, wait_until
from tests.helpers.training_runs import StopAfter, spec

full = pytest.mark.skipif(SHARE is None, reason="each process takes its time to start: part of `make faults`")
RUN = (
    *("run", "--optimizer", "gd", "--lr", "0.3", "--weight-decay", "0.01", "--model", "bn_mlp"),
    *("--limit", "60", "--ghost-batch", "10", "--device", "cpu"),
)


def command(processes, *args, nodes=(1, 0, 0)):
    """`torchrun --nproc-per-node N -m optim_family …`, on one of several nodes."""
    count, number, port = nodes
    rendezvous = (
        "--nnodes",
        count,
        "--node-rank",
        number,
        "--master-addr",
        "127.0.0.1",
        "--master-port",
        port,
    )
    where = rendezvous if count > 1 else ("--standalone",)
    start = (sys.executable, "-m", "torch.distributed.run", *where, "--nproc-per-node", processes)
    return [str(part) for part in (*start, "-m", "optim_family", *args)]


def start(*args, **options):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(optim_family.__file__).parents[1]),
    }
    return subprocess.Popen(
        command(*args, **options),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process):
    words, _ = process.communicate(timeout=240)
    return process.returncode, words


# How long it took, and the evidence of a reading, which jumps where a product more or less suffices.
UNCERTAIN = ("elapsed", "seconds", "error", "bound", "residual", "products")


def numbers(value):
    """All numbers of some records, but for timings and counts of work."""
    if isinstance(value, dict):
        left = {k: v for k, v in value.items() if k not in UNCERTAIN}
        return [number for _, item in sorted(left.items()) for number in numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [float(value)] if isinstance(value, int | float) else []


def farthest(one, other):
    """The largest difference of two runs, relative to the larger number, over all records."""
    a, b = (torch.tensor(numbers(read_run(path).records), dtype=torch.float64) for path in (one, other))
    assert a.shape == b.shape and len(a) > 20
    return float(((a - b).abs() / torch.maximum(a.abs(), b.abs()).clamp_min(1e-300)).max())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Fifty steps by one process in both precisions."""
    root = tmp_path_factory.mktemp("alone")
    for precision in ("float64", "float32"):
        train(fifty(precision), root / precision)
    return root


def fifty(precision):
    rates = {"lr": 0.3, "weight_decay": 0.01, "momentum": 0.0}
    sizes = {"limit": 60, "ghost_batch": 10, "steps": 50, "every": 10, "batch_sharpness": 2}
    return spec(hyper=rates, precision=precision, rtol=RTOL[precision], **sizes)


FIFTY = (*RUN, "--steps", "50", "--every", "10", "--batch-sharpness", "2")
# So far do readings converge, and the numbers agree: rounding is 2⁻⁵³ and 2⁻²⁴, and fifty steps let it grow.
RTOL = {"float64": 1e-12, "float32": 1e-4}
AGREES = {"float64": 1e-12, "float32": 1e-3}


def fifty_by(precision):
    return (*FIFTY, "--precision", precision, "--rtol", str(RTOL[precision]))


TABLE = os.environ.get("OPTIM_FAMILY_WORLD_TABLE")


def note(key, value):
    """Into the table of results/reliability, where one is asked for."""
    if TABLE:
        known = json.loads(Path(TABLE).read_text()) if Path(TABLE).exists() else {}
        Path(TABLE).write_text(json.dumps(known | {key: value}, indent=2) + "\n")


@pytest.mark.parametrize(
    ("processes", "precision"),
    [(2, "float64"), pytest.param(3, "float64", marks=full), pytest.param(2, "float32", marks=full)],
)
def test_several_processes_compute_what_one_does(tmp_path, alone, held, processes, precision):
    code, words = ended(start(processes, *fifty_by(precision), "--out", tmp_path / "run"))
    assert code == 0, words
    run = read_run(tmp_path / "run")
    assert run.provenance["processes"] == processes and len(run.records) == 6
    difference = farthest(tmp_path / "run", alone / precision)
    note(f"{processes} processes, {precision}", difference)
    assert difference < AGREES[precision]
    held("several processes equal one", of=5)


def test_the_processes_deal_out_the_sample_of_a_reading(tmp_path, held):
    sizes = ("--limit", "160", "--ghost-batch", "10", "--steps", "20", "--every", "10")
    readings = ("--view", "raw", "--reading", "sampled", "--precision", "float64")
    where = ("--out", tmp_path / "two")
    code, words = ended(start(2, *RUN, *sizes, *readings, *where))
    assert code == 0, words
    rates = {"lr": 0.3, "weight_decay": 0.01, "momentum": 0.0}
    view = {"views": ["raw"], "reading": "sampled", "rtol": 1e-3, "precision": "float64"}
    train(spec(hyper=rates, limit=160, ghost_batch=10, steps=20, every=10, **view), tmp_path / "one")
    for record in read_run(tmp_path / "two").records:  # Lanczos follows if the sample does not converge
        assert record["views"]["raw"]["sample_products"]
    assert farthest(tmp_path / "two", tmp_path / "one") < AGREES["float64"]
    held("several processes equal one", of=5)


@full
def test_two_nodes_compute_what_one_does(tmp_path, alone, held):
    port = free_port()
    nodes = [
        start(1, *fifty_by("float64"), "--out", tmp_path / "run", nodes=(2, number, port))
        for number in (0, 1)
    ]
    for code, words in map(ended, nodes):
        assert code == 0, words
    difference = farthest(tmp_path / "run", alone / "float64")
    note("2 nodes of 1 process, float64", difference)
    assert difference < AGREES["float64"]
    held("several processes equal one", of=5)


@full
def test_the_mini_batches_of_a_reading_are_dealt_out(tmp_path, held):
    sizes = {"limit": 60, "ghost_batch": 10, "batch_size": 30, "steps": 10, "every": 5, "batch_sharpness": 3}
    rates = {"lr": 0.3, "weight_decay": 0.01, "momentum": 0.0}
    train(spec("sgd", hyper=rates, precision="float64", rtol=1e-12, **sizes), tmp_path / "alone")
    changed = {"--optimizer": "sgd", "--batch-size": 30, "--steps": 10, "--every": 5, "--batch-sharpness": 3}
    words = (
        *RUN,
        "--precision",
        "float64",
        "--rtol",
        "1e-12",
        *(w for pair in changed.items() for w in pair),
    )
    code, said = ended(start(3, *words, "--out", tmp_path / "run"))
    assert code == 0, said
    assert read_run(tmp_path / "run").records[-1]["views"]["spherical-batch"]["quotients"]
    difference = farthest(tmp_path / "run", tmp_path / "alone")
    note("3 processes, mini-batches, float64", difference)
    assert difference < AGREES["float64"]
    held("several processes equal one", of=5)


@full
def test_a_process_that_dies_ends_all_and_the_run_goes_on_at_another_size(tmp_path, held):
    out = tmp_path / "run"
    process = start(3, *RUN, "--rtol", "0.01", "--steps", "100000", "--every", "5", "--out", out)
    children = wait_until(lambda: has_records(out) and of(process.pid), process)
    os.kill(children[-1], 9)
    begin = time.monotonic()
    code, words = ended(process)
    seconds = time.monotonic() - begin
    note("seconds until all had ended after a kill −9 of one process", seconds)
    assert code != 0 and seconds < 60, words
    step = checkpoint.load_latest(out / "checkpoints", print)[0]
    status = read_run(out).status
    assert status["status"] == "stopped" and step > 0
    wanted = read_run(out).spec
    with pytest.raises(Stopped):
        train(spec().model_validate(wanted), out, resume=True, stop=StopAfter(60))
    assert read_run(out).provenance["processes"] == 1
    assert checkpoint.load_latest(out / "checkpoints", print)[0] > step
    held("one of several processes killed, all end and resume at another size", of=1)


def has_records(out):
    return (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").stat().st_size > 0


def of(parent):
    """The worker processes of a torchrun, by their numbers."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(number) for number in children]
