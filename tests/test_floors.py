"""The package is a building of floors: the imports of every file are read and held to them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import yaml

from ofa_pose.utils import files

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 500

# A package, or a file that stands alone, imports only from the floors below it and from itself.
FLOORS = (
    "utils",
    "skeleton",
    "arch",
    "costs",
    "pose",
    "formats",
    "data",
    "synthetic",
    "recipe",
    "models",
    "families",
    "backends",
    "checkpoints",
    "inference",
    "runtime",
    "monitor",
    "train",
    "web",
    "latency",
    "searches",
    "studies",
    "exports",
    "reports",
    "api",
    "cli",
    "__main__",
)
RANKS = {name: place for place, name in enumerate(FLOORS)}
FIRST_WITH_TORCH = "models"
LOADER = "ofa_pose.data.loader"  # of the files below that floor the only one that needs torch


@dataclass(frozen=True)
class Import:
    """One imported module: its dotted name, the line, and whether it is imported as soon as the file is."""

    module: str
    line: int
    at_once: bool
    for_types: bool


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by dotted name."""
    found = {}
    for path in sorted((ROOT / "ofa_pose").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def imports_of(module: str) -> tuple[Import, ...]:
    return tuple(_imports(module, tree_of(modules()[module]), at_once=True, for_types=False))


def _imports(module: str, node: ast.AST, at_once: bool, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, at_once, for_types) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = _absolute(module, child)
            for alias in child.names:
                inner = f"{base}.{alias.name}"
                yield Import(inner if inner in modules() else base, child.lineno, at_once, for_types)
        else:
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from _imports(module, child, at_once and not later, for_types or typing)


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
    for _ in range(node.level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


def floor_of(module: str) -> int:
    """The floor of the package, or of the file standing alone, that a module belongs to."""
    name = module.split(".")[1]
    assert name in RANKS, f"{module} stands on no floor: add {name} to FLOORS"
    return RANKS[name]


def own(module: str) -> list[Import]:
    """The imports of other files of the package."""
    return [one for one in imports_of(module) if one.module.startswith("ofa_pose.") and one.module != module]


def reached(start: str, at_once: bool) -> dict[str, str]:
    """Every module, ours or not, that importing `start` brings, with the module that asks for it."""
    asked_by, queue = {start: ""}, [start]
    for module in queue:
        if module not in modules():
            continue
        parents = [".".join(module.split(".")[:end]) for end in range(1, module.count(".") + 1)]
        wanted = [one.module for one in imports_of(module) if not one.for_types and (one.at_once or not at_once)]
        for name in [*wanted, *(parent for parent in parents if parent != "ofa_pose")]:
            if name not in asked_by:
                asked_by[name] = module
                queue.append(name)
    return asked_by


def path_to(target: str, asked_by: dict[str, str]) -> str:
    steps = [target]
    while asked_by[steps[-1]]:
        steps.append(asked_by[steps[-1]])
    return " <- ".join(steps)


def heavy(asked_by: dict[str, str]) -> list[str]:
    return [path_to(name, asked_by) for name in asked_by if name.split(".")[0] in ("torch", "torchvision")]


MODULES = sorted(name for name in modules() if name != "ofa_pose")


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    for one in own(module):
        same = one.module.split(".")[1] == module.split(".")[1]
        assert same or floor_of(one.module) < floor_of(module), (
            f"{modules()[module]}:{one.line} imports {one.module} from above"
        )


def test_the_order_of_imports_has_no_cycle() -> None:
    waits = {module: {one.module for one in own(module)} for module in MODULES}
    while waits:
        free = {module for module, needs in waits.items() if not needs & waits.keys()}
        assert free, f"these import each other: {sorted(waits)}"
        waits = {module: needs for module, needs in waits.items() if module not in free}


def test_the_low_floors_never_reach_torch() -> None:
    low = [name for name in MODULES if floor_of(name) < RANKS[FIRST_WITH_TORCH] and name != LOADER]
    assert {
        "ofa_pose.data.keypoint_dataset",
        "ofa_pose.pose.decode",
        "ofa_pose.arch.plan",
        "ofa_pose.costs.feasible",
    } <= set(low)
    for module in low:
        assert not heavy(reached(module, at_once=False))


def test_torch_is_seen_where_it_is() -> None:
    assert heavy(reached("ofa_pose.models.litepose", at_once=True))
    assert heavy(reached("ofa_pose.train.loop", at_once=True))


LIGHT = ["ofa_pose", *(name for name in MODULES if name.split(".")[1] in ("api", "cli"))]


@pytest.mark.parametrize("module", LIGHT)
def test_the_command_line_is_light_until_a_command_runs(module: str) -> None:
    assert not heavy(reached(module, at_once=True))


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, ofa_pose; print([m for m in ('torch', 'cv2', 'numpy', 'pydantic', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


PYTHON = sorted(path.relative_to(ROOT) for top in ("ofa_pose", "tests") for path in (ROOT / top).rglob("*.py"))


@pytest.mark.parametrize("path", PYTHON, ids=str)
def test_files_are_short(path: Path) -> None:
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{path} has {lines} lines"


SAFE_LOADERS = ("_yaml_side('SafeLoader')", "yaml.SafeLoader")
REFUSED = {"eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler", "yaml.unsafe_load", "yaml.full_load"} | {
    "os.system",
    "marshal.loads",
}


def faults_of(tree: ast.Module) -> list[str]:
    """Calls that may run code found in data."""
    faults = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, given = ast.unparse(node.func), {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in REFUSED:
            faults.append(f"line {node.lineno}: {name}")
        if name == "torch.load" and given.get("weights_only") != "True":
            faults.append(f"line {node.lineno}: torch.load without weights_only=True")
        if name in ("yaml.load", "yaml.load_all") and given.get("Loader") not in SAFE_LOADERS:
            faults.append(f"line {node.lineno}: {name} without a safe loader")
        if name in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False":
            faults.append(f"line {node.lineno}: {name} with allow_pickle")
    return faults


def test_no_file_runs_code_found_in_data() -> None:
    assert issubclass(files._yaml_side("SafeLoader"), yaml.SafeLoader)
    for path in modules().values():
        assert not faults_of(tree_of(path)), path
        aliases = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ImportFrom)]
        for node in aliases:
            assert node.module not in ("pickle", "yaml", "marshal"), f"{path}:{node.lineno}: import the module whole"
            assert node.module != "torch" or "load" not in [alias.name for alias in node.names], path


def test_such_calls_would_be_seen() -> None:
    bad = (
        "eval(x)\nexec(x)\npickle.load(f)\ntorch.load(f)\ntorch.load(f, weights_only=False)\nyaml.load(f, yaml.Loader)"
    )
    assert len(faults_of(ast.parse(bad))) == 6
    assert not faults_of(
        ast.parse("net.eval()\ntorch.load(f, weights_only=True)\nyaml.load(t, Loader=_yaml_side('SafeLoader'))")
    )
