import sys

import pytest

from optim_family import registry, resources
from optim_family.cli import doctor
from optim_family.data import datasets, torchvision_sets
from optim_family.errors import OptimFamilyError, PluginError


@pytest.fixture
def look(monkeypatch, tmp_path):
    monkeypatch.setenv("OPTIM_FAMILY_DATA", str(tmp_path / "data"))
    return lambda: {finding.subject: finding for finding in doctor.diagnose()}


def test_a_sound_machine_has_nothing_broken(look):
    findings = look()
    assert {finding.subject for finding in findings.values() if finding.state == "fail"} == set()
    assert findings["libraries"].text.startswith("torch ")
    assert findings["torchvision"].text == "its operators match torch"
    assert findings["optimizers"].text == "adamw, gd, lion, muon, rmsprop, sam, sgd, signgd"
    assert "digits" in findings["data"].text
    assert not (torchvision_sets.data_root()).exists()


def test_a_library_that_is_missing_is_named(look, monkeypatch):
    monkeypatch.setattr(doctor, "LIBRARIES", ("torch", "no-such-library"))
    finding = look()["no-such-library"]
    assert (finding.state, finding.hint) == ("fail", "pip install no-such-library")


def test_operators_that_do_not_match_torch_are_explained(look, monkeypatch):
    import torchvision

    def nms(*args):
        raise RuntimeError("operator torchvision::nms\ndoes not exist")

    monkeypatch.setattr(torchvision.ops, "nms", nms)
    finding = look()["torchvision"]
    assert finding.state == "fail"
    assert finding.text.endswith("RuntimeError: operator torchvision::nms does not exist")
    assert "--force-reinstall torch torchvision" in finding.hint


def test_a_torch_that_cannot_be_imported_is_a_finding_and_stops_nothing(look, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    findings = look()
    assert findings["torch"].state == "fail"
    assert "models" in findings


def test_a_driver_without_a_device_is_suspicious(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert doctor._no_cuda("13.0").state == "warn"
    assert "CUDA 13.0" in doctor._no_cuda("13.0").hint
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert doctor._no_cuda("13.0").state == "ok"


def test_a_broken_plugin_is_named_with_the_reason_and_the_others_load(look, monkeypatch):
    known = registry.entries()
    monkeypatch.setattr(
        registry, "entries", lambda: known | {"bad": registry.PluginEntry("bad", "x:Y", "z", "1")}
    )
    findings = look()
    assert findings["bad"].state == "fail"
    assert "optimizer 'bad' of z 1 cannot be imported: ModuleNotFoundError" in findings["bad"].text
    assert findings["optimizers"].text == "adamw, gd, lion, muon, rmsprop, sam, sgd, signgd"


def test_no_optimizer_at_all_is_broken(look, monkeypatch):
    def load(name):
        raise PluginError("no")

    monkeypatch.setattr(registry, "load", load)
    assert look()["optimizers"].state == "fail"


def test_models_that_are_missing_are_broken(look, monkeypatch):
    def folder(kind):
        raise OptimFamilyError("neither here nor there")

    monkeypatch.setattr(resources, "folder", folder)
    assert look()["models"].state == "fail"


def test_little_room_is_a_warning(monkeypatch):
    assert doctor._enough("memory", 1.0, 2.0, "hint").state == "warn"
    assert doctor._enough("memory", 3.0, 2.0, "hint").state == "ok"


def test_a_folder_under_a_file_cannot_be_written(look, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OPTIM_FAMILY_DATA", str(tmp_path / "file" / "data"))
    finding = look()["data folder"]
    assert finding.state == "warn"
    assert "OPTIM_FAMILY_DATA" in finding.hint


def test_every_set_on_this_machine_is_listed(look, monkeypatch):
    everything = [entry for entry in datasets.catalogue()]
    monkeypatch.setattr(datasets, "catalogue", lambda: everything[:1])
    assert look()["data"].text == "digits on this machine"
