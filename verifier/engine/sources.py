"""Find the files that a module is made of by reading its imports, without importing anything.

An import counts wherever it stands: in a function, for a type checker only, behind a condition. If a module imports by
a name that it computes, everything in its package counts. Files outside the tree are not read.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_SOURCE = ".py"
_PACKAGE = "__init__"
_IMPORTING = ("import_module", "__import__")  # functions that import what a text names

Within = Callable[[Path], bool]
"""Whether a file belongs to the tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The files that a module is made of.

    Attributes:
        start: the module's own file, in the tree or not; None if it has none, or is not found.
        files: the files of the tree that the module imports, and those that it would import if they existed.
        unread: the files that Python cannot parse, so that their imports are unknown.
        folders: the folders of the packages of its modules, which may hold data.
    """

    start: Path | None
    files: frozenset[Path]
    unread: frozenset[Path]
    folders: frozenset[Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Module:
    """A module or package: its dotted name, its file if it has one, and where its submodules are if it is a package."""

    name: str
    file: Path | None
    places: tuple[Path, ...] = ()

    @property
    def package(self) -> str:
        """What its relative imports start from."""
        return self.name if self.places else self.name.rpartition(".")[0]


def find_sources(name: str, within: Within, *, leaving: str = "") -> Sources:
    """Find what a module is made of: itself, the packages that it is in, and all that these import.

    Args:
        name: the dotted name of the module.
        within: whether a file, given by its absolute path, belongs to the tree.
        leaving: the name of a top-level package whose imports are not followed.
    """
    files, unread, folders, read = set[Path](), set[Path](), set[Path](), set[Path]()
    start, waiting, seen = None, [name], {leaving}
    while waiting:
        wanted = waiting.pop()
        if wanted in seen or wanted.partition(".")[0] == leaving:
            continue
        seen.add(wanted)
        chain, candidates = _find_chain(wanted)
        files.update(path for path in candidates if within(path))
        for found in chain:
            if found.file is None:
                continue
            start = found.file if found.name == name else start
            if found.file in read or not within(found.file):
                continue
            read.add(found.file)
            files.add(found.file)
            folders |= {found.file.parent} if found.package else set()
            names = _read_imports(found, *_file_state(found.file))
            if names is None:
                unread.add(found.file)
            else:
                waiting += names
    return Sources(start=start, files=frozenset(files), unread=frozenset(unread), folders=frozenset(folders))


def package_folder(name: str) -> Path | None:
    """Find the folder of a top-level package; None if there is no such package."""
    package = _find_module(name)
    return None if package is None or package.file is None or not package.places else package.file.parent


def module_file(name: str) -> Path | None:
    """Find the file of a module without importing it or the packages that it is in; None if there is none.

    Args:
        name: the dotted name of the module.
    """
    chain, _ = _find_chain(name)
    return chain[-1].file if chain and chain[-1].name == name else None


def _find_chain(name: str) -> tuple[list[_Module], list[Path]]:
    """Find the packages above a module and the module, as far as they exist, and every file that it could be.

    If the last part of a name is not found, it may be an attribute, or a module that is gone.
    """
    first, *rest = name.split(".")
    candidates = [path for entry in sys.path for path in _possible_files(Path(entry).resolve() / first)]
    module = _find_module(first)
    if module is None:
        return [], candidates
    chain = [module]
    for part in rest:
        candidates += [path for place in module.places for path in _possible_files(place / part)]
        module = _find_module(f"{module.name}.{part}", module.places)
        if module is None:
            break
        chain.append(module)
    return chain, candidates


def _possible_files(stem: Path) -> tuple[Path, Path]:
    """Name the source files that a module could have at a path: that of a package, and that of a plain module."""
    return stem / (_PACKAGE + _SOURCE), stem.with_name(stem.name + _SOURCE)


def _find_module(name: str, places: Sequence[Path] | None = None) -> _Module | None:
    """Find a module at the top, or in the folders of its package, without importing it or the package."""
    part = name.rpartition(".")[2]
    try:
        if places is None:
            spec = importlib.util.find_spec(part)
        else:
            spec = importlib.machinery.PathFinder.find_spec(part, [str(place) for place in places])
    except (ImportError, ValueError):  # a module without a spec, as `__main__` is one
        return None
    if spec is None:
        return None
    inside = tuple(Path(place).resolve() for place in spec.submodule_search_locations or ())
    file = Path(spec.origin) if spec.origin is not None and spec.has_location else None
    return _Module(name=name, file=None if file is None else file.parent.resolve() / file.name, places=inside)


def _file_state(file: Path) -> tuple[int, int]:
    """Give the time and the size of a file, which change when it is written to."""
    try:
        status = file.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=4096)
def _read_imports(source: _Module, _changed: int, _size: int) -> tuple[str, ...] | None:
    """List the dotted names that a module may import; None if it cannot be parsed."""
    tree = None if source.file is None else parse(source.file)
    return None if tree is None else tuple(_list_imports(tree, source))


def parse(file: Path) -> ast.Module | None:
    """Parse a module's code; a compiled module has none, so its tree is empty. None where it cannot be parsed."""
    if file.suffix != _SOURCE:
        return ast.Module(body=[], type_ignores=[])
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return None


