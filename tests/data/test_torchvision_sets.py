import functools
import gzip
import hashlib
import http.server
import pickle
import socket
import struct
import sys
import tarfile
import threading
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
import torch
from torchvision import datasets
from torchvision.datasets import utils

from optim_family.data import datasets as data
from optim_family.data import torchvision_sets
from optim_family.errors import CorruptError, OptimFamilyError, UsageError

CLASSES = {"cifar10": 10, "cifar100": 100, "svhn": 10, "mnist": 10, "fashion-mnist": 10}


def images(n, *shape):
    return np.random.default_rng(n).integers(0, 256, (n, *shape), dtype=np.uint8)


def labels(n, classes):
    return np.arange(n) % classes


def python2_pickle(path, content):
    """A pickle as the official files are: protocol 2, numpy under its old name."""
    text = pickle.dumps(content, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def cifar10(root, monkeypatch):
    folder = root / "cifar-10-batches-py"
    names = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
    x, y = images(60, 3072), labels(60, 10)
    for k, name in enumerate(names):
        part = slice(10 * k, 10 * k + 10)
        python2_pickle(folder / name, {"data": x[part], "labels": y[part].tolist()})
    python2_pickle(folder / "batches.meta", {"label_names": [f"kind {k}" for k in range(10)]})
    sums = [[name, md5(folder / name)] for name in names]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", sums[5:])
    monkeypatch.setitem(datasets.CIFAR10.meta, "md5", md5(folder / "batches.meta"))
    x = x.reshape(-1, 3, 32, 32)
    return (x[:50], y[:50], x[50:], y[50:])


def cifar100(root, monkeypatch):
    folder = root / "cifar-100-python"
    x, y = images(200, 3072), labels(200, 100)
    for name, part in (("train", slice(100)), ("test", slice(100, 200))):
        python2_pickle(folder / name, {"data": x[part], "fine_labels": y[part].tolist(), "coarse_labels": []})
        monkeypatch.setattr(datasets.CIFAR100, f"{name}_list", [[name, md5(folder / name)]])
    python2_pickle(folder / "meta", {"fine_label_names": [f"kind {k}" for k in range(100)]})
    monkeypatch.setitem(datasets.CIFAR100.meta, "md5", md5(folder / "meta"))
    x = x.reshape(-1, 3, 32, 32)
    return (x[:100], y[:100], x[100:], y[100:])


def svhn(root, monkeypatch):
    x, y = images(50, 3, 32, 32), labels(50, 10)
    rows = {}
    for name, part in (("train", slice(30)), ("test", slice(30, 50))):
        path = root / f"{name}_32x32.mat"
        ten_for_zero = np.where(y[part] == 0, 10, y[part]).astype(np.uint8)[:, None]
        scipy.io.savemat(path, {"X": x[part].transpose(2, 3, 1, 0), "y": ten_for_zero}, do_compression=True)
        rows[name] = ["http://nowhere", path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", rows)
    return x[:30], y[:30], x[30:], y[30:]


def idx(array):
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return struct.pack(">HBB", 0, 8, array.ndim) + shape + array.astype(np.uint8).tobytes()


def mnist(root, monkeypatch, home="MNIST"):
    x, y = images(30, 28, 28), labels(30, 10)
    raw = root / home / "raw"
    raw.mkdir(parents=True)
    for prefix, part in (("train", slice(20)), ("t10k", slice(20, 30))):
        for kind, array in (("images-idx3", x[part]), ("labels-idx1", y[part])):
            (raw / f"{prefix}-{kind}-ubyte").write_bytes(idx(array))
    return x[:20, None], y[:20], x[20:, None], y[20:]


def fashion(root, monkeypatch):
    return mnist(root, monkeypatch, "FashionMNIST")


WRITE = {"cifar10": cifar10, "cifar100": cifar100, "svhn": svhn, "mnist": mnist, "fashion-mnist": fashion}


@pytest.mark.parametrize("name", WRITE)
def test_a_set_in_its_official_format_is_read(tmp_path, monkeypatch, name):
    x_train, y_train, x_test, y_test = WRITE[name](tmp_path, monkeypatch)
    arrays = torchvision_sets.read(name, tmp_path)
    assert (arrays.x_train == x_train).all() and (arrays.x_test == x_test).all()
    assert (arrays.y_train == y_train).all() and (arrays.y_test == y_test).all()
    assert len(arrays.class_names) == CLASSES[name]
    dataset = data.load(name, root=tmp_path, limit=len(y_train))
    assert torch.equal(dataset.x_test, torch.from_numpy(x_test.copy()))


def test_the_catalogue_and_the_table_agree():
    assert [entry.name for entry in data.catalogue() if entry.name != "digits"] == list(torchvision_sets.SETS)
    assert {entry.name: entry.classes for entry in data.catalogue()} == CLASSES | {"digits": 10}


@pytest.mark.parametrize("name", torchvision_sets.SETS)
def test_a_set_that_is_not_here_says_how_to_get_it(tmp_path, name):
    with pytest.raises(
        UsageError, match=f"not on this machine .*{tmp_path}.*: optim-family data fetch {name}"
    ):
        data.load(name, root=tmp_path)


@pytest.mark.parametrize("name", torchvision_sets.SETS)
def test_a_damaged_file_says_what_to_delete(tmp_path, monkeypatch, name):
    WRITE[name](tmp_path, monkeypatch)
    file = tmp_path / torchvision_sets.SETS[name].files[0]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        CorruptError, match=f"{name} is damaged .*delete {tmp_path}.* data fetch {name}"
    ) as caught:
        data.load(name, root=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", torchvision_sets.SETS)
def test_an_empty_file_is_damage(tmp_path, monkeypatch, name):
    WRITE[name](tmp_path, monkeypatch)
    (tmp_path / torchvision_sets.SETS[name].files[0]).write_bytes(b"")
    with pytest.raises(CorruptError, match=f"{name} is damaged"):
        data.load(name, root=tmp_path)


def test_halves_that_do_not_fit_are_refused(tmp_path, monkeypatch):
    mnist(tmp_path, monkeypatch)
    (tmp_path / "MNIST/raw/train-labels-idx1-ubyte").write_bytes(idx(labels(19, 10)))
    with pytest.raises(CorruptError, match=r"mnist in .*x_train has 20 images and y_train 19 labels"):
        data.load("mnist", root=tmp_path)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder, and the address under which this machine serves it."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=folder)
    ) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_args):
        pass


