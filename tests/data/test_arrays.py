import pickle
import zipfile

import numpy as np
import pytest

from optim_family.data import arrays as readers
from optim_family.data import npz_file
from optim_family.errors import CorruptError, UsageError


def arrays(**changed):
    y = np.tile(np.arange(3), 4)
    x = np.arange(12 * 5 * 6, dtype=np.uint8).reshape(12, 5, 6)
    return {"x_train": x, "y_train": y, "x_test": x[:6], "y_test": y[:6]} | changed


def save(path, **changed):
    np.savez(path, **{name: array for name, array in arrays(**changed).items() if array is not None})
    return path


BYTES = arrays()["x_train"]
LABELS = arrays()["y_train"]


def test_digits_are_scaled_to_bytes_and_split_evenly():
    from sklearn.datasets import load_digits

    digits = readers.digits()
    assert digits.x_train.shape == (1437, 1, 8, 8) and digits.x_test.shape == (360, 1, 8, 8)
    assert set(np.bincount(digits.y_test)) <= {35, 36, 37}
    there = np.concatenate([digits.x_train, digits.x_test]).reshape(-1, 64).astype(float)
    source = load_digits().data * 255 / 16
    assert np.abs(np.sort(there.sum(1)) - np.sort(np.rint(source).sum(1))).max() == 0
    assert there.max() == 255 and there.min() == 0


def test_digits_are_the_same_every_time():
    first, again = readers.digits(), readers.digits()
    assert (first.x_test == again.x_test).all() and (first.y_train == again.y_train).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_may_come_first_or_last(channels):
    x = np.random.default_rng(0).integers(0, 256, (12, 5, 6, channels), dtype=np.uint8)
    first = x.transpose(0, 3, 1, 2)
    last = readers.validate_arrays("a", arrays(x_train=x, x_test=x[:6]))
    assert (last.x_train == first).all()
    assert (readers.validate_arrays("a", arrays(x_train=first, x_test=x[:6])).x_train == first).all()


def test_grey_images_need_no_channel_axis(tmp_path):
    read = npz_file.npz(save(tmp_path / "a.npz"))
    assert read.x_train.shape == (12, 1, 5, 6)
    assert (read.x_train[:, 0] == arrays()["x_train"]).all()
    assert read.class_names == ("0", "1", "2")


def test_an_npz_file_may_hold_further_test_sets(tmp_path):
    x, y = arrays()["x_test"][:4], arrays()["y_test"][:4]
    read = npz_file.npz(save(tmp_path / "a.npz", x_test_clear=x, y_test_clear=y))
    assert set(read.further_tests) == {"clear"}
    assert (read.further_tests["clear"][0][:, 0] == x).all() and (read.further_tests["clear"][1] == y).all()
    assert npz_file.npz(save(tmp_path / "b.npz")).further_tests == {}


@pytest.mark.parametrize("kind", ["float16", "float32", ">f8"])
def test_floats_are_kept_as_they_are(tmp_path, kind):
    x = (BYTES / 255).astype(kind)
    read = npz_file.npz(save(tmp_path / "a.npz", x_train=x, x_test=x[:6]))
    assert read.x_train.dtype == np.float32 and (read.x_train[:, 0] == x.astype(np.float32)).all()


def test_a_far_value_does_not_change_the_scale():
    x = np.random.default_rng(0).standard_normal((12, 50, 50))
    x[0, 0, 0] = 1000
    readers.validate_arrays("a", arrays(x_train=x, x_test=x[6:]))


