"""What is saved comes back bitwise identical, and what is damaged is not accepted."""

import collections
import json
import math
import os
import pickle
import random
import struct

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from optim_family.errors import CorruptError
from optim_family.training.checkpoint import _seal, load_latest, save

DTYPES = [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]

FAULTS = {"write": 1, "fsync": 2, "replace": 1, "open": 2, "unlink": 1}  # calls that one `save` makes
METADATA = {"format": "1", "step": "2", "sha256": 64 * "0"}
FORKING = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def never(text):
    raise AssertionError(text)


def same(a, b):
    """Bitwise identical, in type as in value, NaNs and signs of zeros included."""
    if isinstance(a, torch.Tensor):
        bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)
    if isinstance(a, dict):
        return (
            list(a) == list(b)
            and all(type(k) is type(m) for k, m in zip(a, b, strict=True))
            and all(same(a[k], b[k]) for k in a)
        )
    if type(a) in (list, tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if type(a) is float:
        return type(b) is float and struct.pack("d", a) == struct.pack("d", b)
    return type(a) is type(b) and a == b


def tensor(seed, dtype, shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 100, shape, generator=generator).to(dtype)


tensors = st.builds(
    tensor, st.integers(0, 99), st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3).map(tuple)
)
floats = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("d", struct.pack("Q", bits))[0])
texts = st.text(st.characters(exclude_categories=()))
leaves = st.none() | st.booleans() | st.integers() | floats | st.floats() | texts | tensors
keys = texts | st.integers()
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(keys, inner)
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(tree=st.dictionaries(keys, trees, max_size=4))
def test_any_tree_comes_back_to_the_last_bit(tree, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "trees"
    save(folder, 7, tree)
    step, back = load_latest(folder, never)
    assert step == 7 and same(tree, back)


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"__metadata__": torch.ones(2)},
        {"a": {"b": torch.ones(1)}, "a']['b": torch.zeros(2), 1: torch.ones(3), "1": torch.ones(4)},
        {"\ud800": torch.ones(1), "\\ud800": torch.ones(2), "": {"": 0}},
        {"x": (math.nan, -math.inf, -0.0, 5e-324, 2**200, (), [], {})},
        {"scalar": torch.tensor(3.5), "empty": torch.empty(0, 3), "nan": torch.tensor([math.nan, -0.0])},
        {"dict": {"tensor": "x"}, "tuple": [["float", "7ff0000000000000"]]},
    ],
)
def test_trees_that_could_be_mistaken_come_back(tmp_path, tree):
    save(tmp_path, 0, tree)
    assert same(load_latest(tmp_path, never)[1], tree)


def test_views_and_tied_tensors_come_back_as_plain_tensors(tmp_path):
    w = torch.arange(12.0, dtype=torch.float64).reshape(3, 4).requires_grad_()
    views = {
        "w": w,
        "tied": w,
        "same": w.data,
        "t": w.T,
        "row": w[1],
        "step": w[:, ::2],
        "wide": w[0].expand(5, 4),
    }
    views |= {"parameter": nn.Parameter(w), "conjugate": torch.tensor([1 + 2j]).conj()}
    save(tmp_path, 1, views)
    back = load_latest(tmp_path, never)[1]
    assert all(torch.equal(back[key], value) for key, value in views.items())
    assert not any(value.requires_grad or type(value) is not torch.Tensor for value in back.values())
    back["w"].zero_()
    assert torch.equal(back["tied"], w) and torch.equal(back["row"], w[1])


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.AdamW([{"params": [x], "lr": 0.01 * (i + 1)} for i, x in enumerate(p)]),
    ],
)
def test_a_real_optimizer_goes_on_to_the_last_bit(tmp_path, make):
    def begin():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        return model, make(list(model.parameters()))

    def train(model, optimizer, steps):
        for step in steps:
            x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    model, optimizer = begin()
    train(model, optimizer, range(5))
    save(
        tmp_path,
        5,
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()},
    )
    train(model, optimizer, range(5, 10))

    other, again = begin()
    step, tree = load_latest(tmp_path, never)
    other.load_state_dict(tree["model"])
    again.load_state_dict(tree["optimizer"])
    train(other, again, range(step, 10))
    assert same(dict(other.state_dict()), dict(model.state_dict()))
    assert same(again.state_dict(), optimizer.state_dict()) and torch.equal(
        tree["rng"], torch.get_rng_state()
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1j, "is a complex"),
        (object(), "is a object"),
        (np.float64(1), "is a float64"),
        (np.ones(2), "is a ndarray"),
        ({1, 2}, "is a set"),
        (b"x", "is a bytes"),
        (collections.namedtuple("Pair", "a b")(1, 2), "is a Pair"),
        ({None: 1}, "has a key None that is a NoneType"),
        ({True: 1}, "has a key True that is a bool"),
        (torch.eye(2).to_sparse(), "is a tensor of torch.float32, torch.sparse_coo on cpu"),
        (torch.empty(2, device="meta"), "is a tensor of torch.float32, torch.strided on meta"),
        (torch.zeros(2, dtype=torch.complex128), "is a tensor of torch.complex128"),
    ],
)
def test_what_cannot_be_saved_is_named_with_its_place(tmp_path, value, said):
    with pytest.raises(TypeError) as caught:
        save(tmp_path, 1, {"state": {0: [1, value]}})
    assert str(caught.value).startswith(f"tree['state'][0][1] {said}") and "\n" not in str(caught.value)
    assert load_latest(tmp_path, never) is None


