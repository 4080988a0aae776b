"""Find adapters, families and checks of others, by entry point or by `module:object`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from verifier.errors import ImportFailed, UsageError, VerifierError, one_line
from verifier.output.text import nearest

_HARNESS = __name__.partition(".")[0]
_INIT_FILE = Path(__file__).with_name("__init__.py").resolve()


def names(group: str) -> tuple[str, ...]:
    """List the names that are registered under an entry point group, sorted; nothing is imported."""
    return tuple(sorted({point.name for point in importlib.metadata.entry_points(group=group)}))


def module_of(reference: str, group: str) -> str | None:
    """Name the module of a registered name or a `module:object`; None if nothing is registered under the name.

    Args:
        reference: the registered name, or `module:object`.
        group: the entry point group, `verifier.adapters`.
    """
    if ":" in reference:
        return reference.partition(":")[0]
    return next((point.module for point in importlib.metadata.entry_points(group=group, name=reference)), None)


def shadowing(folder: str) -> str | None:
    """Find the file in a folder that Python would import in the place of this harness; None if there is none."""
    spec = importlib.machinery.PathFinder.find_spec(_HARNESS, [folder or os.getcwd()])
    if spec is None or spec.origin is None or Path(spec.origin).resolve() == _INIT_FILE:
        return None
    return spec.origin


def load(reference: str, *, group: str, kind: str, is_one: Callable[[Any], bool], needs: tuple[str, ...] = ()) -> Any:
    """Load an object by its registered name, or by `module:object`; a class is instantiated without arguments.

    The current folder is searched too, as `python -m` does.

    Args:
        reference: what the user wrote.
        group: the entry point group, `verifier.adapters`.
        kind: the word for people, `adapter`.
        is_one: whether an object is of the kind.
        needs: the attributes that each object of the kind has, so that the message can name those that are missing.

    Raises:
        UsageError: nothing has that name, or the object is not of the kind.
        ImportFailed: importing or instantiating it raised.
    """
    with _code_from_outside(f"{kind} {reference!r} raised at import"):
        if ":" in reference:
            candidate = _import_object(reference, kind)
        else:
            candidate = _find_entry_point(reference, group, kind).load()
        if isinstance(candidate, type):
            candidate = instantiate(candidate, f"{kind} {reference!r}")
        if not is_one(candidate):
            raise UsageError(f"{reference!r} is no {kind}: it {_describe_fault(candidate, needs)}")
        return candidate


def require_findable(reference: str, *, group: str, kind: str) -> None:
    """Check that something has that name, without importing it: a typo must not cost an import of torch.

    Args:
        reference: what the user wrote.
        group: the entry point group, `verifier.adapters`.
        kind: the word for people, `adapter`.

    Raises:
        UsageError: nothing has that name.
    """
    if ":" not in reference:
        _find_entry_point(reference, group, kind)
        return
    _require_spelling(reference, kind)
    _search_here()
    if importlib.util.find_spec(reference.partition(":")[0].partition(".")[0]) is None:
        load(reference, group=group, kind=kind, is_one=lambda found: True)  # its message says which module is missing


def instantiate(kind: type, what: str) -> Any:
    """Make an object of a class, without arguments.

    Args:
        kind: the class.
        what: what the object is, for the message: `adapter 'module:class'`.

    Raises:
        ImportFailed: the class raised.
    """
    with _code_from_outside(f"{what} could not be made"):
        return kind()


def members(protocol: type) -> tuple[str, ...]:
    """List the public attributes that a protocol asks for, in the order in which it names them."""
    named = [*inspect.get_annotations(protocol), *vars(protocol)]
    return tuple(dict.fromkeys(name for name in named if not name.startswith("_")))


@contextlib.contextmanager
def _code_from_outside(failed: str) -> Iterator[None]:
    """Turn whatever code from outside raises inside the block, SystemExit included, into an `ImportFailed`.

    Args:
        failed: how the message begins: what failed, and how.
    """
    try:
        yield
    except (VerifierError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ImportFailed(f"{failed}: {one_line(error)}") from error


def _describe_fault(candidate: object, needs: tuple[str, ...]) -> str:
    """Say why an object is not of the kind: the few attributes that it lacks, else what it is."""
    missing = [f"no `{name}`" for name in needs if not hasattr(candidate, name)]
    if not isinstance(candidate, ModuleType) and 0 < len(missing) < len(needs):
        return f"has {', '.join(missing[:-1])}{' and ' if missing[1:] else ''}{missing[-1]}"
    name = type(candidate).__name__
    return f"is {'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _find_entry_point(reference: str, group: str, kind: str) -> importlib.metadata.EntryPoint:
    points = {point.name: point for point in importlib.metadata.entry_points(group=group)}
    if reference in points:
        return points[reference]
    known = sorted(points)
    raise UsageError(
        f"unknown {kind} {reference!r}{nearest(reference, known)}; registered: "
        f"{', '.join(known) or 'none is installed'}; or name one as module:object"
    )


def _search_here() -> None:
    """Let imports search the current folder first, as `python -m` does."""
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)


def _require_spelling(reference: str, kind: str) -> None:
    """Check that a reference can be a `module:object` of which another process can import the module.

    Raises:
        UsageError: it cannot.
    """
    module_name, _, path = reference.partition(":")
    if not module_name or not path:
        raise UsageError(f"{reference!r} is no module:object")
    if module_name == "__main__":
        raise UsageError(f"{kind} {reference!r}: no other process can import __main__; put it into a module of its own")
    if os.sep in module_name or not all(module_name.split(".")):
        parts = Path(module_name).with_suffix("").parts
        hint = f"; of a file here it is {'.'.join(parts)}:{path}" if all(map(str.isidentifier, parts)) else ""
        raise UsageError(f"{kind} {reference!r}: {module_name!r} is no module's name{hint}")


def _import_object(reference: str, kind: str) -> Any:
    _require_spelling(reference, kind)
    module_name, _, path = reference.partition(":")
    _search_here()
    if module_name.partition(".")[0] == _HARNESS and (own := shadowing(os.getcwd())) is not None:
        raise UsageError(f"{kind} {reference!r}: {own} has the name of this harness, which is found first: rename it")
    try:
        imported: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Only the module that was asked for is the user's spelling; one that it needs is its own fault.
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise UsageError(f"{kind} {reference!r}: there is no module {error.name!r} here or installed") from error
        raise
    for part in path.split("."):
        if not hasattr(imported, part):
            public = [name for name in getattr(imported, "__dict__", ()) if not name.startswith("_")]
            raise UsageError(f"{kind} {reference!r}: {module_name!r} has no {part!r}{nearest(part, public)}")
        imported = getattr(imported, part)
    return imported