def pack_mnist(served, address, monkeypatch):
    """What the mirror serves: the four files, each compressed by itself."""
    mnist(served / "plain", monkeypatch)
    sums = []
    for file in sorted((served / "plain/MNIST/raw").iterdir()):
        packed = served / f"{file.name}.gz"
        packed.write_bytes(gzip.compress(file.read_bytes()))
        sums.append((packed.name, md5(packed)))
    monkeypatch.setattr(datasets.MNIST, "resources", sums)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [address])


def pack_cifar10(served, address, monkeypatch):
    cifar10(served, monkeypatch)
    packed = served / datasets.CIFAR10.filename
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(served / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(datasets.CIFAR10, "url", address + packed.name)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(packed))


@pytest.mark.parametrize("name, pack", [("mnist", pack_mnist), ("cifar10", pack_cifar10)])
def test_what_is_fetched_can_be_loaded(tmp_path, monkeypatch, capsys, served, name, pack):
    pack(*served, monkeypatch)
    root = tmp_path / "new" / "root"
    assert data.fetch(name, root) == root
    assert data.load(name, root=root).classes == 10
    assert [entry.name for entry in data.catalogue(root) if entry.present] == ["digits", name]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name, pack", [("mnist", pack_mnist), ("cifar10", pack_cifar10)])
def test_a_damaged_download_is_refused(tmp_path, monkeypatch, served, name, pack):
    pack(*served, monkeypatch)
    for file in served[0].glob("*.gz"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UsageError, match=f"{name} cannot be fetched.*corrupted"):
        data.fetch(name, tmp_path / "root")


@pytest.mark.parametrize("name", torchvision_sets.SETS)
@pytest.mark.parametrize("reason", [URLError("Name or service not known"), TimeoutError("timed out")])
def test_no_network_is_one_line_and_a_way_out(tmp_path, monkeypatch, name, reason):
    def refuse(*_args, **_kwargs):
        raise reason

    monkeypatch.setattr(utils.urllib.request, "urlopen", refuse)
    with pytest.raises(
        UsageError, match=f"{name} cannot be fetched.*(not known|timed out).*network"
    ) as caught:
        data.fetch(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_fetching_over_a_broken_download_says_what_to_delete(tmp_path, monkeypatch):
    mnist(tmp_path, monkeypatch)
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").write_bytes(b"broken off")
    with pytest.raises(UsageError, match=f"mnist cannot be fetched.*delete {tmp_path}/MNIST"):
        data.fetch("mnist", tmp_path)


def test_a_silent_network_is_not_waited_for_without_end(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        torchvision_sets, "_train_and_test", lambda *_args, **_kwargs: seen.append(socket.getdefaulttimeout())
    )
    data.fetch("svhn", tmp_path)
    assert 0 < seen[0] < 120 and socket.getdefaulttimeout() is None


def test_a_root_that_is_a_file_cannot_be_fetched_into(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot be fetched into .*file"):
        data.fetch("cifar10", tmp_path / "file")


def test_a_torchvision_that_does_not_import_points_to_the_doctor(tmp_path, monkeypatch):
    mnist(tmp_path, monkeypatch)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for ask in (lambda: data.load("mnist", root=tmp_path), lambda: data.fetch("mnist", tmp_path)):
        with pytest.raises(OptimFamilyError, match=r"^torchvision cannot be imported .*optim-family doctor"):
            ask()


def test_the_data_root_is_chosen_by_the_environment(monkeypatch):
    monkeypatch.setenv("OPTIM_FAMILY_DATA", "/some/where")
    assert torchvision_sets.data_root() == Path("/some/where")
    monkeypatch.delenv("OPTIM_FAMILY_DATA")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert torchvision_sets.data_root() == Path("/home/somebody/.cache/optim-family/data")


def test_a_user_without_a_home_has_a_data_root_too(monkeypatch):
    monkeypatch.delenv("OPTIM_FAMILY_DATA", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    assert torchvision_sets.data_root().is_absolute()
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert torchvision_sets.data_root().is_absolute() and "~" not in str(torchvision_sets.data_root())