def _list_imports(tree: ast.Module, source: _Module) -> list[str]:
    """List the dotted names that a syntax tree may import."""
    names: list[str] = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                names += [alias.name for alias in aliases]
            case ast.ImportFrom(module=module, names=aliases, level=level):
                base = _resolve_relative(module or "", level, source.package)
                if base:
                    names += [base, *(f"{base}.{alias.name}" for alias in aliases if alias.name != "*")]
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=arguments):
                names += _list_dynamic_imports(arguments, source) if called in _IMPORTING else []
    return names


def _resolve_relative(module: str, level: int, package: str) -> str:
    """Spell a relative import as a dotted name; empty if it leads beyond the top."""
    if level == 0:
        return module
    parts = package.split(".") if package else []
    kept = parts[: max(0, len(parts) - level + 1)]
    return ".".join([*kept, module] if module else kept) if kept else ""


def _list_dynamic_imports(arguments: Sequence[ast.expr], source: _Module) -> Iterable[str]:
    """List what `import_module(…)` may import: the name that it is given, else everything in the package."""
    match arguments:
        case [ast.Constant(value=str(name)), *_]:
            bare = name.lstrip(".")
            absolute = _resolve_relative(bare, len(name) - len(bare), source.package)
            return [absolute] if absolute else []
    return _list_modules(source.file.parent, source.package) if source.file is not None and source.package else []


def _list_modules(folder: Path, package: str) -> Iterator[str]:
    for path in sorted(folder.rglob(f"*{_SOURCE}")):
        parts = path.relative_to(folder).with_suffix("").parts
        yield ".".join([package, *(parts[:-1] if parts[-1] == _PACKAGE else parts)])


def digest(name: str) -> str | None:
    """Hash the sources of a module: all that it imports from its own package, or from its folder if it is in none.

    Args:
        name: the dotted name of the module.

    Returns:
        Twelve hexadecimal digits; None if it is not found, is no Python file, or is a part of this harness.
    """
    if name.partition(".")[0] == __name__.partition(".")[0]:
        return None  # of this very package, which has a version
    start = module_file(name)
    if start is None or start.suffix != _SOURCE:
        return None
    top = start.parents[name.count(".")] if start.stem != _PACKAGE else start.parents[name.count(".") + 1]
    root = top / name.partition(".")[0] if "." in name or start.stem == _PACKAGE else start.parent
    made = hashlib.sha256()
    for path in sorted(find_sources(name, lambda path: path.is_relative_to(root)).files):
        if path.is_file():
            made.update(str(path.relative_to(root)).encode())
            made.update(path.read_bytes())
    return made.hexdigest()[:12]
