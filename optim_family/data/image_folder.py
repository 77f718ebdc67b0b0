"""Read train/CLASS/IMAGE and test/CLASS/IMAGE, from a folder or from a tar file that is never unpacked.

Images are PNG or JPEG by content, and *.png, *.jpg or *.jpeg by name. Hidden files, other kinds of files, and
everything outside train/ and test/ are skipped; a misplaced image or folder is an error, so that no image is
omitted silently. Classes and images are sorted by name, from either source.
"""

import io
import lzma
import tarfile
import unicodedata
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from optim_family.data.arrays import Arrays
from optim_family.data.npz_file import require_file
from optim_family.errors import CorruptError, UsageError

_SPLITS = ("train", "test")
_SUFFIXES = (".png", ".jpg", ".jpeg")
_MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB"}  # transparency is ignored

Pixels = npt.NDArray[np.uint8]
Splits = dict[str, dict[str, dict[str, Pixels]]]  # split, class, file → [c, h, w]
Item = tuple[PurePosixPath, Callable[[], bytes] | None]  # a file and the function that reads it, or a folder


def folder(path: Path) -> Arrays:
    """The images below `path`, a folder or a .tar, .tar.gz, .tar.bz2 or .tar.xz file.

    Raises:
        UsageError: there is no such folder or file.
        CorruptError: a split, a class or an image is missing, damaged, or differs from the others in shape.
    """
    require_source(path)
    splits = _read_splits(path, _walk(path) if path.is_dir() else _unpack(path))
    train, test = (set(splits[split]) for split in _SPLITS)
    if train != test:
        label = min(train ^ test)
        has, lacks = _SPLITS if label in train else _SPLITS[::-1]
        raise CorruptError(f"{path}: {has}/ has a class {label!r}, but {lacks}/ does not")
    if len(train) < 2:
        raise CorruptError(f"{path} holds a single class, {min(train)!r}; two are needed")
    return Arrays(*_stack(splits["train"]), *_stack(splits["test"]), tuple(sorted(train)))


def require_source(path: Path) -> None:
    """Check that `path` is a folder or a file.

    Raises:
        UsageError: there is no such folder or file.
    """
    if not path.is_dir() and not path.is_file():
        raise UsageError(f"there is no folder or tar file {path}")


def _stack(classes: dict[str, dict[str, Pixels]]) -> tuple[Pixels, npt.NDArray[np.int64]]:
    images = [files[name] for _, files in sorted(classes.items()) for name in sorted(files)]
    counts = [len(files) for _, files in sorted(classes.items())]
    return np.stack(images), np.repeat(np.arange(len(counts)), counts)


def _read_splits(source: Path, items: Iterator[Item]) -> Splits:
    """Read every image; all must have one shape, and no class may be empty."""
    splits: Splits = {split: {} for split in _SPLITS}
    first: tuple[PurePosixPath, Pixels] | None = None
    for path, read in items:
        if (place := _place(source, path, is_folder=read is None)) is None:
            continue
        split, label, name = place
        files = splits[split].setdefault(label, {})
        if read is None:
            continue
        if name in files:
            raise CorruptError(f"{source} holds {path} twice")
        files[name] = pixels = _decode(f"{source}: {path}", read())
        first = first or (path, pixels)
        if pixels.shape != first[1].shape:
            raise CorruptError(
                f"{source}: {path} is {_size(pixels)} and {first[0]} {_size(first[1])}; "
                "images must be of one size and all grey or all colour"
            )
    for split, classes in splits.items():
        if not classes:
            raise CorruptError(f"{source} has no images {split}/CLASS/*{', *'.join(_SUFFIXES)}")
        if empty := sorted(label for label, files in classes.items() if not files):
            raise CorruptError(f"{source}: {split}/{empty[0]} holds no {', '.join(_SUFFIXES)} image")
    return splits


def _place(source: Path, path: PurePosixPath, is_folder: bool) -> tuple[str, str, str] | None:
    """Split, class and file name (empty for a class folder); None for an item to skip."""
    parts = path.parts
    is_relevant = is_folder or path.suffix.lower() in _SUFFIXES
    is_hidden = any(part.startswith(".") for part in parts)
    if is_hidden or not is_relevant or len(parts) < 2 or parts[0] not in _SPLITS:
        return None
    if len(parts) != (2 if is_folder else 3):
        raise CorruptError(f"{source}: {path} is in a wrong place; images go to {parts[0]}/CLASS/IMAGE")
    # One spelling of a letter with an accent, which file systems keep as one character or as two.
    return parts[0], unicodedata.normalize("NFC", parts[1]), "" if is_folder else parts[2]


def _walk(root: Path) -> Iterator[Item]:
    """The items of three levels only: links may point anywhere."""
    for split in _SPLITS:
        for entry in _entries(root / split) if (root / split).exists() else ():
            yield _item(root, entry)
            for inner in _entries(entry) if entry.is_dir() else ():
                yield _item(root, inner)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise CorruptError(f"{folder} cannot be listed: {error.strerror}") from error


def _item(root: Path, entry: Path) -> Item:
    if not (entry.is_dir() or entry.is_file()):
        raise CorruptError(f"{entry} is neither a file nor a folder; is it a link that leads nowhere?")
    return PurePosixPath(entry.relative_to(root)), None if entry.is_dir() else partial(_read, entry)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CorruptError(f"{file} cannot be read: {error.strerror}") from error


@final
class _Member(tarfile.TarInfo):
    """A member whose damaged header is an error; the base class treats it as the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):  # the mark at the end
                raise
            raise tarfile.ReadError(str(error)) from error


def _unpack(path: Path) -> Iterator[Item]:
    """The members in the order of the archive; reading each before the next is a single pass."""
    require_file(path)
    with _whole(path), tarfile.open(path, tarinfo=_Member) as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts:
                raise CorruptError(f"{path}: {name} leads out of the archive; pack it with relative paths")
            if not (member.isfile() or member.isdir()):
                raise CorruptError(f"{path}: {name} is a link or a device; pack it with the files themselves")
            yield name, partial(_read_member, path, archive, member) if member.isfile() else None
        while archive.fileobj.read(1 << 20):  # up to the checksum of the compression
            pass


def _read_member(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    with _whole(path):
        file = archive.extractfile(member)
        return file.read() if file else b""


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        kinds = "plain or compressed by gzip, bzip2 or xz"
        raise CorruptError(f"{path} is not a whole tar file, {kinds}") from error


def _decode(name: str, content: bytes) -> Pixels:
    """[c, h, w], c = 1 for grey and 3 for colour."""
    if not content:
        raise CorruptError(f"{name} is empty (0 bytes)")
    try:
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as stored,
        ):
            image = ImageOps.exif_transpose(stored)  # upright, as a viewer shows it
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise CorruptError(
            f"{name} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it to the size of the others"
        ) from error
    except Exception as error:  # a damaged file raises many types in Pillow
        raise CorruptError(f"{name} is not a whole PNG or JPEG image") from error
    if image.mode not in _MODES:
        raise CorruptError(f"{name} has pixels of mode {image.mode}; save it as 8-bit grey or RGB")
    image.info.pop("transparency", None)
    pixels = np.asarray(image.convert(_MODES[image.mode]))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _size(pixels: Pixels) -> str:
    channels, height, width = pixels.shape
    return f"{height}×{width} {'grey' if channels == 1 else 'colour'}"
