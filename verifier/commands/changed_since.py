"""Find out which adapters a change touches: git lists what was touched, `sources` what an adapter is made of."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verifier import plugins
from verifier.adapter import GROUP as ADAPTERS
from verifier.checks import GROUP as CHECKS
from verifier.engine import sources
from verifier.errors import UsageError
from verifier.family import GROUP as FAMILIES
from verifier.output.text import nearest
from verifier.requests import configuration

OPTION = "--changed-since"
_HARNESS = __name__.partition(".")[0]
_MOST_NAMED = 3
_COMPILED = "__pycache__"
_INSTALLED = ("purelib", "platlib", "stdlib", "platstdlib")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The difference between a revision and the working tree.

    Attributes:
        revision: the revision, as the user named it.
        root: the folder of the working tree.
        folder: the current folder.
        paths: the files that were changed, added, deleted or renamed (both names), and those that git does not know.
        ignored: the files and folders of the tree that git ignores.
    """

    revision: str
    root: Path
    folder: Path
    paths: frozenset[Path]
    ignored: frozenset[Path]

    def has(self, path: Path) -> bool:
        """Whether the file was touched, or lies in a repository within this one that was."""
        return not self.paths.isdisjoint((path, *path.parents))

    def within(self, path: Path) -> bool:
        """Whether git tracks the place of a file."""
        return self.root in path.parents and not _is_installed(path) and not self.hides(path)

    def hides(self, path: Path) -> bool:
        """Whether git was told to ignore the file, so that nobody can say whether it was touched."""
        return not self.ignored.isdisjoint((path, *path.parents))

    def below(self, place: Path) -> list[str]:
        """Name a file if it was touched, or what was touched in a folder."""
        return [self.short(path) for path in sorted(self.paths) if place == path or place in path.parents]

    def short(self, path: Path) -> str:
        """Name a file as it is called in the tree."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """Whether a change touches an adapter.

    Attributes:
        adapter: the adapter, by name or as `module:object`.
        is_touched: whether the adapter is to be run.
        sentence: the same in words, with the reason.
    """

    adapter: str
    is_touched: bool
    sentence: str


def since(revision: str, folder: Path) -> Changes:
    """Ask git what was touched since a revision in the working tree that the folder lies in.

    Args:
        revision: anything that git takes for a commit.
        folder: a folder of the working tree.

    Raises:
        UsageError: there is no git, no repository, or no such revision.
    """
    top = _try_git(folder, "rev-parse", "--show-toplevel")
    if top is None:
        raise UsageError(f"{OPTION} asks git, and {str(folder)!r} is in no git repository with a working tree")
    root = Path(top.removesuffix("\n"))
    if _try_git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}") is None:
        named = _git(root, "for-each-ref", "--format=%(refname:short)").split()
        shallow = _git(root, "rev-parse", "--is-shallow-repository").strip() == "true"
        hint = "; the clone is shallow: fetch that revision first" if shallow else nearest(revision, named)
        raise UsageError(f"{OPTION} {revision!r}: the git repository {str(root)!r} has no such revision{hint}")
    listed = [
        # A renamed file is one that is gone and one that is new.
        _git(root, "diff", "--name-only", "--no-renames", "-z", revision, "--"),
        _git(root, "ls-files", "--others", "--exclude-standard", "-z"),
    ]
    ignored = _git(root, "ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z")
    paths = {root / name for text in listed for name in text.split("\0") if name}
    return Changes(
        revision=revision,
        root=root,
        folder=folder,
        paths=frozenset(path for path in paths if _COMPILED not in path.parts),
        ignored=frozenset(root / name for name in ignored.split("\0") if name),
    )


def look(changes: Changes, *, family: str, adapter: str, beside: Sequence[Path] = ()) -> Touched:
    """Say whether a change touches the adapter, the family, a third party's check, the harness or its configuration.

    Args:
        changes: what was touched.
        family: reference.
        adapter: reference.
        beside: further files and folders that a run of it depends on.
    """
    modules = [plugins.module_of(adapter, ADAPTERS), plugins.module_of(family, FAMILIES)]
    modules += [point.module for point in importlib.metadata.entry_points(group=CHECKS)]
    # The harness counts as a whole.
    parts = [sources.find_sources(module or "", changes.within, leaving=_HARNESS) for module in modules]
    start = parts[0].start
    reasons = []
    if start is None:
        reasons.append("its module is not found")
    elif changes.hides(start):
        reasons.append(f"git ignores {changes.short(start)}")
    for part in parts:
        reasons += _touched_sources(changes, part)
    harness = sources.package_folder(_HARNESS)
    if harness is not None and changes.within(harness):
        reasons += changes.below(harness)
    for path in (*beside, *_configurations(changes)):
        # What a link leads to may be touched, and the link itself.
        for place in (Path(os.path.abspath(path)), path.resolve()):
            reasons += changes.below(place)
            reasons += [changes.short(place)] if changes.has(place) else []
            reasons += [f"{changes.short(place)}, which git ignores"] if changes.hides(place) else []
    reasons = list(dict.fromkeys(reasons))
    if reasons:
        more = f" and {len(reasons) - _MOST_NAMED} more" if reasons[_MOST_NAMED:] else ""
        why = f"touched since {changes.revision}: {', '.join(reasons[:_MOST_NAMED])}{more}"
    elif start is None or not changes.within(start):
        why = f"nothing that it is made of lies in {str(changes.root)!r}; not run"
    else:
        why = f"nothing that it is made of was touched since {changes.revision}; not run"
    return Touched(adapter=adapter, is_touched=bool(reasons), sentence=f"{adapter}: {why}")


def _touched_sources(changes: Changes, part: sources.Sources) -> list[str]:
    """Name the touched files that a module is made of, the data beside them, and what cannot be parsed."""
    home = part.start.parent if part.start is not None else None
    data = [path for path in changes.paths if path.suffix != ".py" and _is_data(path, part, home)]
    touched = sorted(path for path in part.files if changes.has(path)) + sorted(data)
    unread = sorted(path for path in part.unread if not changes.has(path))
    return [changes.short(path) for path in touched] + [
        f"{changes.short(path)}, which cannot be parsed" for path in unread
    ]


def _is_data(path: Path, part: sources.Sources, home: Path | None) -> bool:
    """Whether a file lies beside a module of a package, or anywhere below the folder of the module itself."""
    return path.parent in part.folders or (home in part.folders and home in path.parents)


def _configurations(changes: Changes) -> list[Path]:
    """List the file that configures this run, and those that may have configured it before they were deleted."""
    above = [place for place in (changes.folder, *changes.folder.parents) if place.is_relative_to(changes.root)]
    file = configuration.read(changes.folder).file
    return [*([] if file is None else [file]), *(place / configuration.OWN for place in above)]


def _is_installed(path: Path) -> bool:
    """Whether a file lies where packages are installed, which may be inside the tree."""
    return any(path.is_relative_to(folder) for name in _INSTALLED if (folder := sysconfig.get_path(name)))


def _git(folder: Path, *arguments: str) -> str:
    output = _try_git(folder, *arguments)
    if output is None:
        raise UsageError(f"{OPTION}: `git {' '.join(arguments)}` failed in {str(folder)!r}")
    return output


def _try_git(folder: Path, *arguments: str) -> str | None:
    """Run git and give what it prints; None if it fails."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        ended = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"})
    except OSError as error:
        raise UsageError(f"{OPTION} needs git, which cannot be run here: {error.strerror}") from error
    return ended.stdout.decode(errors="surrogateescape") if ended.returncode == 0 else None
