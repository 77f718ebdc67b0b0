import io
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from optim_family.data import datasets
from optim_family.data.image_folder import folder
from optim_family.errors import CorruptError, UsageError

SHAPE = (5, 6, 3)
FILES = [
    f"{split}/{label}/{k}.png" for split in ("train", "test") for label in ("cat", "ant") for k in (2, 0, 1)
]


def pixels(name, shape=SHAPE):
    return np.random.default_rng(list(name.encode())).integers(0, 256, shape, dtype=np.uint8)


def encoded(image, kind="PNG", mode=None, **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def contents(**changed):
    """File name → bytes of a small whole set; `changed` maps train__ant__0_png to other bytes, or None."""
    files = {name: encoded(pixels(name)) for name in FILES}
    files |= {"README.txt": b"hello", "train/notes.txt": b"hello", "train/ant/.hidden.png": b"no image"}
    return {name: content for name, content in (files | changed).items() if content is not None}


def make_folder(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def make_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = 0 if member is content else len(content)
            archive.addfile(member, None if member is content else io.BytesIO(content))
    return path


def make(tmp_path, source, files):
    return (
        make_folder(tmp_path / "set", files) if source == "folder" else make_tar(tmp_path / "set.tar", files)
    )


both = pytest.mark.parametrize("source", ["folder", "tar"])


@both
def test_classes_and_images_come_in_the_order_of_their_names(tmp_path, source):
    arrays = folder(make(tmp_path, source, contents()))
    assert arrays.class_names == ("ant", "cat")
    assert arrays.y_train.tolist() == arrays.y_test.tolist() == [0, 0, 0, 1, 1, 1]
    for x, split in ((arrays.x_train, "train"), (arrays.x_test, "test")):
        expected = [pixels(name).transpose(2, 0, 1) for name in sorted(FILES) if name.startswith(split)]
        assert (x == expected).all()


@pytest.mark.parametrize(
    "suffix, mode", [("tar", "w"), ("tar.gz", "w:gz"), ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz")]
)
def test_a_tar_file_is_the_folder_that_it_packs_and_is_not_unpacked(tmp_path, suffix, mode):
    unpacked = datasets.load(f"folder:{make_folder(tmp_path / 'set', contents())}")
    archive = make_tar(tmp_path / f"a.{suffix}", contents(), mode)
    before = sorted(tmp_path.rglob("*"))
    assert datasets.load(f"folder:{archive}").sha256 == unpacked.sha256
    assert sorted(tmp_path.rglob("*")) == before


def test_a_tar_file_made_by_tar_itself_is_read(tmp_path):
    root = make_folder(tmp_path / "set", contents())
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(root, ".")
    assert (folder(tmp_path / "a.tar").x_train == folder(root).x_train).all()


def test_jpeg_in_capitals_and_every_kind_of_eight_bit_image_is_read(tmp_path):
    grey = {"1": "1", "L": "L", "LA": "LA"}
    files = {f"{s}/{c}/{k}.png": encoded(pixels(k, (5, 6)), mode=k) for k in grey for s, c in PLACES}
    files |= {f"{s}/{c}/j.JPEG": encoded(pixels("j", (5, 6)), "JPEG") for s, c in PLACES}
    assert folder(make_folder(tmp_path / "grey", files)).x_train.shape == (8, 1, 5, 6)
    colour = {f"{s}/{c}/{k}.png": encoded(pixels(k), mode=k) for k in ("P", "RGB", "RGBA") for s, c in PLACES}
    colour |= {f"{s}/{c}/j.JPG": encoded(pixels("j"), "JPEG") for s, c in PLACES}
    assert folder(make_folder(tmp_path / "colour", colour)).x_train.shape == (8, 3, 5, 6)


PLACES = [(split, label) for split in ("train", "test") for label in ("ant", "cat")]


def test_transparency_is_ignored(tmp_path):
    clear = Image.fromarray(np.dstack([pixels("a"), np.zeros(SHAPE[:2], np.uint8)]))
    palette = Image.fromarray(pixels("a")).quantize(4)
    opaque = np.asarray(palette.convert("RGB"))
    palette.info["transparency"] = bytes([0, 100, 200, 255])
    files = {f"{s}/{c}/{k}.png": encoded(i) for s, c in PLACES for k, i in enumerate((clear, palette))}
    x = folder(make_folder(tmp_path / "set", files)).x_train
    assert (x[0] == pixels("a").transpose(2, 0, 1)).all()
    assert (x[1] == opaque.transpose(2, 0, 1)).all()


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def directory(name):
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    return member


WRONG = {
    "no test": ({name: None for name in FILES if "test" in name}, r"has no images test/CLASS/\*.png, \*.jpg"),
    "class without test": (
        {name: None for name in FILES if "test/ant" in name},
        "train/ has a class 'ant', but test/ does not",
    ),
    "class without training": (
        {"test/bee/0.png": encoded(pixels("b"))},
        "test/ has a class 'bee', but train/ does not",
    ),
    "one class": ({name: None for name in FILES if "cat" in name}, "holds a single class, 'ant'"),
    "size": ({"test/ant/0.png": encoded(pixels("b", (5, 7, 3)))}, "test/ant/0.png .*5×7 colour"),
    "grey": ({"train/cat/1.png": encoded(pixels("b", (5, 6)))}, "train/cat/1.png .*5×6 grey"),
    "empty image": ({"train/cat/1.png": b""}, r"train/cat/1.png is empty \(0 bytes\)"),
    "text": ({"train/cat/1.png": b"hello"}, "train/cat/1.png is not a whole PNG or JPEG image"),
    "gif": (
        {"train/cat/1.png": encoded(pixels("b"), "GIF")},
        "train/cat/1.png is not a whole PNG or JPEG image",
    ),
    "truncated": (
        {"train/cat/1.png": encoded(pixels("b"))[:100]},
        "train/cat/1.png is not a whole PNG or JPEG",
    ),
    "truncated jpeg": (
        {"train/cat/1.jpg": encoded(pixels("b", (50, 60, 3)), "JPEG")[:-900]},
        "train/cat/1.jpg is not a whole PNG or JPEG",
    ),
    "16 bits": (
        {"train/cat/1.png": encoded(Image.fromarray(np.zeros((5, 6), np.uint16)))},
        "train/cat/1.png has pixels of mode I;16; save it as 8-bit",
    ),
    "too high": ({"train/1.png": encoded(pixels("b"))}, "train/1.png is in a wrong place.*train/CLASS/IMAGE"),
    "too deep": ({"test/cat/more/1.png": encoded(pixels("b"))}, "test/cat/more.* is in a wrong place"),
}


@both
@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_read_is_named_in_one_line(tmp_path, source, wrong):
    changed, message = WRONG[wrong]
    path = make(tmp_path, source, contents(**changed))
    with pytest.raises(CorruptError, match=message) as caught:
        folder(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@both
def test_an_empty_class_folder_is_named(tmp_path, source):
    path = make(tmp_path, source, contents())
    if source == "folder":
        (path / "train" / "bee").mkdir()
    else:
        make_tar(path, contents() | {"train/bee": directory("train/bee")})
    with pytest.raises(CorruptError, match=r"train/bee holds no .png, .jpg, .jpeg image"):
        folder(path)


def test_a_folder_without_the_two_halves_says_what_they_are(tmp_path):
    with pytest.raises(CorruptError, match="has no images train/CLASS/"):
        folder(tmp_path)


@pytest.mark.parametrize("path", ["none", "none.tar.gz"])
def test_a_path_that_is_not_there_is_a_wrong_request(tmp_path, path):
    with pytest.raises(UsageError, match=f"there is no folder or tar file .*{path}"):
        folder(tmp_path / path)


def test_linked_folders_are_followed_and_loops_are_no_trap(tmp_path):
    root = make_folder(tmp_path / "set", contents())
    (root / "train" / "ant" / "loop").symlink_to(root / "train")
    with pytest.raises(CorruptError, match="train/ant/loop is in a wrong place"):
        folder(root)
    (root / "train" / "ant" / "loop").unlink()
    (root / "train").rename(tmp_path / "elsewhere")
    (root / "train").symlink_to(tmp_path / "elsewhere")
    assert len(folder(root).y_train) == 6


@pytest.mark.parametrize("place", ["train/bee", "train/ant/9.png"])
def test_a_link_that_leads_to_itself_is_named(tmp_path, place):
    root = make_folder(tmp_path / "set", contents())
    (root / place).symlink_to(root / place)
    with pytest.raises(CorruptError, match=f"{place} is neither a file nor a folder"):
        folder(root)


def test_a_pipe_is_not_waited_for(tmp_path):
    root = make_folder(tmp_path / "set", contents())
    os.mkfifo(root / "train" / "ant" / "9.png")
    with pytest.raises(CorruptError, match=r"9\.png is neither a file nor a folder"):
        folder(root)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("/train/ant/9.png", encoded(pixels("b")), "/train/ant/9.png leads out of the archive"),
        ("train/../../9.png", encoded(pixels("b")), r"train/../../9.png leads out of the archive"),
        ("../9.txt", b"", r"../9.txt leads out of the archive"),
        ("train/ant/9.png", link("train/ant/9.png", "/etc/passwd"), "train/ant/9.png is a link or a device"),
        ("x", link("x", "train/ant/0.png", tarfile.LNKTYPE), "x is a link or a device"),
        ("x", link("x", "", tarfile.FIFOTYPE), "x is a link or a device"),
    ],
)
def test_a_member_that_could_do_harm_is_refused(tmp_path, name, content, message):
    path = make_tar(tmp_path / "a.tar", contents() | {name: content})
    with pytest.raises(CorruptError, match=message):
        folder(path)


def test_a_member_that_comes_twice_is_refused(tmp_path):
    path = make_tar(tmp_path / "a.tar", contents())
    with tarfile.open(path, "a") as archive:
        again = tarfile.TarInfo("./train/ant/0.png")
        again.size = len(contents()["train/ant/0.png"])
        archive.addfile(again, io.BytesIO(contents()["train/ant/0.png"]))
    with pytest.raises(CorruptError, match=r"train/ant/0.png twice"):
        folder(path)


@pytest.mark.parametrize(
    "suffix, mode", [("tar", "w"), ("tar.gz", "w:gz"), ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz")]
)
def test_a_truncated_tar_file_is_refused_wherever_it_ends(tmp_path, suffix, mode):
    whole = make_tar(tmp_path / f"a.{suffix}", contents(), mode).read_bytes()
    images = (
        max(k for k in range(0, len(whole), 512) if any(whole[k : k + 512])) + 512
        if mode == "w"
        else len(whole)
    )
    for end in {*range(1, images, 97), *range(512, images, 512), images - 1}:
        (tmp_path / "b").write_bytes(whole[:end])
        with pytest.raises(CorruptError, match="b is not a whole tar file"):
            folder(tmp_path / "b")


def test_a_damaged_header_does_not_pass_for_the_end(tmp_path):
    whole = bytearray(make_tar(tmp_path / "a.tar", contents()).read_bytes())
    whole[whole.index(b"test/cat/1.png") + 3] ^= 1
    (tmp_path / "a.tar").write_bytes(whole)
    with pytest.raises(CorruptError, match="is not a whole tar file"):
        folder(tmp_path / "a.tar")


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_damage_inside_a_compressed_tar_file_is_noticed(tmp_path, suffix):
    large = {name: encoded(pixels(name, (90, 90, 3)) % 16, compress_level=0) for name in FILES}
    whole = make_tar(tmp_path / f"a.tar.{suffix}", large, f"w:{suffix}").read_bytes()
    for place in range(40, len(whole) - 40, len(whole) // 30):
        (tmp_path / "b").write_bytes(whole[:place] + b"\xff" * 30 + whole[place + 30 :])
        with pytest.raises(CorruptError):
            folder(tmp_path / "b")


def test_a_wrong_checksum_of_the_compression_is_noticed(tmp_path):
    whole = bytearray(make_tar(tmp_path / "a.tar.gz", contents(), "w:gz").read_bytes())
    whole[-6] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(whole)
    with pytest.raises(CorruptError, match="is not a whole tar file"):
        folder(tmp_path / "a.tar.gz")


@pytest.mark.parametrize(
    "content, message", [(b"", "is empty"), (b"PK\3\4 a zip file", "is not a whole tar file")]
)
def test_a_file_that_is_not_a_tar_file_is_named(tmp_path, content, message):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(CorruptError, match=f"a.zip {message}"):
        folder(tmp_path / "a.zip")


def test_an_image_that_a_camera_turned_is_read_upright(tmp_path):
    turned = Image.new("RGB", (8, 8))
    turned.paste((255, 0, 0), (0, 0, 8, 2))
    exif = turned.getexif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=100)
    content = (tmp_path / "turned.jpg").read_bytes()
    files = {f"{split}/{label}/0.jpg": content for split in ("train", "test") for label in "ab"}
    red = folder(make_folder(tmp_path / "a", files)).x_train[0][0]
    assert red[-1].min() > 250 and red[0].max() < 5


def test_an_image_with_too_many_pixels_is_named_as_that(tmp_path):
    files = contents() | {"train/ant/9.png": encoded(Image.new("1", (10_000, 10_000)))}
    with pytest.raises(CorruptError, match=r"train/ant/9.png has more than 89,478,485 pixels; scale it"):
        folder(make_folder(tmp_path / "a", files))


def test_two_encodings_of_one_name_are_one_class(tmp_path):
    image = contents()["train/ant/0.png"]
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    files = {"train/tea/0.png": image, "test/tea/0.png": image}
    files |= {f"train/{composed}/0.png": image, f"test/{decomposed}/0.png": image}
    assert folder(make_folder(tmp_path / "a", files)).class_names == (composed, "tea")
