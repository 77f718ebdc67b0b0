"""A distribution `shapes` 2.0 that registers the model `tiny` and the data set `stripes`."""

SOURCE = """
import sys
from collections import OrderedDict
import numpy as np
from torch import nn

def tiny(classes, channels, size, width=8):
    flat = channels * size[0] * size[1]
    layers = {"flatten": nn.Flatten(), "linear": nn.Linear(flat, width), "norm": nn.BatchNorm1d(width)}
    return nn.Sequential(OrderedDict(layers | {"fc": nn.Linear(width, classes)}))

def stripes():
    x = np.zeros((12, 4, 4), dtype=np.uint8)
    x[::2, ::2], x[1::2, :, ::2] = 255, 200
    y = np.arange(12) % 2
    parts = {"x_train": x[:8], "y_train": y[:8], "x_test": x[8:], "y_test": y[8:]}
    return parts | {"class_names": ["lying", "up"]}
"""


def install(folder, monkeypatch, source=SOURCE, name="shapes", model="tiny", images="stripes"):
    """Put the distribution into the folder and the folder on sys.path."""
    info = folder / f"{name}-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
    points = {"models": f"{model} = shapes:tiny", "data": f"{images} = shapes:stripes"}
    lines = [f"[optim_family.{group}]\n{point}\n" for group, point in points.items()]
    (info / "entry_points.txt").write_text("".join(lines))
    (folder / "shapes.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