def test_the_newest_two_are_kept(tmp_path):
    for step in (0, 5, 120, 99_999_999, 100_000_000):
        save(tmp_path, step, {"step": step})
    assert {path.stem for path in tmp_path.iterdir()} == {"step-99999999", "step-100000000"}
    assert load_latest(tmp_path, never) == (100_000_000, {"step": 100_000_000})


def test_later_checkpoints_and_other_files_are_not_deleted(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step, {"x": torch.ones(1)})
    (tmp_path / "step-00000027.txt").touch()
    save(tmp_path, 28, {})
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == {
        "step-00000020",
        "step-00000028",
        "step-00000030",
    }
    assert (tmp_path / "step-00000027.txt").exists()


def test_nowhere_there_is_none(tmp_path):
    assert load_latest(tmp_path, never) is None
    assert load_latest(tmp_path / "absent", never) is None


@pytest.fixture
def two(tmp_path):
    """Two checkpoints, of steps 1 and 2."""
    for step in (1, 2):
        save(tmp_path, step, {"w": torch.full((4,), 1.0 * step), "x": 0.1 * step, "n": math.nan})
    return tmp_path


def assert_falls_back(folder, reason):
    """The first is given for the second, and one line says why."""
    said = []
    step, tree = load_latest(folder, said.append)
    assert step == 1 and torch.equal(tree["w"], torch.ones(4)) and tree["x"] == 0.1
    assert len(said) == 1 and "\n" not in said[0] and "step-00000002" in said[0]
    assert reason in said[0] and said[0].endswith("this checkpoint is skipped")


def test_every_flipped_bit_is_noticed(two):
    path = two / "step-00000002.safetensors"
    whole = path.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(whole)), 500):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert_falls_back(two, "step-00000002")
    path.write_bytes(whole)
    assert load_latest(two, never)[0] == 2


def test_every_truncation_is_noticed(two):
    path = two / "step-00000002.safetensors"
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert_falls_back(two, "is damaged: its contents do not match their SHA-256")


def test_what_cannot_be_read_is_noticed(two):
    (two / "step-00000002.safetensors").unlink()
    (two / "step-00000002.safetensors").mkdir()
    assert_falls_back(two, "step-00000002.safetensors could not be read: Is a directory")


def test_exchanged_files_are_noticed(two):
    first, second = (two / f"step-0000000{step}.safetensors" for step in (1, 2))
    second.write_bytes(first.read_bytes())
    assert_falls_back(two, "is the checkpoint of step 1 under another name")


def test_checkpoints_of_other_runs_are_passed_over(tmp_path):
    for step, spec in ((1, "mine"), (2, "another's")):
        save(tmp_path, step, {"spec": spec})
    said = []
    assert load_latest(tmp_path, said.append, "mine") == (1, {"spec": "mine"})
    assert len(said) == 1 and "step-00000002.safetensors is the checkpoint of another run" in said[0]
    assert load_latest(tmp_path, never, "another's")[0] == 2
    with pytest.raises(CorruptError, match="no intact checkpoint of its run"):
        load_latest(tmp_path, said.append, "a third")


