"""A wheel in a new environment, and a bare copy of the checkout: each finds its own models, not these."""

import email
import importlib.util
import io
import json
import shutil
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tests.helpers.environments import borrow_libraries, call, copy_sources

CARDS = {path.stem for path in (ROOT / "models").glob("*.toml")}
WHERE = (
    "import optim_family, optim_family.resources; "
    "print(optim_family.__file__, optim_family.resources.folder('models'), sep='\\n')"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    sources = tmp_path_factory.mktemp("sources")
    out = tmp_path_factory.mktemp("dist")
    copy_sources(sources)
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=sources)
    (built,) = out.glob("*.whl")
    shutil.rmtree(sources)
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The bin folder of a new environment with the wheel; it borrows the other libraries from this one."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    options = "--no-deps", "--no-index", "--disable-pip-version-check", "--quiet"
    python = home / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, cwd=home)
    (site,) = home.glob("lib/python*/site-packages")
    borrow_libraries(site)
    return home / "bin"


def test_the_wheel_holds_every_module_card_study_and_template_and_nothing_else(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "optim_family").rglob("*.py")}
    tables = {
        f"optim_family/{folder}/{path.name}"
        for folder in ("models", "studies")
        for path in (ROOT / folder).glob("*.toml")
    }
    paths = (ROOT / "optim_family").rglob("templates/**/*")
    templates = {str(path.relative_to(ROOT)) for path in paths if path.is_file()}
    assert inside == modules | tables | templates | {"optim_family/py.typed"}


def test_an_installed_wheel_uses_its_own_copy_of_everything(installed, tmp_path):
    package, models = call(installed / "python", "-c", WHERE, cwd=tmp_path).splitlines()
    assert Path(package).is_relative_to(installed.parent)
    assert Path(models) == Path(package).parent / "models"
    seen = call(installed / "python", "-c", "import sys; print(*sys.path, sep='\\n')", cwd=tmp_path)
    assert str(ROOT) not in seen.splitlines()


def test_an_installed_wheel_lists_its_models_and_optimizers(installed, tmp_path):
    models = json.loads(call(installed / "optim-family", "models", "--json", cwd=tmp_path))
    assert {model["name"] for model in models} == CARDS != set()
    optimizers = json.loads(call(installed / "optim-family", "optimizers", "--json", cwd=tmp_path))
    assert {row["name"] for row in optimizers} >= {"gd", "sgd", "rmsprop", "adamw"}
    assert all(row["remarks"] == "" for row in optimizers)


def test_an_installed_wheel_loads_an_optimizer(installed, tmp_path):
    output = call(installed / "optim-family", "optimizers", "show", "rmsprop", cwd=tmp_path)
    assert "scale-invariant" in output


def test_a_bare_checkout_finds_models_and_optimizers(tmp_path):
    bare, elsewhere = copy_sources(tmp_path / "bare"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    output = call(sys.executable, "-c", WHERE, cwd=elsewhere, PYTHONPATH=str(bare))
    package, models = output.splitlines()
    assert (Path(package).parent, Path(models)) == (bare / "optim_family", bare / "models")
    command = sys.executable, "-m", "optim_family"
    for kind, names in (("models", CARDS), ("optimizers", {"gd", "sgd", "rmsprop", "adamw"})):
        listed = json.loads(call(*command, kind, "--json", cwd=elsewhere, PYTHONPATH=str(bare)))
        assert {row["name"] for row in listed} >= names


def test_an_sdist_has_the_same_bytes_whenever_and_by_whomever_it_was_packed(tmp_path):
    spec = importlib.util.spec_from_file_location("dist", ROOT / ".ci" / "dist.py")
    dist = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dist)
    packed = []
    for moment, names in ((1, ("a", "b")), (2, ("b", "a"))):
        path = tmp_path / f"{moment}.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size, member.mtime, member.uid, member.mode = 1, moment, moment, 0o600 + moment
                archive.addfile(member, io.BytesIO(name.encode()))
        dist.normalise(path, 1_000_000_000)
        packed.append(path.read_bytes())
        with tarfile.open(path) as archive:
            assert [archive.extractfile(name).read() for name in archive.getnames()] == [b"a", b"b"]
            assert {member.mtime for member in archive} == {1_000_000_000}
    assert packed[0] == packed[1]


def test_the_metadata_names_the_authors_of_the_citation(wheel):
    (metadata,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("METADATA"))
    message = email.message_from_bytes(zipfile.ZipFile(wheel).read(metadata))
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f'- name: "{message["Author"]}"' in citation
    for url in message.get_all("Project-URL"):
        assert url.partition(", ")[2] in citation
    assert f"version: {message['Version']}\n" in citation