def test_one_line_says_how_a_file_was_read(tmp_path):
    x = np.random.default_rng(0).random((12, 5, 6, 3))
    x[0, 0, 0, 0], x[0, 0, 0, 1] = -1, 2
    for images, words in {
        "bytes": (BYTES, "[n, h, w] of 5×6×1 from 0 to 255, uint8;"),
        "last": (x, "[n, h, w, c] (channels last) of 5×6×3 from -1 to 2, float64, used without a division"),
        "first": (x.transpose(0, 3, 1, 2), "[n, c, h, w] (channels first) of 5×6×3 from -1 to 2, float64"),
    }.values():
        read = npz_file.npz(save(tmp_path / "a.npz", x_train=images, x_test=images[:6]))
        assert read.notice.startswith(f"{tmp_path / 'a.npz'}: images {words}") and "\n" not in read.notice
    assert readers.digits().notice == ""


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_test_more": arrays()["x_test"]}, "has no y_test_more"),
        ({"x_test_more": arrays()["x_test"], "y_test_more": arrays()["y_test"][:3]}, "x_test_more has 6"),
        ({"x_test_more": arrays()["x_test"][:, :4], "y_test_more": arrays()["y_test"]}, "of one size"),
        ({"x_test_more": arrays()["x_test"], "y_test_more": arrays()["y_test"] + 1}, "y_test_more holds"),
    ],
)
def test_a_further_test_set_is_held_to_the_same_rules(tmp_path, changed, message):
    with pytest.raises(CorruptError, match=message):
        npz_file.npz(save(tmp_path / "a.npz", **changed))


@pytest.mark.parametrize("kind", ["uint8", "int8", ">i4", "uint64"])
def test_labels_may_be_any_integers(tmp_path, kind):
    read = npz_file.npz(save(tmp_path / "a.npz", y_train=arrays()["y_train"].astype(kind)))
    assert read.y_train.dtype == np.int64
    assert (read.y_train == arrays()["y_train"]).all()


