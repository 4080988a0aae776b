"""The list of checks, read from the source of their modules, because importing them would import torch.

So a command line that names an unknown check fails at once, and `verifier list` and pytest's collection start at once.
A check can be read if it is a function at the top level of its module that `check` decorates with literal arguments, as
all of ours are. A third party's check that cannot be read is imported when checks are listed.
"""

from __future__ import annotations

import ast
import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from verifier import checks, plugins
from verifier.engine import sources
from verifier.engine.events import CheckInfo

_DEFAULT_APPLIES: str = (checks.check.__kwdefaults__ or {})["applies"]


def registered() -> tuple[CheckInfo, ...]:
    """List every check, in the order in which they run, those of third parties last.

    Raises:
        ImportFailed: a third party's check raised at import, or has the id of another check.
    """
    folder = Path(checks.__file__).parent
    ours = [info for module in checks.MODULES for info in read_checks(folder / f"{module}.py").values()]
    return checks.add_outside(ours, lambda name: _read_outside(name) or describe_checks([checks.load_outside(name)])[0])


def select(patterns: Sequence[str]) -> tuple[CheckInfo, ...]:
    """List the checks whose id matches one of the globs; all where there is none.

    Raises:
        UsageError: a pattern matches no check.
        ImportFailed: a third party's check raised at import, or has the id of another check.
    """
    return checks.select_from(registered(), patterns)


def require_known(patterns: Sequence[str]) -> None:
    """Make sure that each glob matches a check, unless a third party's check would have to be imported to tell.

    Such an import may crash, so it is left to the workers, which then report the glob.

    Raises:
        UsageError: a pattern matches no check.
    """
    if patterns and all(_read_outside(name) for name in plugins.names(checks.GROUP)):
        select(patterns)


def describe_checks(selected: Iterable[checks.Check]) -> tuple[CheckInfo, ...]:
    """Describe checks without their functions."""
    return tuple(CheckInfo(id=check.id, doc=check.doc, applies=check.applies) for check in selected)


def read_checks(path: Path) -> Mapping[str, CheckInfo]:
    """Read the checks that a module defines, by the name of their function; none if the file cannot be parsed."""
    tree = sources.parse(path)
    infos: dict[str, CheckInfo] = {}
    for node in tree.body if tree is not None and _imports_check(tree) else ():
        match node:
            case ast.FunctionDef(
                name=name,
                decorator_list=[
                    ast.Call(func=ast.Name(id="check"), args=[ast.Constant(value=str(identity))], keywords=keywords)
                ],
            ):
                given = {one.arg: one.value for one in keywords}
                applies = given.get("applies", ast.Constant(_DEFAULT_APPLIES))
                if isinstance(applies, ast.Constant):
                    doc = " ".join((ast.get_docstring(node) or "").split())
                    infos[name] = CheckInfo(id=identity, doc=doc, applies=str(applies.value))
    return infos


def _imports_check(tree: ast.Module) -> bool:
    """Whether `check` in a module is imported from this harness, and not a decorator of the module's own."""
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == checks.__name__
        and any(alias.name == "check" and alias.asname is None for alias in node.names)
        for node in tree.body
    )


def _read_outside(name: str) -> CheckInfo | None:
    """Read a third party's check from its source; None if it must be imported."""
    for point in importlib.metadata.entry_points(group=checks.GROUP, name=name):
        path = sources.module_file(point.module)
        return None if path is None else read_checks(path).get(point.attr)
    return None
