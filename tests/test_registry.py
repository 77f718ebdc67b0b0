"""Distributions are made of two files in a folder on sys.path, as an installer leaves them."""

import subprocess
import sys

import pytest

from optim_family import __version__, registry
from optim_family.errors import PluginError, UsageError
from optim_family.optimizers.base import FamilyOptimizer
from tests.helpers import ROOT


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution on sys.path: its name, its entry points, and the source of its module."""

    def put(name, points, source="", version="1.0", place="site"):
        site = tmp_path / place
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = "\n".join(f"{point} = {target}" for point, target in points.items())
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{lines}\n")
        if source:
            (site / f"{name.replace('-', '_')}.py").write_text(source)
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, name.replace("-", "_"), raising=False)

    return put


PLUGIN = """
from typing import final
from optim_family.geometry import Decay, Geometry, ScalarMetric
from optim_family.optimizers.base import FamilyOptimizer

@final
class Lynx(FamilyOptimizer):
    def update(self, w, grad, state, h):
        w.sub_(grad.sign(), alpha=h["lr"])
    def geometry(self):
        return Geometry(ScalarMetric(self.dim), 1.0, Decay(0.0))
"""


def test_the_built_in_optimizers_are_registered_by_this_distribution():
    known = registry.entries()
    assert {"gd", "sgd", "rmsprop", "adamw"} <= known.keys()
    assert known["gd"].target == "optim_family.optimizers.gd:GD"
    assert known["gd"].source == f"optim-family {__version__}"


@pytest.mark.parametrize("name", ["gd", "sgd", "rmsprop", "adamw"])
def test_every_built_in_optimizer_loads(name):
    assert issubclass(registry.load(name), FamilyOptimizer)


def test_a_plugin_is_listed_and_loaded_by_its_name(install):
    install("lynx-plugin", {"lynx": "lynx_plugin:Lynx"}, PLUGIN)
    entry = registry.entries()["lynx"]
    assert (entry.source, entry.conflicting) == ("lynx-plugin 1.0", ())
    assert registry.load("lynx").__name__ == "Lynx"


def test_listing_imports_nothing(install):
    install("lynx-plugin", {"lynx": "lynx_plugin:Lynx"}, "raise RuntimeError('imported')")
    assert "lynx" in registry.entries()
    assert "lynx_plugin" not in sys.modules


def test_two_distributions_with_one_name_clash_and_the_rest_works(install):
    install("lynx-plugin", {"lynx": "lynx_plugin:Lynx", "tiger": "lynx_plugin:Lynx"}, PLUGIN)
    install("other-lynx", {"lynx": "other_lynx:Lynx"}, version="2.0")
    assert registry.entries()["lynx"].conflicting == ("lynx-plugin 1.0", "other-lynx 2.0")
    with pytest.raises(PluginError, match=r"lynx-plugin 1\.0 and by other-lynx 2\.0; uninstall one"):
        registry.load("lynx")
    assert registry.load("tiger").__name__ == "Lynx"


def test_a_plugin_cannot_take_the_name_of_a_built_in_one(install):
    install("thief", {"gd": "thief:GD"})
    with pytest.raises(PluginError, match=f"optim-family {__version__} and by thief 1.0"):
        registry.load("gd")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_one_distribution_that_is_on_the_path_twice_is_no_clash(install, version):
    install("lynx-plugin", {"lynx": "lynx_plugin:Lynx"}, PLUGIN, version=version, place="egg")
    install("lynx_plugin", {"lynx": "lynx_plugin:Lynx"}, PLUGIN, place="site")
    entry = registry.entries()["lynx"]
    assert (entry.source, entry.conflicting) == ("lynx-plugin 1.0", ())


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit('line one\\n  line two')", "SystemExit: line one line two"),
        ("class Tiger: pass", "AttributeError: module 'lynx_plugin' has no attribute 'Lynx'"),
        (
            "class Lynx: pass",
            "is not a subclass of optim_family.FamilyOptimizer or OptimizerBase: lynx_plugin:Lynx",
        ),
        ("def Lynx(): pass", "is not a subclass of optim_family.FamilyOptimizer"),
        (PLUGIN.replace("geometry(self)", "metric(self)"), "does not define geometry"),
    ],
)
def test_a_broken_plugin_is_named_with_its_distribution_and_the_reason(install, source, reason):
    install("lynx-plugin", {"lynx": "lynx_plugin:Lynx"}, source)
    with pytest.raises(PluginError) as caught:
        registry.load("lynx")
    message = str(caught.value)
    assert message.startswith("optimizer 'lynx' of lynx-plugin 1.0 ")
    assert reason in message
    assert "\n" not in message
    assert registry.load("gd").__name__ == "GD"


def test_what_a_plugin_prints_while_it_is_imported_does_not_mix_with_the_answer(install, capsys):
    install("loud-plugin", {"loud": "loud_plugin:Lynx"}, "print('hello')\n" + PLUGIN)
    registry.load("loud")
    assert capsys.readouterr() == ("", "hello\n")


def test_a_keyboard_interrupt_is_not_a_broken_plugin(install):
    install("lynx-plugin", {"lynx": "lynx_plugin:Lynx"}, "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        registry.load("lynx")


def test_an_unknown_name_gets_the_nearest_one_and_the_list():
    with pytest.raises(
        UsageError, match=r"no optimizer 'rmsprob'; did you mean 'rmsprop'.*adamw, gd.*editable FOLDER$"
    ):
        registry.load("rmsprob")


def test_without_metadata_the_setup_file_beside_the_package_is_read(monkeypatch):
    monkeypatch.setattr(registry, "entry_points", lambda group: ())
    assert list(registry.entries()) == [
        *("adamw", "gd", "lion", "muon", "rmsprop", "sam", "sgd", "signgd"),
    ]
    assert registry.entries()["sgd"].source == f"optim-family {__version__}"


def test_importing_the_registry_imports_no_torch():
    code = "import sys, optim_family.registry as r; r.entries(); print('torch' in sys.modules)"
    root = ROOT
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
