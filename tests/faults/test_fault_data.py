"""Data that are not what they should be: refused before step 0 with the name of the file."""

import io
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from tests.helpers.cli_runner import optim_family

X, Y = np.zeros((12, 8, 8), np.uint8), np.arange(12) % 3
GOOD = {"x_train": X, "y_train": Y, "x_test": X[:6], "y_test": Y[:6]}


def png():
    buffer = io.BytesIO()
    Image.fromarray(X[0]).save(buffer, "PNG")
    return buffer.getvalue()


def npz(**changes):
    def make(root):
        np.savez(root / "a.npz", **{k: v for k, v in (GOOD | changes).items() if v is not None})
        return f"npz:{root / 'a.npz'}", "a.npz"

    return make


def bytes_of(change):
    def make(root):
        np.savez(root / "a.npz", **GOOD)
        (root / "a.npz").write_bytes(change((root / "a.npz").read_bytes()))
        return f"npz:{root / 'a.npz'}", "a.npz"

    return make


def folder(change, place):
    def make(root):
        for part in ("train", "test"):
            for label in ("ant", "bee"):
                (root / "set" / part / label).mkdir(parents=True)
                (root / "set" / part / label / "0.png").write_bytes(png())
        change(root / "set")
        return f"folder:{root / 'set'}", place

    return make


def archive(name, kind=tarfile.REGTYPE, target=""):
    def make(root):
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        with tarfile.open(root / "a.tar", "w") as tar:
            tar.addfile(member, io.BytesIO())
        return f"folder:{root / 'a.tar'}", name

    return make


def loop(root):
    (root / "train" / "cat").symlink_to(root / "train" / "cat")


def flipped(data):
    where = data.index(b"x_train.npy") + 300
    return data[:where] + bytes([data[where] ^ 1]) + data[where + 1 :]


KINDS = {
    "0 bytes": bytes_of(lambda data: b""),
    "short by half": bytes_of(lambda data: data[: len(data) // 2]),
    "short by a byte": bytes_of(lambda data: data[:-1]),
    "a flipped bit in the pixels": bytes_of(flipped),
    "another kind of file": bytes_of(lambda data: b"PK not really"),
    "a missing array": npz(y_test=None),
    "too few labels": npz(y_train=Y[:11]),
    "a label that is not a class": npz(y_test=Y[:6] + 1),
    "negative labels": npz(y_train=Y - 1),
    "labels with a gap": npz(y_train=Y * 2),
    "one class": npz(y_train=Y * 0, y_test=Y[:6] * 0),
    "pixels that are no bytes": npz(x_train=X / 255),
    "sizes that differ": npz(x_test=X[:6, :4]),
    "an image of 0 bytes": folder(lambda s: (s / "train/ant/0.png").write_bytes(b""), "train/ant/0.png"),
    "half an image": folder(lambda s: (s / "test/bee/0.png").write_bytes(png()[:40]), "test/bee/0.png"),
    "a text for an image": folder(lambda s: (s / "train/bee/0.png").write_text("hello"), "train/bee/0.png"),
    "a link that leads to itself": folder(loop, "train/cat"),
    "a link to the folder above": folder(
        lambda s: (s / "train/ant/up").symlink_to(s / "train"), "train/ant/up"
    ),
    "a pipe": folder(lambda s: os.mkfifo(s / "train/ant/1.png"), "1.png"),
    "an empty class": folder(lambda s: (s / "test/ant/0.png").unlink(), "test/ant"),
    "a member above the archive": archive("../train/ant/0.png"),
    "an absolute member": archive("/train/ant/0.png"),
    "a member that is a link": archive("train/ant/0.png", tarfile.SYMTYPE, "/etc/passwd"),
    "a member that is a device": archive("train/ant/0.png", tarfile.CHRTYPE),
}


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_data_are_refused_before_the_first_step(tmp_path, capsys, held, kind):
    data, place = KINDS[kind](tmp_path)
    out = tmp_path / "run"
    command = ("run", "--optimizer", "gd", "--model", "bn_mlp", "--steps", 1, "--device", "cpu")
    answer = optim_family(capsys, *command, "--data", data, "--out", out)
    assert answer.code == 5, answer
    [line] = answer.err.splitlines()
    assert place in line and not out.exists() and not answer.out
    held("corrupt or short data, wrong labels, 0 bytes, links, hostile archives", of=20)
