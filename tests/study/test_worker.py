import subprocess

from optim_family.runs.run import read_run
from optim_family.runs.store import RunStore
from optim_family.study import worker
from optim_family.study.launchers import WORKER
from optim_family.training.loop import train
from optim_family.training.spec import RunSpec

SPEC = RunSpec(
    optimizer="gd",
    hyper={"lr": 0.1, "weight_decay": 5e-4, "momentum": 0.0},
    model="bn_mlp",
    limit=20,
    steps=4,
    every=2,
    device="auto",
)


CPU = SPEC.model_copy(update={"device": "cpu"})


def work(spec, folder):
    """Exit code and last words of a worker that somebody waits for."""
    process = subprocess.Popen(
        [*WORKER, str(folder)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    with process:
        process.stdin.write(spec.model_dump_json() + "\n")
        words = process.stderr.read()
        return process.wait(), words


def test_a_worker_carries_out_the_run_that_train_does(tmp_path):
    assert work(SPEC, tmp_path / "a") == (0, "")
    train(CPU, tmp_path / "b")
    one, other = (read_run(tmp_path / name) for name in "ab")
    assert one.spec == other.spec and one.status["status"] == "done"
    assert [r["train_loss"] for r in one.records] == [r["train_loss"] for r in other.records]


def test_the_last_words_say_what_is_wrong(tmp_path):
    train(CPU, tmp_path)
    code, words = work(SPEC.model_copy(update={"steps": 5}), tmp_path)
    assert code == 2 and words.splitlines()[-1].endswith("steps: 4, not 5); choose another folder")


def test_a_run_goes_on_where_it_began(tmp_path):
    assert worker.resolve_device(SPEC, tmp_path).device in ("cpu", "cuda")
    assert worker.resolve_device(SPEC.model_copy(update={"device": "cuda:1"})).device == "cuda:1"
    RunStore.open(tmp_path, {**CPU.model_dump(mode="json"), "device": "cuda:3"}).close()
    assert worker.resolve_device(SPEC, tmp_path).device == "cuda:3"
