import pytest

from optim_family import resources
from optim_family.errors import OptimFamilyError


def place(monkeypatch, package):
    package.mkdir(parents=True)
    monkeypatch.setattr(resources, "__file__", str(package / "resources.py"))


def test_a_checkout_holds_the_folders_beside_the_package(tmp_path, monkeypatch):
    place(monkeypatch, tmp_path / "optim_family")
    (tmp_path / "models").mkdir()
    assert resources.folder("models") == tmp_path / "models"


def test_an_installed_package_holds_them_inside_and_looks_there_first(tmp_path, monkeypatch):
    place(monkeypatch, tmp_path / "optim_family")
    for folder in (tmp_path / "studies", tmp_path / "optim_family" / "studies"):
        folder.mkdir()
    assert resources.folder("studies") == tmp_path / "optim_family" / "studies"


def test_a_package_of_links_finds_the_checkout_behind_them(tmp_path, monkeypatch):
    place(monkeypatch, tmp_path / "checkout" / "optim_family")
    (tmp_path / "checkout" / "models").mkdir()
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "optim_family").symlink_to(tmp_path / "checkout" / "optim_family")
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "links" / "optim_family" / "resources.py"))
    assert resources.folder("models") == tmp_path / "checkout" / "models"


def test_an_incomplete_installation_says_so(tmp_path, monkeypatch):
    place(monkeypatch, tmp_path / "optim_family")
    with pytest.raises(OptimFamilyError, match=r"models/ is neither in .* install optim-family again"):
        resources.folder("models")


def test_a_version_is_that_of_the_installed_distribution():
    assert resources.version("pytest") == pytest.__version__
    assert resources.version("no-such-distribution") is None
