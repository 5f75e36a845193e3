"""The layers of the package, read from its source: who may import whom, and the small print of the style."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "maskrcnn"

# Layers of the network and of its making; all others are what a deployed model needs, which needs no torch.
TORCH_LAYERS = {"model", "ops", "training", "data", "export"}
ENGINES = {"onnx", "onnxruntime", "onnxscript", "openvino", "tensorrt", "nncf"}
EXTRAS = {
    "torch",
    "torchvision",
    "av",
    "matplotlib",
    "skimage",
    "tensorboard",
    "fastapi",
    "uvicorn",
} | ENGINES
# A backend is a module that is imported when its engine is asked for, so it may load that engine.
OF_BACKENDS = {
    "backends/pytorch.py": {"torch", "torchvision"},
    "backends/onnx_runtime.py": {"onnxruntime"},
    "backends/silent_openvino.py": {"openvino"},
    "backends/tensorrt_runtime.py": {"tensorrt"},
}
# What each layer may import besides itself and the modules at the package's top.
MAY_IMPORT: dict[str, set[str]] = {
    "host": set(),
    "media": set(),
    "results": set(),
    "ops": set(),
    "weights": set(),
    "serve": set(),
    "model": {"ops"},
    "evaluation": {"data"},
    "data": {"results"},
    "backends": {"host", "model", "ops", "weights"},
    "training": {"model", "ops", "data", "evaluation", "weights", "backends"},
    "export": {"model", "ops", "host", "backends", "data", "evaluation", "weights"},
    "bench": {"backends"},
}
PATTERN_NAMES = re.compile(
    r"^(do|process)_|(Manager|Handler|Helper|Processor|Utils?|Base|Common|Core)$|^(utils?|misc|helpers?|common|core)$"
)
# Command lines, ours and those that others are used to: they print, and may call anything.
COMMAND_LINES = {"cli", "compat"}
DEFINITION = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Source:
    """One Python file. name: inside the package; layer: its folder there, "" at the top."""

    path: Path
    name: str
    layer: str
    text: str
    tree: ast.Module


def source(path: Path, base: Path = PACKAGE) -> Source:
    text = path.read_text(encoding="utf-8")
    parts = path.relative_to(base).parts
    return Source(path, "/".join(parts), parts[0] if len(parts) > 1 else "", text, ast.parse(text, str(path)))


@pytest.fixture(scope="module")
def package() -> list[Source]:
    return [source(path) for path in sorted(PACKAGE.rglob("*.py"))]


def imported(node: ast.AST) -> Iterator[str]:
    """Every module imported below node at any depth; `from a import b` is a.b."""
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            yield from (alias.name for alias in part.names)
        elif isinstance(part, ast.ImportFrom):
            yield from (f"{part.module}.{alias.name}" for alias in part.names)


def imported_on_load(node: ast.AST) -> Iterator[str]:
    """The same without what stands in functions, under `if TYPE_CHECKING` and `if __name__ == "__main__"`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and re.search("TYPE_CHECKING|__name__", ast.unparse(child.test)):
            continue
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield from imported(child)
        yield from imported_on_load(child)


