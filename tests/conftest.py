"""Shared by all tests: small nets, one thread a process, so that xdist workers do not fight."""

import os
import sys
from functools import partial

import pytest

from tests.helpers import shapes_plugin as shapes_plugin_files

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture
def broken_plugin(tmp_path, monkeypatch):
    """Install the distribution `test-plugin`, which registers `plain`, for this process and its children."""
    from optim_family import registry

    def put(source):
        info = tmp_path / "test_plugin-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: test-plugin\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\nplain = test_plugin_module:Plain\n")
        (tmp_path / "test_plugin_module.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))

    yield put
    sys.modules.pop("test_plugin_module", None)


@pytest.fixture
def shapes_plugin(tmp_path, monkeypatch):
    """Install the distribution `shapes`, which registers the model `tiny` and the data set `stripes`."""
    yield partial(shapes_plugin_files.install, tmp_path, monkeypatch)
    sys.modules.pop("shapes", None)


@pytest.fixture(autouse=True)
def forget_optimizers():
    """Forget loaded optimizers: tests install different plugins under one name."""
    from optim_family.registry import load

    yield
    load.cache_clear()
