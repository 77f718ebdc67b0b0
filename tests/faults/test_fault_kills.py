"""Kill −9 and every stop signal, at random moments: nothing is lost, and every bit stays the same."""

import random
import signal

import pytest

from optim_family.runs.run import read_run
from tests.helpers.counts import tries
from tests.helpers.subprocesses import PHASES, ended, result, signalled, spec, start, telling, work
from tests.helpers.training_runs import untimed

KILLS, STOPS = tries(10, 300), tries(10, 100)
SPECS = {
    "gd": spec(),
    "rmsprop": spec("rmsprop", batch_size=10),
}


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """What the runs come to if nothing disturbs them, and how long they take."""
    results = {}
    for name, wanted in SPECS.items():
        folder = tmp_path_factory.mktemp("whole") / name
        process = start(work, wanted.model_dump_json(), str(folder), 60.0)
        assert ended(process) == 0
        results[name] = result(folder)
    return results


def disturbed(name, folder, dice, number, phases):
    """One process that gets a signal in the middle of a phase; its exit code, or 0 if it was too late."""
    phase = dice.choice(phases)
    nth = 1 if phase == "resuming" else dice.randint(1, 8)
    text, seconds = SPECS[name].model_dump_json(), dice.choice([0.0, 60.0])
    process = start(telling, text, str(folder), seconds, phase, nth)
    signalled(process, number, dice.uniform(0, 3e-3))
    return ended(process)


def finish(name, folder):
    process = start(work, SPECS[name].model_dump_json(), str(folder), 60.0)
    assert ended(process) == 0
    return result(folder)


def is_prefix(folder, records):
    """What lies there now is the beginning of what it should become, whole."""
    stored = (
        [untimed(record) for record in read_run(folder).records] if (folder / "spec.json").exists() else []
    )
    return stored == records[: len(stored)]


def chain_of(name, root, whole, dice, numbers, phases):
    """Signals to one run after the other until each has come in time; yields it, exit code and folder."""
    waiting, run = list(numbers), 0
    while waiting:
        folder = root / f"{run}"
        code = disturbed(name, folder, dice, waiting[0], phases)
        assert is_prefix(folder, whole[name][1])
        if code:
            yield waiting.pop(0), code, folder
        if not code or not waiting:
            assert finish(name, folder) == whole[name]
            run += 1


@pytest.mark.parametrize("chain", range(-(-KILLS // 5)))
def test_kill_9_at_random_moments(tmp_path, whole, held, chain):
    dice, name = random.Random(chain), list(SPECS)[chain % len(SPECS)]
    for _, code, _ in chain_of(name, tmp_path, whole, dice, [signal.SIGKILL] * 5, list(PHASES)):
        assert code == -signal.SIGKILL
        held("kill −9 while training, measuring, checkpointing, resuming", of=KILLS)


@pytest.mark.parametrize("chain", range(-(-STOPS // 5)))
def test_stop_signals_at_random_moments(tmp_path, whole, held, chain):
    dice, name = random.Random(1000 + chain), list(SPECS)[chain % len(SPECS)]
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
    phases = ["training", "measuring", "resuming"]
    for number, code, folder in chain_of(name, tmp_path, whole, dice, numbers, phases):
        assert code == (130 if number == signal.SIGINT else 75)
        assert read_run(folder).status["status"] == "stopped"
        held("SIGTERM, SIGUSR1, SIGUSR2 and SIGINT at random moments", of=STOPS)
