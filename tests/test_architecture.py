"""The rules of the house, read from the syntax tree: nothing of the package is imported here."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT

PACKAGE = ROOT / "optim_family"

# Subpackage → the subpackages it may import; `optim_family` itself (its version) and its own are open to all.
MAY_IMPORT = {
    # the public ground
    "errors": "",
    "operators": "space",
    "space": "",
    "resources": "errors",
    "norms": "",
    "geometry": "norms operators space",
    # the core: torch, numpy, scipy, psutil
    "curvature": "errors operators space",
    # optimizers and who judges them; nobody imports a plugin by name
    "optimizers": "errors geometry norms space",
    "optimizers.external": "errors geometry norms optimizers resources space",
    "registry": "curvature errors optimizers resources",
    "sharpness": "curvature errors geometry norms operators optimizers.external space",
    "networks": "errors registry resources",
    "data": "errors registry",
    # readers: no torch
    "runs": "errors",
    "analysis": "errors runs sharpness",
    "figures": "analysis curvature errors runs sharpness",
    # what trains
    "training": "curvature data errors geometry networks operators optimizers optimizers.external "
    "registry resources runs sharpness space",
    "callbacks": "curvature errors geometry optimizers optimizers.external registry resources runs sharpness "
    "space training",
    "conformance": "curvature errors geometry networks norms operators optimizers registry runs sharpness "
    "space training",
    "testing": "conformance",
    "study": "analysis curvature data errors figures networks registry resources runs sharpness training",
    "theory": "analysis curvature errors figures registry runs sharpness space training",
    "cli": "analysis conformance curvature data errors figures geometry networks registry resources runs "
    "sharpness study theory training",
}
# Imported by the subpackages that read results: data and small linear algebra, without torch.
WITHOUT_TORCH = {"sharpness.views", "curvature.gauss_quadrature"}
WITH_TORCH = {"analysis.export"}  # TensorBoard's writer is torch's
CORE = {"operators", "space", "norms", "geometry", "curvature", "sharpness"}
CORE_LIBRARIES = {"torch", "scipy", "numpy", "psutil"}  # numpy is what scipy speaks
READERS = {"runs", "analysis", "figures"}
MODULES_AT_THE_TOP = 8
# Neither abstract nor final, with the reason.
OPEN_CLASSES = {
    "optimizers.base.HyperParameters": "a pydantic model that every optimizer extends",
    "optimizers.muon.MuonHyper": "extended by the hyper-parameters of the inner optimizer",
    "training.progress.ProgressListener": "does nothing, displays override what they show",
}


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


TREES = {dotted(path): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
FILES = {dotted(path): path for path in PACKAGE.rglob("*.py")}
# The built-in plugins: what setup.cfg registers.
PLUGINS = {
    f"optimizers.{name}" for name in ("gd", "sgd", "rmsprop", "adamw", "signgd", "lion", "muon", "sam")
}
every_module = pytest.mark.parametrize("module", sorted(TREES))


def imports(module: str) -> Iterator[str]:
    """Whatever a module imports, anywhere in it: `torch.nn`, `optim_family.data`."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            inner = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if _is_module(name) else str(node.module) for name in inner)


def _is_module(name: str) -> bool:
    package, _, inner = name.partition(".")
    return package == "optim_family" and inner in TREES


def own_imports(module: str) -> set[str]:
    names = (name.partition(".") for name in imports(module))
    return {inner for package, _, inner in names if package == "optim_family"}


def libraries(module: str) -> set[str]:
    names = {name.partition(".")[0] for name in imports(module)}
    return names - sys.stdlib_module_names - {"optim_family"}