WRONG = {
    "missing": (dict(x_test=None), "has no x_test; it holds x_train, y_train, y_test"),
    "objects": (dict(y_train=LABELS.astype(object)), "y_train holds Python objects; an array of numbers"),
    "integers": (
        dict(x_train=BYTES.astype(int)),
        r"x_train is int64; images must be uint8.*astype\('uint8'\)",
    ),
    "truth values": (dict(x_train=BYTES > 9), "x_train is bool; images must be uint8, 0 … 255, or floats"),
    "floats beside bytes": (dict(x_train=BYTES / 255), "x_test is uint8 and x_train float32"),
    "two ranges": (
        dict(x_train=BYTES / 255, x_test=BYTES[:6] / 1),
        r"x_test is from 0 to 179 and x_train from 0 to 1; images must be of one scale",
    ),
    "not a number": (dict(x_train=BYTES * np.nan), "x_train holds numbers that are not finite"),
    "beyond float32": (dict(x_train=BYTES * 1e300), "x_train holds numbers that are not finite"),
    "float labels": (
        dict(y_test=LABELS[:6] / 1),
        r"y_test is float64; labels must be integers.*astype\('int64'\)",
    ),
    "boolean labels": (dict(y_test=LABELS[:6] > 1), "y_test is bool; labels must be integers"),
    "flat images": (
        dict(x_train=BYTES.reshape(12, 30)),
        r"x_train is \[12, 30\]; images must be \[n, h, w, c\]",
    ),
    "no images": (dict(x_test=BYTES[:0], y_test=LABELS[:0]), r"x_test is \[0, 5, 6\]; images must be"),
    "one-hot labels": (
        dict(y_train=np.eye(3, dtype=int)[LABELS]),
        r"y_train is \[12, 3\]; labels must be \[n\]: y_train.argmax\(1\)",
    ),
    "a column of labels": (
        dict(y_train=LABELS[:, None]),
        r"y_train is \[12, 1\]; labels must be \[n\]: y_train.ravel\(\)",
    ),
    "words": (
        dict(y_train=LABELS.astype(str)),
        r"labels must be integers from 0: np\.unique\(y_train, return_i",
    ),
    "a scalar": (dict(y_train=np.int64(3)), r"y_train is \[\]; labels must be \[n\]"),
    "no channels": (dict(x_train=np.zeros((12, 5, 6, 7), np.uint8)), "neither axis can be the channels"),
    "ambiguous": (
        dict(x_train=np.zeros((12, 3, 6, 3), np.uint8)),
        "either axis could be the channels.*more than 4 rows",
    ),
    "counts": (dict(y_train=LABELS[:11]), "x_train has 12 images and y_train 11 labels"),
    "test counts": (dict(y_test=LABELS[:5]), "x_test has 6 images and y_test 5 labels"),
    "sizes": (dict(x_test=BYTES[:6, :4]), r"\[12, 1, 5, 6\] for training and \[6, 1, 4, 6\] for testing"),
    "negative label": (dict(y_train=LABELS - 1), "y_train has the label -1 but not 2"),
    "gap": (dict(y_train=LABELS * 2), "y_train has the label 4 but not 1"),
    "huge label": (dict(y_train=LABELS.astype(np.uint64) + 2**63), f"the label {2**63} but not 0"),
    "unknown test label": (dict(y_test=LABELS[:6] + 1), r"y_test holds the label 3; y_train has 0 … 2"),
    "negative test label": (dict(y_test=LABELS[:6] - 1), r"y_test holds the label -1; y_train has 0 … 2"),
    "one class": (dict(y_train=LABELS * 0, y_test=LABELS[:6] * 0), "a single class; two are needed"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_arrays_that_do_not_fit_are_refused_in_one_line(tmp_path, wrong):
    changed, message = WRONG[wrong]
    with pytest.raises(CorruptError, match=message) as caught:
        npz_file.npz(save(tmp_path / "a.npz", **changed))
    assert str(caught.value).startswith(str(tmp_path / "a.npz")) and "\n" not in str(caught.value)


def test_a_pickle_is_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path / "sprung").touch, ()

    (tmp_path / "a.npz").write_bytes(pickle.dumps(Trap()))
    save(tmp_path / "b.npz", x_train=np.array([Trap()], dtype=object))
    for name in ("a.npz", "b.npz"):
        with pytest.raises(CorruptError):
            npz_file.npz(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "path, message", [("none.npz", "there is no file"), (".", "is a folder, not a file; folder:")]
)
def test_a_path_that_is_no_file_is_a_wrong_request(tmp_path, path, message):
    with pytest.raises(UsageError, match=message):
        npz_file.npz(tmp_path / path)


def test_a_link_that_leads_to_itself_is_no_file(tmp_path):
    (tmp_path / "a.npz").symlink_to(tmp_path / "a.npz")
    with pytest.raises(UsageError, match="there is no file"):
        npz_file.npz(tmp_path / "a.npz")


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "a.npz").touch()
    with pytest.raises(CorruptError, match=r"is empty \(0 bytes\)"):
        npz_file.npz(tmp_path / "a.npz")


def test_a_single_array_is_not_an_archive(tmp_path):
    np.save(tmp_path / "a.npy", BYTES)
    with pytest.raises(CorruptError, match="holds a single array"):
        npz_file.npz(tmp_path / "a.npy")


def test_a_member_in_another_format_is_named(tmp_path):
    save(tmp_path / "a.npz", x_test=None)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("x_test.npy", "text")
    with pytest.raises(CorruptError, match="x_test is not an array"):
        npz_file.npz(tmp_path / "a.npz")


def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path):
    whole = save(tmp_path / "a.npz").read_bytes()
    for end in range(1, len(whole), 97):
        (tmp_path / "b.npz").write_bytes(whole[:end])
        with pytest.raises(CorruptError, match=r"b\.npz is not a whole \.npz file"):
            npz_file.npz(tmp_path / "b.npz")


def test_a_flipped_bit_in_the_images_is_noticed(tmp_path):
    whole = bytearray(save(tmp_path / "a.npz").read_bytes())
    whole[whole.index(BYTES[:6].tobytes()) + 40] ^= 1
    (tmp_path / "a.npz").write_bytes(whole)
    with pytest.raises(CorruptError, match="x_train cannot be read: Bad CRC-32"):
        npz_file.npz(tmp_path / "a.npz")
