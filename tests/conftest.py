"""Shared by all tests: small nets, one thread a process, so that xdist workers do not fight."""

import os
import sys

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(name="plugin")
def wild_plugin(tmp_path, monkeypatch):
    """Install a distribution `wild-plugin` that registers `wild`, for this process and those it starts."""
    from optim_family import registry

    def put(source):
        info = tmp_path / "wild_plugin-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wild-plugin\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\nwild = wild_plugin:Plain\n")
        (tmp_path / "wild_plugin.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))

    yield put
    sys.modules.pop("wild_plugin", None)
