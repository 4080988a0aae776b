"""What no module may name or import: adapter libraries, families outside their rooms, and torch where it is not needed.

The direction of imports is held by import-linter: the contracts are in `pyproject.toml`.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import verifier
from verifier import adapter, family

ROOT = Path(verifier.__file__).parent
FAMILIES = sorted({name.split("-")[0] for name in family.registered()})
# The libraries under test and their packages. `bridge` alone is a word like any other, and the default's name.
LIBRARIES = ("transformer_lens", "transformerlens", "transformer-lens", "verifier_bridge", "verifier_lens", "nnsight")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


@functools.cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text())


def of_a_family(name: str) -> bool:
    """The rooms that may name a family."""
    room = name.split(".")[1:2]
    return room == ["families"] or (room == ["faults"] and any(one in name for one in FAMILIES))


def documentation(tree: ast.Module) -> set[ast.AST]:
    """The strings that stand alone: docstrings."""
    return {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def words(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every name and every string in the code, with its line; comments and docstrings are for people."""
    prose = documentation(tree)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Constant(value=str() as text) if node not in prose:
                yield text, line
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name):
                yield name, line
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, line
            case ast.keyword(arg=str() as name):
                yield name, line
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                for alias in names:
                    yield alias.name, line
                    yield alias.asname or "", line
                if isinstance(node, ast.ImportFrom):
                    yield node.module or "", line


def test_the_walk_sees_the_harness() -> None:
    assert {"verifier", "verifier.observing.case", "verifier.checks.qkv", "verifier.families.falcon"} <= MODULES.keys()
    assert "CaseSpec" in {text for text, _ in words(tree("verifier.cases.spec"))}


def test_only_a_familys_rooms_name_one() -> None:
    named = [
        (name, line, text)
        for name in MODULES
        if not of_a_family(name)
        for text, line in words(tree(name))
        if any(one in text.lower() for one in FAMILIES)
    ]
    assert not named


def test_no_module_names_an_adapter_library() -> None:
    named = [
        (name, line, text)
        for name in MODULES
        for text, line in words(tree(name))
        if any(library in text.lower() for library in LIBRARIES)
    ]
    assert not named


def test_the_default_adapter_is_named_in_one_place() -> None:
    places = {name for name in MODULES for text, _ in words(tree(name)) if text == adapter.DEFAULT}
    assert places == {"verifier.adapter"}
    assert adapter.DEFAULT in adapter.registered()


def test_no_check_has_a_special_case() -> None:
    """No flag of a family, no known bug: what is found is found by comparing."""
    flags = {flag for one in family.registered() for flag in family.load(one).flags()} - {"bias"}  # any module has one
    for name in (one for one in MODULES if one.startswith("verifier.checks")):
        code = {text for text, _ in words(tree(name))}
        assert not code & flags, name
        assert not {text for text in code if re.search(r"alibi|multi_query|rotary|eager", text)}, name


HEAVY = ("torch", "transformers", "hypothesis", "transformer_lens")
LIGHT_ROOMS = (
    "analysis",
    "baseline",
    "commands",
    "engine",
    "output",
    "record",
    "report",
    "requests",
    "scripts",
    "testing",
)
# What only a worker imports: it does its work then.
IN_WORKERS = ("verifier.engine.preload",)
LIGHT = [
    "verifier",
    "verifier.adapter",
    "verifier.api",
    "verifier.canonical",
    "verifier.cases.matrix",
    "verifier.cases.spec",
    "verifier.checks",
    "verifier.cli",
    "verifier.errors",
    "verifier.families.falcon",
    "verifier.family",
    "verifier.fuzz",
    "verifier.judging.outcome",
    "verifier.plugins",
    "verifier.pytest_plugin",
    *(name for name in MODULES if name.split(".")[1:2] in [[room] for room in LIGHT_ROOMS] and name not in IN_WORKERS),
]
NO_TORCH = f"""
import importlib, sys

class Refuses:
    def find_spec(self, name, path=None, target=None):
        assert name not in {HEAVY!r}, name

sys.meta_path.insert(0, Refuses())
for name in {LIGHT!r}:
    importlib.import_module(name)

from verifier import cli
for kind in ("checks", "families", "circumstances"):
    assert cli.main(["list", kind]) == 0, kind
for arguments in (["--help"], ["run", "--help"], ["doctor", "--help"]):
    assert cli.main(arguments) == 0, arguments
assert not set({HEAVY!r}) & sys.modules.keys()
"""


def test_what_needs_no_torch_imports_none() -> None:
    """Every door, every room that only reads, and commands that only list; a refusal's traceback says who imports."""
    assert {"verifier.requests.request", "verifier.engine.run", "verifier.analysis.view"} <= set(LIGHT)
    run = subprocess.run([sys.executable, "-c", NO_TORCH], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
