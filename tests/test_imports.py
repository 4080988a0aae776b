"""Who may know whom: no adapter library is named, a family in its rooms alone, and imports go one way."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import verifier_bridge
import verifier_lens

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
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


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


def imported(name: str, *, lazily: bool = True) -> set[str]:
    """The modules of the harness, and the packages from outside, that a module imports.

    Args:
        name: of the module.
        lazily: whether imports inside functions count. Those for a type checker alone never do.
    """
    found: set[str] = set()

    def look(nodes: list[ast.stmt]) -> None:
        for node in nodes:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                look(node.orelse)
                continue
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not lazily:
                continue
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name} imports relatively"
                found.add(node.module or "")
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
            for field in ("body", "orelse", "finalbody"):
                look(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                look(handler.body)

    look(TREES[name].body)
    return {one for one in found if not one.startswith("verifier.") or one in MODULES}


def rooms(*prefixes: str) -> list[str]:
    return [name for name in MODULES if any(name == one or name.startswith(f"{one}.") for one in prefixes)]


def test_the_walk_sees_the_harness() -> None:
    assert {"verifier", "verifier.case", "verifier.checks.qkv", "verifier.families.falcon"} <= MODULES.keys()
    assert "verifier.numerics" in imported("verifier.case")
    assert "torch" not in imported("verifier.family")


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MODULES if not of_a_family(name)])
def test_only_a_familys_rooms_name_one(name: str) -> None:
    for text, line in words(TREES[name]):
        for one in FAMILIES:
            assert one not in text.lower(), f"line {line}: {text!r}"


@pytest.mark.parametrize("name", MODULES)
def test_no_module_names_an_adapter_library(name: str) -> None:
    for text, line in words(TREES[name]):
        for library in LIBRARIES:
            assert library not in text.lower(), f"line {line}: {text!r}"


def test_the_default_adapter_is_named_in_one_place() -> None:
    places = {name for name in MODULES for text, _ in words(TREES[name]) if text == adapter.DEFAULT}
    assert places == {"verifier.adapter"}
    assert adapter.DEFAULT in adapter.registered()


@pytest.mark.parametrize("name", rooms("verifier.checks"))
def test_no_check_has_a_special_case(name: str) -> None:
    """No flag of a family, no known bug: what is found is found by comparing."""
    flags = {flag for one in family.registered() for flag in family.load(one).flags()} - {"bias"}  # any module has one
    code = {text for text, _ in words(TREES[name])}
    assert not code & flags
    assert not {text for text in code if re.search(r"alibi|multi_query|rotary|eager", text)}


# --- imports ---------------------------------------------------------------------------------------------------------


def test_imports_go_round_in_no_circle() -> None:
    edges = {name: {one for one in imported(name, lazily=False) if one in MODULES} - {"verifier"} for name in MODULES}
    left = dict(edges)
    while ready := [name for name, needs in left.items() if not needs & left.keys() - {name}]:
        for name in ready:
            del left[name]
    # A package and its parts know each other.
    assert not left, left


@pytest.mark.parametrize("name", rooms("verifier.checks"))
def test_checks_know_neither_who_runs_them_nor_who_prints_them(name: str) -> None:
    strangers = ("verifier.engine", "verifier.report", "verifier.cli", "verifier.commands", "verifier.record")
    assert not [one for one in imported(name) if one.startswith(strangers)]


@pytest.mark.parametrize("name", rooms("verifier.report", "verifier.record"))
def test_reports_are_made_from_records_alone(name: str) -> None:
    strangers = ("verifier.engine", "verifier.case", "verifier.checks", "verifier.families", "torch", "transformers")
    live = ("verifier.report.progress", "verifier.report.fuzzing")
    events = {"verifier.engine.events"} if name in live else set()  # plain data, and all that they show
    assert not [one for one in imported(name) - events if one.startswith(strangers)]


@pytest.mark.parametrize("name", rooms("verifier.families"))
def test_families_know_no_check_and_no_case(name: str) -> None:
    strangers = ("verifier.checks", "verifier.case", "verifier.engine", "verifier.report", "verifier.numerics")
    assert not [one for one in imported(name) if one.startswith(strangers)]


@pytest.mark.parametrize("name", [name for name in MODULES if name != "verifier.selftest"])
def test_only_the_self_test_plants_faults(name: str) -> None:
    if not name.startswith("verifier.faults") and not of_a_family(name):
        assert not [one for one in imported(name) if one.startswith("verifier.faults")]


def adapters() -> list[Path]:
    packages = (Path(package.__file__ or "").parent for package in (verifier_bridge, verifier_lens))
    return [path for package in packages for path in sorted(package.rglob("*.py"))]


ADAPTERS_MAY_IMPORT = {"verifier.adapter", "verifier.canonical", "verifier.errors"}


@pytest.mark.parametrize("path", adapters(), ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_adapters_know_the_protocol_and_the_vocabulary_and_nothing_else(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "verifier":
            names = {f"verifier.{alias.name}" for alias in node.names} if node.module == "verifier" else {node.module}
            assert names <= ADAPTERS_MAY_IMPORT, f"line {node.lineno}"
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names if alias.name.startswith("verifier.")} <= ADAPTERS_MAY_IMPORT


HEAVY = ("torch", "transformers", "hypothesis", "transformer_lens")
LIGHT = [
    "verifier",
    "verifier.adapter",
    "verifier.canonical",
    "verifier.checks",
    "verifier.cli",
    "verifier.errors",
    "verifier.family",
    "verifier.families.falcon",
    "verifier.matrix",
    "verifier.outcome",
    "verifier.plugins",
    "verifier.record",
    "verifier.spec",
]


def test_what_needs_no_torch_imports_none() -> None:
    lines = [
        "import sys",
        f"for name in {LIGHT!r}:",
        "    __import__(name)",
        f"    assert not set({HEAVY!r}) & sys.modules.keys(), (name, set({HEAVY!r}) & sys.modules.keys())",
    ]
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