def test_a_newer_format_is_noticed(two):
    path = two / "step-00000002.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"format":"1"', b'"format":"2"'))
    assert_falls_back(two, "format 2, newer than 1")


def test_when_none_is_whole_that_is_an_error(two):
    said = []
    for step in (1, 2):
        (two / f"step-0000000{step}.safetensors").write_text("{}")
    with pytest.raises(CorruptError, match="no intact checkpoint"):
        load_latest(two, said.append)
    assert len(said) == 2


def test_a_text_that_looks_like_the_seal_is_not_taken_for_it(tmp_path):
    mark = '"sha256":"' + 64 * "0"
    tree = {mark: torch.ones(1), "x": mark, "bytes": torch.tensor(list(mark.encode()), dtype=torch.uint8)}
    save(tmp_path, 1, tree)
    assert same(load_latest(tmp_path, never)[1], tree)


def test_a_step_that_is_saved_again_stays_whole_when_the_system_refuses(two, monkeypatch):
    def refuse(*_args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(CorruptError, match="could not be written: No space left"):
            save(two, 2, {"w": torch.zeros(4)})
    step, tree = load_latest(two, never)
    assert step == 2 and tree["x"] == 0.2


class Malicious:
    def __reduce__(self):
        return os._exit, (3,)


@pytest.mark.parametrize(
    "tree",
    [
        3,
        {"tensor": "absent"},
        {"tensor": []},
        {"dict": [[[], 1]]},
        {"dict": [1]},
        {"tuple": 7},
        {"float": "00"},
        {"float": 1},
        {"object": "os.system"},
        {},
        {"dict": [["x", {"tensor": "x", "dict": []}]]},
    ],
)
def test_a_forged_tree_with_a_true_hash_is_refused(two, tree):
    forge(two, safetensors.torch.save({}, {**METADATA, "tree": json.dumps(tree)}))
    assert_falls_back(two, "was not made by this program")


@pytest.mark.parametrize("missing", ["format", "step", "tree"])
def test_a_true_hash_alone_is_no_checkpoint(two, missing):
    metadata = {**METADATA, "tree": json.dumps({"dict": []})}
    del metadata[missing]
    forge(two, safetensors.torch.save({}, metadata))
    assert_falls_back(two, "was not made by this program")


def forge(folder, data):
    place, digest = _seal(data)
    (folder / "step-00000002.safetensors").write_bytes(data[: place.start] + digest + data[place.stop :])


def test_a_pickle_is_never_executed(two):
    data = pickle.dumps(Malicious())
    (two / "step-00000002.safetensors").write_bytes(data)
    assert_falls_back(two, "is damaged")
    forge(two, b'"sha256":"' + 64 * b"0" + data)
    assert_falls_back(two, "was not made by this program")


@pytest.mark.parametrize(
    ("fault", "nth"),
    [(fault, n) for fault, last in FAULTS.items() for n in range(1, last + 1)],
)
def test_a_refusing_system_leaves_the_last_good_checkpoint(two, monkeypatch, fault, nth):
    calls, real = [], getattr(os, fault)

    def refuse(*args, **kwargs):
        calls.append(args)
        if len(calls) >= nth:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, fault, refuse)
        with pytest.raises(CorruptError, match="could not be written: No space left"):
            save(two, 3, {"w": torch.ones(4)})
    assert load_latest(two, lambda line: None)[0] in (2, 3)
    assert not [path for path in two.iterdir() if path.suffix == ".tmp"]
    save(two, 4, {})
    assert load_latest(two, never)[0] == 4
    assert len(list(two.iterdir())) == 2


@FORKING
@pytest.mark.parametrize("moment", range(1, 5))
def test_a_kill_at_any_system_call_leaves_a_whole_checkpoint(two, moment):
    if (child := os.fork()) == 0:
        calls = [0]

        def dying(real):
            def call(*args, **kwargs):
                calls[0] += 1
                if calls[0] == moment:
                    os._exit(9)
                return real(*args, **kwargs)

            return call

        os.write, os.fsync, os.replace = map(dying, (os.write, os.fsync, os.replace))
        save(two, 3, {"w": torch.ones(4)})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert load_latest(two, never)[0] == (2 if moment < 4 else 3)  # the third puts the file in place
