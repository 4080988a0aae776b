"""Find adapters, families and checks of others, by entry point or by `module:object`."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from verifier.errors import ImportFailed, UsageError, one_line
from verifier.output.text import nearest

_HARNESS = __name__.partition(".")[0]
_DOOR = Path(__file__).with_name("__init__.py").resolve()


def names(group: str) -> tuple[str, ...]:
    """The names registered under an entry point group, sorted; imports nothing."""
    return tuple(sorted({point.name for point in importlib.metadata.entry_points(group=group)}))


def module_of(reference: str, group: str) -> str | None:
    """The module in which a registered name or `module:object` stands; None where there is none of that name."""
    if ":" in reference:
        return reference.partition(":")[0]
    return next((point.module for point in importlib.metadata.entry_points(group=group, name=reference)), None)


def search_here() -> None:
    """Let imports search the current folder first, as `python -m` does."""
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)


def shadowing(folder: str) -> str | None:
    """The file in that folder which Python would import in this harness's place; None where there is none."""
    found = importlib.machinery.PathFinder.find_spec(_HARNESS, [folder or os.getcwd()])
    if found is None or found.origin is None or Path(found.origin).resolve() == _DOOR:
        return None
    return found.origin


def load(reference: str, *, group: str, kind: str, is_one: Callable[[Any], bool], needs: tuple[str, ...] = ()) -> Any:
    """Load the object that `reference` names: a registered name, or `module:object`.

    A class is made without arguments. The current folder is searched too, as `python -m` would.

    Args:
        reference: what the user wrote.
        group: the entry point group, `verifier.adapters`.
        kind: the word for people, `adapter`.
        is_one: whether an object can serve as that kind.
        needs: the attributes that every one of them has, to say which are missing.

    Raises:
        UsageError: nothing has that name, or the object is not of the kind.
        ImportFailed: importing or making it raised.
    """
    found = _by_path(reference, kind) if ":" in reference else _by_name(reference, group, kind)
    if isinstance(found, type):
        found = made(found, f"{kind} {reference!r}")
    if not is_one(found):
        raise UsageError(f"{reference!r} is no {kind}: it {_fault(found, needs)}")
    return found


def require_findable(reference: str, *, group: str, kind: str) -> None:
    """Check that something has that name, without importing it: a typo must not cost an import of torch.

    Raises:
        UsageError: nothing has.
    """
    if ":" not in reference:
        if reference not in names(group):
            raise _unknown(reference, names(group), kind)
        return
    require_spelling(reference, kind)
    search_here()
    if importlib.util.find_spec(reference.partition(":")[0].partition(".")[0]) is None:
        _by_path(reference, kind)  # says which module is missing


def made(found: type, what: str) -> Any:
    """Make an object of a class, without arguments.

    Args:
        found: the class.
        what: what it is, for the message: `adapter 'module:class'`.

    Raises:
        ImportFailed: making it raised.
    """
    try:
        return found()
    except VERIFIER_ERRORS:
        raise
    except Exception as error:
        raise ImportFailed(f"{what} could not be made: {one_line(error)}") from error


def members(protocol: type) -> tuple[str, ...]:
    """The public attributes that a protocol asks for, in the order in which it names them."""
    named = [*inspect.get_annotations(protocol), *vars(protocol)]
    return tuple(dict.fromkeys(name for name in named if not name.startswith("_")))


def _fault(found: object, needs: tuple[str, ...]) -> str:
    """What keeps an object from being of the kind: the few attributes that it lacks, else what it is."""
    missing = [f"no `{name}`" for name in needs if not hasattr(found, name)]
    if not isinstance(found, ModuleType) and 0 < len(missing) < len(needs):
        return f"has {', '.join(missing[:-1])}{' and ' if missing[1:] else ''}{missing[-1]}"
    name = type(found).__name__
    return f"is {'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _by_name(reference: str, group: str, kind: str) -> Any:
    points = {point.name: point for point in importlib.metadata.entry_points(group=group)}
    if reference not in points:
        raise _unknown(reference, sorted(points), kind)
    try:
        return points[reference].load()
    except VERIFIER_ERRORS:
        raise
    except Exception as error:
        raise ImportFailed(f"{kind} {reference!r} raised at import: {one_line(error)}") from error


def _unknown(reference: str, known: Sequence[str], kind: str) -> UsageError:
    listed = ", ".join(known) or "none is installed"
    return UsageError(
        f"unknown {kind} {reference!r}{nearest(reference, known)}; registered: {listed}; or name one as module:object"
    )


def require_spelling(reference: str, kind: str) -> None:
    """Make sure that it may be a `module:object` of which another process can import the module.

    Raises:
        UsageError: it may not.
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


def _by_path(reference: str, kind: str) -> Any:
    require_spelling(reference, kind)
    module_name, _, path = reference.partition(":")
    search_here()
    if module_name.partition(".")[0] == _HARNESS and (own := shadowing(os.getcwd())) is not None:
        raise UsageError(f"{kind} {reference!r}: {own} has the name of this harness, which is found first: rename it")
    try:
        module = importlib.import_module(module_name)
    except VERIFIER_ERRORS:
        raise
    except ModuleNotFoundError as error:
        # Only the module that was asked for is the user's spelling; one that it needs is its own fault.
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise UsageError(f"{kind} {reference!r}: there is no module {error.name!r} here or installed") from error
        raise ImportFailed(f"{kind} {reference!r} raised at import: {one_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise ImportFailed(f"{kind} {reference!r} raised at import: {one_line(error)}") from error
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            public = [name for name in vars(found) if not name.startswith("_")] if hasattr(found, "__dict__") else []
            raise UsageError(f"{kind} {reference!r}: {module_name!r} has no {part!r}{nearest(part, public)}")
        found = getattr(found, part)
    return found


VERIFIER_ERRORS = (UsageError, ImportFailed)
