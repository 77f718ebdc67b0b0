"""Pickles that would do harm, offered wherever a file is read: none is ever executed."""

import ast
import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import optim_family as package
from optim_family.runs.atomic_files import seal
from optim_family.training.loop import train
from tests.helpers.cli_runner import optim_family
from tests.helpers.subprocesses import spec

RUN = ("run", "--optimizer", "gd", "--model", "bn_mlp", "--steps", 1, "--device", "cpu")


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


def as_object_array(trap):
    return np.array([trap], dtype=object)


def npz(trap):
    buffer = io.BytesIO()
    np.savez(buffer, x_train=as_object_array(trap), y_train=[0], x_test=[0], y_test=[0])
    return buffer.getvalue()


def npy(trap):
    buffer = io.BytesIO()
    np.save(buffer, as_object_array(trap))
    return buffer.getvalue()


def pth(trap):
    buffer = io.BytesIO()
    torch.save({"w": trap}, buffer)
    return buffer.getvalue()


def zipped(trap):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x_train.npy", npy(trap))
        archive.writestr("x_train", pickle.dumps(trap))
    return buffer.getvalue()


def cifar(root, content):
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(content)


def checkpointed(root, content):
    for path in (root / "run" / "checkpoints").iterdir():
        path.write_bytes(content)
    return ("run", "--resume", "--out", root / "run")


def logged(root, name, content):
    (root / "run" / name).write_bytes(content)
    return ("run", "--resume", "--out", root / "run")


def written(root, name, content):
    (root / name).write_bytes(content)
    return root / name


KINDS = {
    "a checkpoint": lambda r, t: checkpointed(r, pickle.dumps(t)),
    "a checkpoint by torch.save": lambda r, t: checkpointed(r, pth(t)),
    "the log": lambda r, t: logged(r, "metrics.jsonl", pickle.dumps(t)),
    "the specification": lambda r, t: logged(r, "spec.json", pickle.dumps(t)),
    "npz": lambda r, t: (*RUN, "--data", f"npz:{written(r, 'a.npz', npz(t))}"),
    "npz that is a pickle": lambda r, t: (*RUN, "--data", f"npz:{written(r, 'b.npz', pickle.dumps(t))}"),
    "npz with strange members": lambda r, t: (*RUN, "--data", f"npz:{written(r, 'c.npz', zipped(t))}"),
    "npz that is an npy": lambda r, t: (*RUN, "--data", f"npz:{written(r, 'd.npz', npy(t))}"),
    "a tar file": lambda r, t: (*RUN, "--data", f"folder:{written(r, 'a.tar', pickle.dumps(t))}"),
    "a published set": lambda r, t: (cifar(r, pickle.dumps(t)), (*RUN, "--data", "cifar10"))[1],
    "weights": lambda r, t: ("measure", "--model", "bn_mlp", "--weights", written(r, "w.pt", pth(t))),
    "a model card": lambda r, t: (*RUN, "--model", written(r, "m.toml", pickle.dumps(t))),
    "a study": lambda r, t: ("study", "show", written(r, "s.toml", pickle.dumps(t))),
    "a summary of runs": lambda r, t: ("compare", logged(r, "status.json", pickle.dumps(t))[-1]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_is_refused_and_not_executed(tmp_path, capsys, monkeypatch, held, kind):
    train(spec(steps=2), tmp_path / "run")
    sealed = json.loads((tmp_path / "run" / "status.json").read_text())
    unfinished = {k: v for k, v in sealed.items() if k not in ("format", "sha256")} | {"status": "stopped"}
    (tmp_path / "run" / "status.json").write_text(seal(unfinished))
    monkeypatch.setenv("OPTIM_FAMILY_DATA", str(tmp_path))
    command = KINDS[kind](tmp_path, Trap(tmp_path / "sprung"))
    answer = optim_family(capsys, *command)
    assert not (tmp_path / "sprung").exists()
    assert answer.code in (2, 5), answer
    assert len(answer.err.splitlines()[-1]) < 1000 and "Traceback" not in answer.err
    held("a pickle offered as checkpoint, data or configuration", of=10)


def test_a_trap_would_spring():
    made = []

    class Path:
        def touch(self):
            made.append(1)

    trap = Trap(Path())
    call, arguments = trap.__reduce__()
    call(*arguments)
    assert made


def test_the_source_has_no_way_to_execute_a_pickle():
    for path in Path(package.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = [word for call in ast.walk(tree) if isinstance(call, ast.Call) for word in call.keywords]
        arguments = {(word.arg, ast.unparse(word.value)) for word in words}
        assert not arguments & {("allow_pickle", "True"), ("weights_only", "False")}, path
        names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not {name for name in names if name.startswith(("pickle.", "dill.", "joblib."))}, path
