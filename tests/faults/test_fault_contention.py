"""Several processes on one run directory: one runs, the others exit 4, and a kill frees the lock."""

import random
import time

import pytest

from tests.helpers.counts import tries
from tests.helpers.subprocesses import ended, hold, start

TRIES = tries(20, 200)


@pytest.mark.parametrize("group", range(-(-TRIES // 5)))
def test_exactly_one_of_several_processes_runs(tmp_path, held, group):
    dice = random.Random(group)
    for number in range(5):
        folder = tmp_path / f"{number}" / "run"
        processes = [start(hold, str(folder)) for _ in range(dice.randint(2, 8))]
        writer = the_writer(folder, processes)
        others = [process for process in processes if process is not writer]
        assert all(ended(process) == 4 for process in others) and writer.is_alive()
        writer.kill()
        ended(writer)
        late = start(hold, str(folder))
        assert the_writer(folder, [late]) is late
        late.kill()
        ended(late)
        held("several processes on one run directory", of=TRIES)


def the_writer(folder, processes):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if writers := [p for p in processes if (folder.parent / f"writer-{p.pid}").exists()]:
            return writers[0]
        time.sleep(0.005)
    raise AssertionError("nobody became the writer")
