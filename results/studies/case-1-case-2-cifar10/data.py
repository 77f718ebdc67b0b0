"""CIFAR-10 without a download: 5,000 exact training images and two test sets, in one npz file.

    python results/studies/case-1-case-2-cifar10/data.py IMAGES.npz JPEGS.tar.xz OUT.npz

x_train, x_test         the first 1,000 images of each training batch, and of the test batch: exact pixels
x_test_jpeg             all 10,000 test images, from a JPEG copy (median PSNR 30.5 dB), the same labels

In the further test set one point of accuracy is 100 images instead of 10; its record fields end in `_jpeg`.
"""

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def jpeg_test_set(archive: Path) -> tuple[np.ndarray, np.ndarray]:
    """The images test/CLASS/*.jpg, uint8 [n, 32, 32, 3], and their labels, classes in alphabetical order."""
    with tarfile.open(archive) as tar:
        members = {
            m.name: tar.extractfile(m).read() for m in tar if m.isfile() and "test" in Path(m.name).parts
        }
    names = sorted(members)
    classes = sorted({Path(name).parent.name for name in names})
    images = [np.asarray(Image.open(io.BytesIO(members[name])).convert("RGB")) for name in names]
    labels = [classes.index(Path(name).parent.name) for name in names]
    return np.stack(images), np.array(labels, dtype=np.uint8)


def main(images: Path, archive: Path, out: Path) -> None:
    """Write one file with all three sets."""
    with np.load(images) as exact:
        arrays = dict(exact)
    arrays["x_test_jpeg"], arrays["y_test_jpeg"] = jpeg_test_set(archive)
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