def subpackage(module: str) -> str:
    """The subpackage of a module, which is itself if it stands at the top."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[:2] == ["optimizers", "external"] else parts[0]


def test_every_subpackage_has_a_row():
    assert {subpackage(name) for name in TREES} - {"", "__main__"} == set(MAY_IMPORT)


def test_few_modules_stand_at_the_top():
    """What a user or a plugin author imports; everything else is in a subpackage."""
    at_the_top = [path for path in PACKAGE.glob("*.py") if not path.name.startswith("__")]
    assert len(at_the_top) == MODULES_AT_THE_TOP


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_imports_point_one_way(name):
    allowed = {"", name, *MAY_IMPORT[name].split()}
    inside = [module for module in TREES if subpackage(module) == name]
    arrows = {(module, other) for module in inside for other in own_imports(module)}
    assert {arrow for arrow in arrows if subpackage(arrow[1]) not in allowed} == set()


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_every_right_to_import_is_used(name):
    used = {subpackage(other) for m in TREES if subpackage(m) == name for other in own_imports(m)}
    assert set(MAY_IMPORT[name].split()) <= used


def test_the_rows_have_no_circle():
    order: list[str] = []
    left = {name: set(names.split()) for name, names in MAY_IMPORT.items()}
    while left:
        free = [name for name, needs in left.items() if not needs - set(order)]
        assert free, f"these import each other: {sorted(left)}"
        order += free
        left = {name: needs for name, needs in left.items() if name not in free}


def test_no_module_imports_itself_in_a_circle():
    """Within subpackages too; an import inside a function counts."""
    left = {name: own_imports(name) - {name, ""} for name in TREES if name}
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        left = {name: needs for name, needs in left.items() if name not in free}
    assert not left, f"these import each other: {sorted(left)}"


@every_module
def test_nobody_imports_an_optimizer_by_name(module):
    assert not own_imports(module) & PLUGINS


@pytest.mark.parametrize("module", sorted(name for name in TREES if subpackage(name) in CORE))
def test_the_core_knows_torch_and_scipy_only(module):
    assert libraries(module) <= CORE_LIBRARIES


@pytest.mark.parametrize(
    "module", sorted({name for name in TREES if subpackage(name) in READERS} - WITH_TORCH | WITHOUT_TORCH)
)
def test_what_reads_results_does_without_torch(module):
    assert not libraries(module) & {"torch", "timm", "torchvision"}
    beyond = {
        name for name in own_imports(module) if subpackage(name) in CORE | {"training", "data", "networks"}
    }
    assert beyond <= WITHOUT_TORCH


@every_module
def test_a_function_fits_on_one_screen(module):
    functions = (n for n in ast.walk(TREES[module]) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    assert {f.name: length for f in functions if (length := _length(f)) > 40} == {}


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = first.end_lineno - first.lineno + 1 if documented else 0
    return function.end_lineno - function.lineno + 1 - docstring


@every_module
def test_no_pickle_is_ever_read(module):
    assert not {name.partition(".")[0] for name in imports(module)} & {
        "pickle",
        "dill",
        "cloudpickle",
        "joblib",
    }
    for call in (node for node in ast.walk(TREES[module]) if isinstance(node, ast.Call)):
        arguments = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
        assert arguments.get("allow_pickle", False) is False, f"line {call.lineno}"
        if ast.unparse(call.func) == "torch.load":
            assert arguments.get("weights_only") is True, f"line {call.lineno}"


@every_module
def test_every_class_is_abstract_or_final(module):
    classes = (node for node in ast.walk(TREES[module]) if isinstance(node, ast.ClassDef))
    open_ones = {f"{module}.{node.name}" for node in classes if not _settled(module, node)}
    assert open_ones <= OPEN_CLASSES.keys()


def _settled(module: str, node: ast.ClassDef) -> bool:
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    bases = {ast.unparse(base) for base in node.bases}
    return module == "errors" or "final" in decorators or bool(bases & {"ABC", "Protocol"})


def test_the_open_classes_are_still_there():
    open_classes = {
        f"{m}.{n.name}" for m, tree in TREES.items() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)
    }
    assert OPEN_CLASSES.keys() <= open_classes


def test_commands_leave_the_work_to_functions():
    """A command, which a click decorator makes, has at most 15 lines of its own."""
    for module, tree in TREES.items():
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            decorators = " ".join(map(ast.unparse, function.decorator_list))
            made = any(f"{maker}(" in decorators for maker in ("command", "group", "listing"))
            if module.startswith("cli.") and made:
                assert _length(function) <= 15, f"{module}.{function.name}"


# Folders of tests that belong to no single folder of the package.
ACROSS_SUBPACKAGES = {"docs", "faults", "gpu", "helpers", "rehearsal", "stored_runs"}


def test_the_tests_have_the_subpackages_of_the_package_and_import_only_helpers():
    tests = ROOT / "tests"
    folders = {path.relative_to(tests).parts[0] for path in tests.glob("*/*.py")}
    assert folders - ACROSS_SUBPACKAGES <= {subpackage(name).partition(".")[0] for name in TREES}
    for path in tests.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [f"{node.module}." for _ in node.names] if isinstance(node, ast.ImportFrom) else []
            inner = [name for name in names if name.startswith("tests.")]
            assert all(name.startswith("tests.helpers") for name in inner), f"{path} imports {inner}"
