"""One writer at a time, nothing lost, nothing half-right."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from optim_family.errors import BusyError, CorruptError, UsageError
from optim_family.runs.run import find_runs, read_run
from optim_family.runs.store import RunStore, require_possible

SPEC = {"optimizer": "gd", "hyper": {"lr": 0.1, "beta": 0.0}, "views": ("raw",), "limit": None}

APPEND = """
import sys
from pathlib import Path
from optim_family.runs.store import RunStore
with RunStore.open(Path(sys.argv[1]), {"optimizer": "gd"}) as store:
    for step in range(10**9):
        store.append({"step": step, "x": step / 7, "text": "x" * (step % 500)})
        if step % 20 == 0:
            store.write("status.json", {"status": "running", "step": step})
            print(step, flush=True)
"""
HOLD = """
import sys
from pathlib import Path
from optim_family.errors import OptimFamilyError
from optim_family.runs.store import RunStore
try:
    with RunStore.open(Path(sys.argv[1]), {"optimizer": "gd"}):
        print("runs", flush=True)
        sys.stdin.read()
except OptimFamilyError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def start():
    """Starts programs on a path; what still runs at the end of the test is killed."""
    processes = []

    def start(program, path):
        command = [sys.executable, "-c", program, str(path)]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()


def record(step):
    return {"step": step, "loss": 1 / (step + 1), "views": {}}


@pytest.fixture
def run(tmp_path):
    """A finished run of three records."""
    with RunStore.open(tmp_path / "run", SPEC) as store:
        store.write("provenance.json", {"versions": {"torch": "2"}})
        for step in (0, 10, 20):
            store.append(record(step))
        store.write("status.json", {"status": "done", "step": 20, "seconds": float("nan")})
    return tmp_path / "run"


def test_the_store_needs_no_torch():
    code = "import sys, optim_family.runs.store; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_was_written_is_read(run):
    stored = read_run(run)
    assert stored.path == run and stored.spec == json.loads(json.dumps(SPEC))
    assert stored.status == {"status": "done", "step": 20, "seconds": None, "records": 3}
    assert stored.provenance == {"versions": {"torch": "2"}}
    assert stored.records == [record(step) for step in (0, 10, 20)]


def test_a_run_can_be_read_before_its_first_record_and_while_it_is_written(tmp_path):
    with RunStore.open(tmp_path, SPEC) as store:
        assert read_run(tmp_path).records == [] and read_run(tmp_path).status == {}
        store.append(record(0))
        stored = read_run(tmp_path)
        store.append(record(10))
        assert stored.records == [record(0)] and stored.columns.count == 1
    (tmp_path / "metrics.jsonl").unlink()
    assert read_run(tmp_path).records == []


def test_a_resumed_run_goes_on_where_the_log_ends(run):
    with RunStore.open(run, SPEC) as store:
        assert [store.append(record(step)) for step in (10, 20, 30)] == [False, False, True]
        with pytest.raises(CorruptError, match="not continued exactly"):
            store.append({**record(30), "loss": 0.0})
    assert [r["step"] for r in read_run(run).records] == [0, 10, 20, 30]


def test_another_specification_is_refused_with_every_differing_field(run):
    with pytest.raises(UsageError, match="different run") as caught:
        RunStore.open(run, {**SPEC, "hyper": {"lr": 0.2}, "limit": 7})
    assert "hyper.beta: 0.0, not null; hyper.lr: 0.1, not 0.2; limit: null, not 7" in str(caught.value)
    RunStore.open(run, SPEC).close()


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(UsageError, match="neither empty nor a run"):
        RunStore.open(tmp_path, SPEC)
    assert os.listdir(tmp_path) == ["thesis.tex"]
    with pytest.raises(UsageError, match="not a run directory"):
        read_run(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "nul\0", "thesis.tex", "thesis.tex/run", "loop/run"])
def test_a_path_that_cannot_be_a_folder_is_a_usage_error_of_one_line(tmp_path, name):
    (tmp_path / "thesis.tex").write_text("…")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UsageError, match="choose another folder") as caught:
        RunStore.open(tmp_path / name, SPEC)
    assert "\n" not in str(caught.value) and "\0" not in str(caught.value)


def test_whether_a_run_directory_is_possible_is_known_without_creating_it(tmp_path, run):
    require_possible(tmp_path / "new" / "run")
    require_possible(run)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("…")
    before = sorted(os.listdir(tmp_path))
    for name in ("other", "other/thesis.tex", "other/thesis.tex/run", "x" * 300):
        with pytest.raises(UsageError, match="choose another folder"):
            require_possible(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == before and "new" not in before


@pytest.mark.parametrize("name", ["--out", "🙂", " ", "a\nb"])
def test_an_odd_name_is_a_name(tmp_path, name):
    with RunStore.open(tmp_path / name, SPEC) as store:
        store.append(record(0))
    assert read_run(tmp_path / name).records == [record(0)]


@pytest.mark.parametrize("name", ["spec.json", "status.json", "provenance.json", "metrics.jsonl"])
def test_every_damaged_bit_is_noticed_by_reader_and_writer(run, name):
    whole, dice = (run / name).read_bytes(), random.Random(name)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        (run / name).write_bytes(damaged)
        with pytest.raises(CorruptError, match=r"damaged|newer"):
            read_run(run)
        if name != "provenance.json":  # which the writer replaces
            with pytest.raises(CorruptError, match=r"damaged|newer"):
                RunStore.open(run, SPEC)
    (run / name).write_bytes(whole)
    assert len(read_run(run).records) == 3
    RunStore.open(run, SPEC).close()


@pytest.mark.parametrize("lines", [0, 1, 2])
def test_a_log_that_lost_its_end_is_noticed(run, lines):
    whole = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join(whole[:lines]) + whole[lines][:-5])
    with pytest.raises(CorruptError, match=f"is truncated: it has {lines} records, but status.json counts 3"):
        read_run(run)
    with pytest.raises(CorruptError, match="is truncated"):
        RunStore.open(run, SPEC)


