"""The rules of the house, read from the syntax tree: nothing of the package is imported here."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT

PACKAGE = ROOT / "optim_family"

# Module → what it may import of this package. Every module but the core may import `errors` as well;
# `cli` may import everything but a plugin, `theory` everything but those two.
MAY_IMPORT = {
    "errors": "",
    # the measurement core
    "operators": "",
    "space": "",
    "geometry": "operators",
    "batchnorm": "",
    "convolution": "",
    "second_order": "batchnorm convolution",
    "hessian": "operators second_order space",
    "certificate": "",
    "lanczos": "certificate operators",
    "sharpness": "operators geometry hessian lanczos space",
    "arithmetic": "",
    "measuring": "arithmetic operators geometry hessian lanczos optimizers.adapt sharpness space",
    # more than one number
    "quadrature": "",
    "density": "operators quadrature",
    "hutchinson": "operators",
    "minibatch": "arithmetic geometry hessian sharpness space",
    "layers": "geometry operators sharpness space",
    "midpoint": "space",
    "examining": "density geometry hessian hutchinson layers minibatch operators sharpness space",
    # the family
    "optimizers.base": "geometry space",
    "optimizers.motion": "geometry",
    "optimizers.known": "geometry optimizers.motion",
    "optimizers.adapt": "geometry operators space optimizers.known optimizers.motion",
    "optimizers.signatures": "optimizers.base",
    "optimizers.adopted": "geometry optimizers.adapt optimizers.base optimizers.signatures",
    "registry": "optimizers.base resources",
    "testbench": "optimizers.base geometry space operators",
    "promises": "optimizers.base testbench",
    "conduct": "checkpoint optimizers.base testbench",
    "testing": "conduct optimizers.base promises",
    "conformance": "registry testing",
    "template": "",
    # what is trained
    "resources": "",
    "cards": "registry resources",
    "networks": "plugged",
    "invariance": "",
    "plugged": "readers registry",
    "backbones": "cards networks spec",
    "readers": "",
    "folders": "readers",
    "published": "readers",
    "data": "readers folders plugged published registry",
    "objective": "hessian space data backbones spec world",
    # running
    "schedules": "",
    "scheduler": "schedules",
    "weights": "",
    "spec": "",
    "world": "checkpoint space watching",
    "watching": "",
    "files": "",
    "log": "files spec",
    "store": "files log spec",
    "checkpoint": "files",
    "blame": "hessian registry",
    "experiment": "backbones blame data geometry invariance objective optimizers.base registry resources "
    "scheduler sharpness spec world",
    "memory": "hessian",
    "instruments": "experiment geometry hessian midpoint minibatch operators sharpness spec",
    "training": "arithmetic blame checkpoint experiment instruments memory operators runs sharpness spec "
    "store watching world",
    "looking": "arithmetic checkpoint examining experiment files runs spec",
    "recording": "optimizers.base optimizers.signatures registry resources space spec",
    "recorder": "arithmetic geometry hessian optimizers.adapt recording sharpness space store",
    "callbacks": "",
    "callbacks.lightning": "recorder",
    "callbacks.transformers": "recorder",
    "doctor": "data published registry resources",
    # reading results
    "columns": "",
    "runs": "columns files log store",
    "labels": "",
    "series": "runs",
    "tables": "runs labels spec series",
    "curves": "runs labels series",
    "predictions": "",
    "overlays": "predictions runs series",
    "panels": "overlays spec runs labels series curves",
    "plots": "files log runs labels overlays series tables curves panels",
    "spectra": "curves labels plots quadrature",
    "summary": "labels spec runs series tables",
    "exporting": "runs tables",
    "comparing": "runs",
    "claims": "comparing labels runs",
    "answers": "claims comparing runs summary",
    "multiples": "series curves plots runs summary",
    "pages": "plots",
    # studies
    "grids": "cards data registry spec",
    "study_spec": "claims grids labels resources spec",
    "worker": "files spec training watching",
    "trial": "arithmetic data experiment minibatch spec worker",
    "launchers": "spec watching",
    "clusters": "launchers spec watching",
    "study": "files launchers runs study_spec watching",
    "report": "answers files labels multiples pages plots runs study_spec summary tables",
}
CORE = set(
    "operators space geometry batchnorm convolution second_order hessian lanczos sharpness arithmetic "
    "measuring quadrature density hutchinson minibatch layers midpoint examining".split()
)
CORE_LIBRARIES = {"torch", "scipy", "numpy", "psutil"}  # numpy is what scipy speaks
READERS = {
    "spec",
    "files",
    "log",
    "store",
    "columns",
    "runs",
    "labels",
    "series",
    "tables",
    "curves",
    "panels",
    "plots",
    "spectra",
    "quadrature",
}
PLUGIN_MAY_IMPORT = "optimizers.base geometry operators space"
# Neither abstract nor final, with the reason.
OPEN_CLASSES = {
    "optimizers.base.HyperParameters": "a pydantic model that every optimizer extends",
    "watching.Watcher": "does nothing, displays override what they show",
}


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


TREES = {dotted(path): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
FILES = {dotted(path): path for path in PACKAGE.rglob("*.py")}
PLUGINS = {name for name in TREES if name.startswith("optimizers.")} - MAY_IMPORT.keys()
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


def allowed(module: str) -> set[str]:
    if module in ("", "__main__", "optimizers") or module.partition(".")[0] == "cli":
        return set(TREES) - PLUGINS
    if _in_theory(module):
        return {name for name in TREES if name.partition(".")[0] != "cli"} - PLUGINS
    names = PLUGIN_MAY_IMPORT if module in PLUGINS else MAY_IMPORT[module]
    return set(names.split()) | {""} | (set() if module in CORE else {"errors"})


def _in_theory(module: str) -> bool:
    return module.partition(".")[0] == "theory"


def test_every_module_has_a_place_in_the_house():
    rooms = ("", "__main__", "cli", "optimizers", "theory")
    housed = {name for name in TREES if name.partition(".")[0] not in rooms}
    assert housed | {name for name in MAY_IMPORT if name.startswith("optimizers.")} == set(MAY_IMPORT)


@every_module
def test_imports_point_one_way(module):
    assert own_imports(module) <= allowed(module)


def test_the_table_itself_has_no_circle():
    order: list[str] = []
    left = {name: set(names.split()) for name, names in MAY_IMPORT.items()}
    while left:
        free = [name for name, needs in left.items() if not needs - set(order)]
        assert free, f"these import each other: {sorted(left)}"
        order += free
        left = {name: needs for name, needs in left.items() if name not in free}


@every_module
def test_nobody_imports_an_optimizer_by_name(module):
    assert not own_imports(module) & PLUGINS


@pytest.mark.parametrize("module", sorted(CORE))
def test_the_core_knows_torch_and_scipy_only(module):
    assert libraries(module) <= CORE_LIBRARIES


@pytest.mark.parametrize("module", sorted(READERS))
def test_what_reads_results_does_without_torch(module):
    assert not libraries(module) & {"torch", "timm", "torchvision"}


@every_module
def test_a_module_fits_on_a_few_screens(module):
    assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= 300


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
        given = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
        assert given.get("allow_pickle", False) is False, f"line {call.lineno}"
        if ast.unparse(call.func) == "torch.load":
            assert given.get("weights_only") is True, f"line {call.lineno}"


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
    found = {
        f"{m}.{n.name}" for m, tree in TREES.items() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)
    }
    assert OPEN_CLASSES.keys() <= found


def test_commands_leave_the_work_to_functions():
    """A command, which a click decorator makes, has at most 15 lines of its own."""
    for module, tree in TREES.items():
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            decorators = " ".join(map(ast.unparse, function.decorator_list))
            made = any(f"{maker}(" in decorators for maker in ("command", "group", "listing", "named"))
            if module.startswith("cli.") and made:
                assert _length(function) <= 15, f"{module}.{function.name}"