def within(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def definitions(tree: ast.Module) -> Iterator[DEFINITION]:
    """Functions, classes and methods of public classes; not what is defined inside functions."""
    for node in tree.body:
        if isinstance(node, DEFINITION):
            yield node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from (part for part in node.body if isinstance(part, DEFINITION))


def test_an_import_in_a_function_is_not_one_on_load_and_one_in_a_try_is() -> None:
    tree = ast.parse(
        "try:\n    import torch.nn\nexcept ImportError:\n    pass\ndef f():\n    from cv2 import resize"
    )
    assert list(imported_on_load(tree)) == ["torch.nn"]
    assert list(imported(tree)) == ["torch.nn", "cv2.resize"]


def test_what_a_deployed_model_needs_loads_no_torch_and_no_extra(package: list[Source]) -> None:
    torch_layers = {f"maskrcnn.{layer}" for layer in TORCH_LAYERS}
    assert [
        f"{file.name}: {module}"
        for file in package
        if file.layer not in TORCH_LAYERS
        for module in imported_on_load(file.tree)
        if within(module, EXTRAS - OF_BACKENDS.get(file.name, set()))
        or (file.name != "backends/pytorch.py" and within(module, torch_layers))
    ] == []


def test_imports_go_one_way(package: list[Source]) -> None:
    """The modules at the top are below all layers when they load; inside a function they may call upwards."""
    layers = {file.layer for file in package if file.layer}
    assert layers - set(MAY_IMPORT) - COMMAND_LINES == set(), "a layer without a row in MAY_IMPORT"
    wrong = []
    for file in package:
        modules = imported(file.tree) if file.layer else imported_on_load(file.tree)
        above = file.layer in COMMAND_LINES
        allowed = layers if above else MAY_IMPORT.get(file.layer, {"weights"}) | {file.layer}
        theirs = {
            part[1]
            for part in (module.split(".") for module in modules)
            if part[0] == "maskrcnn" and part[1:]
        }
        wrong += [f"{file.name}: {layer}" for layer in sorted((theirs & layers) - allowed)]
    assert wrong == []


def test_only_the_command_line_knows_the_command_line(package: list[Source]) -> None:
    words = {"maskrcnn.cli", "typer", "rich"}
    assert [
        f"{file.name}: {module}"
        for file in package
        if file.layer not in COMMAND_LINES and file.name != "__main__.py"
        for module in imported(file.tree)
        if within(module, words)
    ] == []


def test_the_network_knows_no_engine_and_no_tracing(package: list[Source]) -> None:
    words = {"is_tracing", "is_scripting", "is_in_onnx_export", "is_compiling", "is_exporting", "onnx", "jit"}
    wrong = []
    for file in package:
        if file.layer == "model":
            wrong += [f"{file.name}: {module}" for module in imported(file.tree) if within(module, ENGINES)]
            wrong += [f"{file.name}: {name}" for name in names_used(file.tree) if name in words]
    assert wrong == []


def test_the_network_names_no_device(package: list[Source]) -> None:
    device = re.compile(r"(cpu|cuda|mps|xpu|npu)(:\d+)?")
    wrong = []
    for file in package:
        if file.layer == "model":
            strings = (part.value for part in ast.walk(file.tree) if isinstance(part, ast.Constant))
            wrong += [
                f"{file.name}: {text}" for text in strings if isinstance(text, str) and device.fullmatch(text)
            ]
            wrong += [f"{file.name}: .{name}" for name in names_used(file.tree) if device.fullmatch(name)]
    assert wrong == []


def names_used(tree: ast.Module) -> list[str]:
    parts = list(ast.walk(tree))
    return [part.attr for part in parts if isinstance(part, ast.Attribute)] + [
        part.id for part in parts if isinstance(part, ast.Name)
    ]


def test_a_file_has_at_most_400_lines(package: list[Source]) -> None:
    lengths = {file.name: len(file.text.splitlines()) for file in package}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_a_module_begins_with_one_sentence(package: list[Source]) -> None:
    wrong = {}
    for file in package:
        first = (ast.get_docstring(file.tree) or "").split("\n\n")[0].replace("\n", " ")
        if not re.search(r"[.`]$", first) or re.search(r"[a-z)`]\. [A-Z]", first):
            wrong[file.name] = first
    assert wrong == {}


def test_public_names_are_documented(package: list[Source]) -> None:
    assert [
        f"{file.name}:{node.lineno} {node.name}"
        for file in package
        for node in definitions(file.tree)
        if not node.name.startswith("_") and not ast.get_docstring(node)
    ] == []


def test_printing_is_left_to_the_command_line(package: list[Source]) -> None:
    assert [
        file.name
        for file in package
        if file.layer not in COMMAND_LINES
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ] == []


def test_names_say_the_thing_and_not_the_pattern(package: list[Source]) -> None:
    names = [(file.name, name) for file in package for name in [file.path.stem, *all_names(file.tree)]]
    assert [f"{place}: {name}" for place, name in names if PATTERN_NAMES.search(name)] == []


def all_names(tree: ast.Module) -> list[str]:
    return [part.name for part in ast.walk(tree) if isinstance(part, DEFINITION)]


def test_imports_are_absolute(package: list[Source]) -> None:
    tests = [source(path, ROOT) for path in sorted((ROOT / "tests").rglob("*.py"))]
    assert [
        f"{file.name}:{part.lineno}"
        for file in [*package, *tests]
        for part in ast.walk(file.tree)
        if isinstance(part, ast.ImportFrom) and part.level
    ] == []


WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
{statement}
"""


def run_without(absent: set[str], statement: str) -> subprocess.CompletedProcess[str]:
    """Run a statement in a Python that has none of these packages."""
    code = WITHOUT.format(absent=sorted(absent), statement=statement)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", ["maskrcnn", "maskrcnn.predict", "maskrcnn.cli.main"])
def test_the_base_installation_imports(module: str) -> None:
    done = run_without(EXTRAS, f"import {module}")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_help_works_in_the_base_installation() -> None:
    done = run_without(
        EXTRAS, "sys.argv = ['maskrcnn', '--help']\nfrom maskrcnn.cli.main import main\nmain()"
    )
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout
