import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from optim_family.data import datasets
from optim_family.errors import UsageError
from tests.helpers import ROOT

REAL = ROOT.parent / "shared" / "data" / "cifar10-5k.npz"


def write_npz(path, counts=(9, 7, 4), shape=(5, 6, 3), seed=0):
    """A sorted, unbalanced set of random images; the first pixel of each is its number."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(counts)), counts)
    x = rng.integers(0, 256, (len(y), *shape), dtype=np.uint8)
    x[:, 0, 0, 0] = np.arange(len(y))
    np.savez(path, x_train=x, y_train=y, x_test=x[::2], y_test=y[::2])
    return f"npz:{path}", x, y


def numbers(dataset):
    return dataset.x_train[:, 0, 0, 0].tolist()


def test_listing_imports_nothing_heavy():
    heavy = {"torch", "numpy", "torchvision", "sklearn", "PIL", "scipy"}
    code = "import sys; from optim_family.data import datasets; datasets.catalogue(); "
    code += f"print({heavy!r} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_catalogue_tells_the_truth_about_digits():
    entry = datasets.catalogue()[0]
    digits = datasets.load(entry.name)
    assert (len(digits.y_train), len(digits.y_test)) == (entry.train_images, entry.test_images)
    assert (digits.size, digits.channels, digits.classes) == (entry.size, entry.channels, entry.classes)
    assert entry.present


def test_catalogue_says_which_sets_are_on_this_machine(tmp_path):
    assert [entry.name for entry in datasets.catalogue(tmp_path) if entry.present] == ["digits"]
    for file in ("train", "test", "meta"):
        (tmp_path / "cifar-100-python").mkdir(exist_ok=True)
        (tmp_path / "cifar-100-python" / file).touch()
    assert [entry.name for entry in datasets.catalogue(tmp_path) if entry.present] == ["digits", "cifar100"]


def test_images_are_bytes_channels_first(tmp_path):
    name, x, y = write_npz(tmp_path / "a.npz")
    dataset = datasets.load(name)
    assert dataset.x_train.dtype == torch.uint8 and dataset.y_train.dtype == torch.int64
    assert dataset.x_train.shape == (20, 3, 5, 6)
    order = numbers(dataset)
    assert torch.equal(dataset.x_train, torch.from_numpy(x[order]).permute(0, 3, 1, 2))
    assert torch.equal(dataset.y_train, torch.from_numpy(y[order]))
    assert torch.equal(dataset.x_test, torch.from_numpy(x[::2].copy()).permute(0, 3, 1, 2))
    assert dataset.x_test.is_contiguous() and dataset.x_train.is_contiguous()


def test_normalised_training_images_have_mean_zero_and_variance_one(tmp_path):
    dataset = datasets.load(write_npz(tmp_path / "a.npz")[0], limit=9)
    x = dataset.images(dataset.x_train, torch.float64)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-14, rtol=0)
    torch.testing.assert_close(x.var((0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64))


def test_normalising_leaves_the_bytes_alone_and_takes_any_precision(tmp_path):
    dataset = datasets.load(write_npz(tmp_path / "a.npz")[0])
    before = dataset.x_test.clone()
    single, double = (dataset.images(dataset.x_test, dtype) for dtype in (torch.float32, torch.float64))
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, atol=1e-5, rtol=0)
    assert torch.equal(dataset.x_test, before)
    as_float = before.double()
    dataset.images(as_float, torch.float64)
    assert torch.equal(as_float, before.double())


def test_statistics_are_those_of_the_floats():
    x = torch.randint(0, 256, (40, 3, 5, 6), dtype=torch.uint8)
    mean, std = datasets.statistics(x)
    scaled = x.double() / 255
    torch.testing.assert_close(mean, scaled.mean((0, 2, 3)), rtol=1e-13, atol=0)
    torch.testing.assert_close(std, scaled.std((0, 2, 3), correction=0), rtol=1e-13, atol=0)


def test_the_range_of_floats_does_not_matter(tmp_path):
    """The input is that of the bytes, up to rounding, whatever the floats are scaled to."""
    _, x, y = write_npz(tmp_path / "a.npz")
    inputs = []
    for scale, shift in ((None, 0), (1 / 255, 0), (1, 0), (2 / 255, -1)):
        images = x if scale is None else (x * scale + shift).astype(np.float32)
        np.savez(tmp_path / "b.npz", x_train=images, y_train=y, x_test=images[::2], y_test=y[::2])
        dataset = datasets.load(f"npz:{tmp_path / 'b.npz'}", limit=9)
        inputs.append((dataset.images(dataset.x_train, torch.float64), dataset.sha256, dataset.x_test.dtype))
    for other, _, kind in inputs[1:]:
        torch.testing.assert_close(other, inputs[0][0], atol=2e-6, rtol=0)
        assert kind == torch.float32
    assert len({sha256 for _, sha256, _ in inputs}) == 4


def test_a_constant_channel_of_floats_has_deviation_one():
    mean, std = datasets.statistics(torch.full((7, 2, 3, 3), 0.1))
    assert torch.equal(std, torch.ones(2, dtype=torch.float64)) and abs(float(mean[0]) - 0.1) < 1e-8


@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_constant_channel_has_deviation_one_exactly(value):
    mean, std = datasets.statistics(torch.full((7, 2, 3, 3), value, dtype=torch.uint8))
    assert torch.equal(std, torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(mean, torch.full((2,), value / 255, dtype=torch.float64), rtol=1e-15, atol=0)


@pytest.mark.parametrize("limit", [3, 4, 5, 9, 12])
def test_a_limit_is_met_exactly_and_balanced(tmp_path, limit):
    counts = datasets.load(write_npz(tmp_path / "a.npz")[0], limit=limit).y_train.bincount(minlength=3)
    assert counts.sum() == limit
    assert counts.max() - counts.min() <= 1


def test_a_class_that_runs_out_gives_all_it_has_and_the_others_fill_up(tmp_path):
    name, _, _ = write_npz(tmp_path / "a.npz", counts=(9, 7, 2))
    assert datasets.load(name, limit=12).y_train.bincount().tolist() == [5, 5, 2]
    assert datasets.load(name, limit=18).y_train.bincount().tolist() == [9, 7, 2]


def test_no_image_comes_twice_and_a_smaller_limit_keeps_a_subset(tmp_path):
    name, _, _ = write_npz(tmp_path / "a.npz")
    kept = [numbers(datasets.load(name, limit=limit, seed=3)) for limit in (5, 11, 20)]
    assert [len(set(some)) for some in kept] == [5, 11, 20]
    assert set(kept[0]) < set(kept[1]) < set(kept[2])
    assert kept[1] == [number for number in kept[2] if number in kept[1]]


def test_the_seed_decides_everything(tmp_path):
    name, _, _ = write_npz(tmp_path / "a.npz")
    first, again, other = (datasets.load(name, limit=10, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.x_train, again.x_train) and first.sha256 == again.sha256
    assert not torch.equal(first.x_train, other.x_train) and first.sha256 != other.sha256


def test_the_global_random_states_are_left_alone(tmp_path):
    name, _, _ = write_npz(tmp_path / "a.npz")
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    datasets.load(name, limit=10)
    datasets.load("digits")
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize("limit", [None, 900])
def test_chunks_of_a_sorted_source_hold_every_class(tmp_path, limit):
    name, _, _ = write_npz(tmp_path / "a.npz", counts=(600, 600), shape=(5, 6, 1))
    shares = datasets.load(name, limit=limit).y_train.double().split(100)
    # a share of 100 draws from half and half has standard deviation 0.05
    assert all(abs(share.mean() - 0.5) < 0.2 for share in shares)


@pytest.mark.parametrize("limit", [None, 700])
def test_chunks_of_an_unbalanced_source_keep_its_shares(tmp_path, limit):
    labels = datasets.load(
        write_npz(tmp_path / "a.npz", (600, 200), (5, 6, 1))[0], limit=limit
    ).y_train.double()
    assert all(abs(chunk.mean() - labels.mean()) < 0.2 for chunk in labels.split(100))


def test_sha256_names_the_content_in_use(tmp_path):
    name, x, y = write_npz(tmp_path / "a.npz")
    dataset = datasets.load(name)
    assert len(dataset.sha256) == len(hashlib.sha256().hexdigest())
    assert datasets.load(write_npz(tmp_path / "copy.npz")[0]).sha256 == dataset.sha256
    assert datasets.load(name, limit=12).sha256 != dataset.sha256
    for field, changed in (("x_train", x ^ 1), ("y_test", y[::2][::-1])):
        arrays = dict(x_train=x, y_train=y, x_test=x[::2], y_test=y[::2]) | {field: changed}
        np.savez(tmp_path / "changed.npz", **arrays)
        assert datasets.load(f"npz:{tmp_path}/changed.npz").sha256 != dataset.sha256


def test_moving_keeps_bytes_bytes_and_everything_else(tmp_path):
    dataset = datasets.load(write_npz(tmp_path / "a.npz")[0])
    moved = dataset.to("meta")
    fields = ("x_train", "y_train", "x_test", "y_test", "mean", "std")
    assert {getattr(moved, field).device.type for field in fields} == {"meta"}
    assert all(getattr(moved, field).dtype == getattr(dataset, field).dtype for field in fields)
    assert (moved.name, moved.sha256, moved.class_names) == (
        dataset.name,
        dataset.sha256,
        dataset.class_names,
    )
    assert dataset.x_train.device.type == "cpu"


@pytest.mark.parametrize("limit", [-1, 0, 2, 21])
def test_a_limit_that_cannot_be_met_says_what_can(tmp_path, limit):
    name, _, _ = write_npz(tmp_path / "a.npz")
    with pytest.raises(
        UsageError, match=f"20 training images of 3 classes.* limit of {limit} .*choose 3 to 20"
    ):
        datasets.load(name, limit=limit)


def test_an_unknown_name_gets_the_nearest_and_the_list():
    with pytest.raises(
        UsageError, match=r"'cifar11'; did you mean 'cifar10'\?.*digits.*npz:PATH, folder:PATH"
    ):
        datasets.load("cifar11")


@pytest.mark.parametrize("name", ["npz:", "folder:"])
def test_a_form_without_its_path_is_explained(name):
    with pytest.raises(UsageError, match=f"{name}PATH"):
        datasets.load(name)


@pytest.mark.parametrize("name", ["digits", "npz:a.npz", "folder:a"])
def test_there_is_nothing_to_fetch_for_what_is_here(name):
    with pytest.raises(UsageError, match=f"nothing to fetch.*--data {name}"):
        datasets.fetch(name)


def test_an_unknown_name_cannot_be_fetched():
    with pytest.raises(UsageError, match=r"did you mean 'mnist'\?"):
        datasets.fetch("mnits")


def test_a_path_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_npz(tmp_path / "a.npz")
    assert len(datasets.load("npz:~/a.npz").y_train) == 20


def test_real_photographs_have_the_statistics_everybody_knows():
    if not REAL.is_file():
        pytest.skip("5,000 exact CIFAR-10 images are not on this machine")
    cifar = datasets.load(f"npz:{REAL}")
    published = torch.tensor([[0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]], dtype=torch.float64)
    torch.testing.assert_close(torch.stack([cifar.mean, cifar.std]), published, atol=0.005, rtol=0)
    assert datasets.load(f"npz:{REAL}", limit=1000).y_train.bincount().tolist() == [100] * 10


def test_a_file_or_folder_without_its_prefix_is_recognised(tmp_path):
    (tmp_path / "mine.npz").touch()
    places = {tmp_path / "mine.npz": "npz", tmp_path: "folder"}
    places |= {tmp_path / "absent.npz": "npz", tmp_path / "images.tar.gz": "folder"}
    for path, prefix in places.items():
        with pytest.raises(UsageError, match=f"no data set '{path}'; did you mean '{prefix}:{path}'"):
            datasets.load(str(path))
