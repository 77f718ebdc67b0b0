"""A flipped bit, a truncation, an exchange, a newer format: noticed, and never taken for a result."""

import random
import re
import shutil

import pytest

from optim_family.errors import CorruptError
from optim_family.runs.run import read_run
from optim_family.runs.store import RunStore
from optim_family.training import checkpoint, loop
from optim_family.training.loop import train
from tests.helpers.counts import tries
from tests.helpers.subprocesses import result, spec
from tests.helpers.training_runs import untimed

TRIES = tries(50, 1000)
LOG_AND_SPEC = ("metrics.jsonl", "spec.json", "status.json")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run with two checkpoints, its checkpoint trees by step, and another such run beside it."""
    folders = [tmp_path_factory.mktemp("damage") / name for name in ("run", "other")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
        for seed, folder in enumerate(folders):
            train(spec(seed=seed), folder)
    return folders[0], result(folders[0]), folders[1]


def flip(path, dice, other):
    data = bytearray(path.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def truncate(path, dice, other):
    data = path.read_bytes()
    path.write_bytes(data[: dice.randrange(len(data) - 1)])  # the last newline alone may be torn off


def exchange(path, dice, other):
    path.write_bytes(other.read_bytes())


def lose(path, dice, other):
    path.unlink()


def renew(path, dice, other):
    path.write_bytes(re.sub(b'("format": ?"?)1', rb"\g<1>2", path.read_bytes()))


KINDS = {"bit": flip, "truncation": truncate, "exchange": exchange, "loss": lose, "newer format": renew}


@pytest.mark.parametrize("group", range(-(-TRIES // 10)))
def test_damage_to_a_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, stopped, held, group):
    whole, _, other = stopped
    newest, older = (sorted((whole / "checkpoints").iterdir())[n] for n in (-1, -2))
    for number in range(5):
        dice = random.Random(10 * group + number)
        name, damage = dice.choice(list(KINDS.items()))
        shutil.copytree(whole, tmp_path / f"{number}")
        path = tmp_path / f"{number}" / "checkpoints" / newest.name
        damage(path, dice, other / "checkpoints" / path.name)
        notes = []
        step, _ = checkpoint.load_latest(path.parent, notes.append, spec().key)
        assert step == int(older.stem.removeprefix("step-")), name
        assert name == "loss" or (len(notes) == 1 and path.stem in notes[0])
        held("a damaged, exchanged or newer checkpoint or record", of=TRIES)


@pytest.mark.parametrize("group", range(-(-TRIES // 10)))
def test_damage_to_records_and_specification_is_always_detected(tmp_path, stopped, held, group):
    whole, _, other = stopped
    wanted = read_run(whole).spec
    for number in range(5):
        dice = random.Random(10 * group + number)
        name, damage = dice.choice([each for each in KINDS.items() if each[0] != "loss"])
        file = dice.choice(LOG_AND_SPEC[1:] if name == "newer format" else LOG_AND_SPEC)
        if name == "exchange" and file == "status.json":
            file = "metrics.jsonl"  # the status of an equally long run is no damage
        shutil.copytree(whole, tmp_path / f"{number}")
        path = tmp_path / f"{number}" / file
        damage(path, dice, other / file)
        with pytest.raises(CorruptError, match=r"metrics\.jsonl|spec\.json|status\.json"):
            read_run(path.parent)
        with pytest.raises(Exception, match=r"metrics\.jsonl|spec\.json|status\.json|different run"):
            RunStore.open(path.parent, wanted)
        held("a damaged, exchanged or newer checkpoint or record", of=TRIES)


def test_a_run_whose_last_checkpoint_is_damaged_comes_to_the_same_end(tmp_path, stopped):
    whole, wanted, _ = stopped
    shutil.copytree(whole, tmp_path / "run")
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    flip(newest, random.Random(0), None)
    train(spec(), tmp_path / "run", resume=True)
    status, records, weights = result(tmp_path / "run")
    assert (status, records, weights) == wanted
    assert [untimed(r) for r in read_run(whole).records] == records