def test_records_of_another_run_are_noticed(run, tmp_path):
    with RunStore.open(tmp_path / "other", {**SPEC, "limit": 1}) as other:
        other.append(record(0))
    os.replace(tmp_path / "other" / "metrics.jsonl", run / "metrics.jsonl")
    with pytest.raises(CorruptError, match="line 1"):
        read_run(run)


def test_two_writers_in_one_process_are_refused_too(run):
    with RunStore.open(run, SPEC), pytest.raises(BusyError, match=rf"in use by process {os.getpid()} on "):
        RunStore.open(run, SPEC)
    RunStore.open(run, SPEC).close()


def test_a_forged_holder_is_not_repeated(run):
    with RunStore.open(run, SPEC):
        (run / "lock").write_text("process 1 on [red]\n\nhost")
        with pytest.raises(BusyError, match="in use by another process; wait"):
            RunStore.open(run, SPEC)


def test_a_failed_opening_frees_the_lock_and_all_files(run):
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(UsageError):
        RunStore.open(run, {})
    (run / "status.json").write_text("")
    with pytest.raises(CorruptError):
        RunStore.open(run, SPEC)
    assert len(os.listdir("/dev/fd")) == before


def test_of_several_processes_exactly_one_runs_and_a_kill_frees_the_lock(tmp_path, start):
    for _ in range(2):
        processes = [start(HOLD, tmp_path) for _ in range(4)]
        lines = [process.stdout.readline() for process in processes]
        [holder] = [process for process, line in zip(processes, lines, strict=True) if line == "runs\n"]
        others = [process for process in processes if process is not holder]
        assert all(process.wait(20) == 4 for process in others)
        assert sum("is in use by" in line for line in lines) == 3
        late = start(HOLD, tmp_path)
        assert f"in use by process {holder.pid} on" in late.stdout.readline() and late.wait(20) == 4
        holder.send_signal(signal.SIGKILL)
        assert holder.wait(20) == -signal.SIGKILL


def test_after_kill_9_at_any_moment_every_record_is_whole(tmp_path, start):
    dice = random.Random(0)
    for _ in range(4):
        process = start(APPEND, tmp_path)
        first = process.stdout.readline()
        time.sleep(dice.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        seen = int([first, *process.stdout.read().split()][-1])
        process.wait(20)
        records = read_run(tmp_path).records
        assert [r["step"] for r in records] == list(range(len(records))) and len(records) > seen
        assert all(r["x"] == r["step"] / 7 and len(r["text"]) == r["step"] % 500 for r in records)


def test_a_killed_writers_leftovers_are_removed(run):
    leftover = run / "checkpoints" / ".0123456789abcdef.tmp"
    leftover.parent.mkdir()
    leftover.touch()
    (run / leftover.name).touch()
    RunStore.open(run, SPEC).close()
    assert not leftover.exists() and not (run / leftover.name).exists()


@pytest.mark.parametrize("fault", ["write", "fsync", "replace", "open", "ftruncate"])
def test_a_refusing_system_costs_nothing_that_was_stored(run, monkeypatch, fault):
    before = read_run(run)
    store = RunStore.open(run, SPEC)

    def refuse(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, fault, refuse)
        if fault == "write":
            with pytest.raises(CorruptError, match=r"metrics\.jsonl could not be written: No space left"):
                store.append(record(30))
        if fault != "ftruncate":
            with pytest.raises(CorruptError, match="could not be written: No space left"):
                store.write("status.json", {"status": "done"})
        store.close()
        if fault not in ("fsync", "replace"):
            with pytest.raises(CorruptError, match="could not be written: No space left"):
                RunStore.open(run.parent / "new", SPEC)
    assert read_run(run) == before
    with RunStore.open(run, SPEC) as again:
        assert again.append(record(30))


def test_records_are_on_the_disk_before_the_status_that_counts_them(run, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    with RunStore.open(run, SPEC) as store:
        monkeypatch.setattr(os, "fsync", lambda n: done.append(os.fstat(n).st_ino) or fsync(n))
        monkeypatch.setattr(os, "replace", lambda a, b: done.append("replace") or replace(a, b))
        store.write("status.json", {"status": "done"})
    log, status, folder = ((run / name).stat().st_ino for name in ("metrics.jsonl", "status.json", "."))
    assert done == [log, status, "replace", folder]


def test_runs_are_found_in_a_folder_and_below_it(run):
    (run.parent / "deep" / "nothing").mkdir(parents=True)
    RunStore.open(run.parent / "deep" / "run", SPEC).close()
    assert find_runs(run.parent) == [run.parent / "deep" / "run", run]
    assert find_runs(run) == [run]
    with pytest.raises(UsageError, match="no run directory in"):
        find_runs(run.parent / "deep" / "nothing")


def test_a_run_with_a_spectrum_in_the_former_folder_is_read_and_resumed(run):
    (run / "looks").mkdir()
    (run / "looks" / "step-00000020.json").write_text("{}")
    before = read_run(run).records
    with RunStore.open(run, SPEC) as store:
        store.append(record(1000))
    assert read_run(run).records == [*before, record(1000)]
