"""The checks: what an adapter must satisfy, one module for each area."""

from __future__ import annotations

import fnmatch
import functools
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from verifier import plugins
from verifier.adapter import Capability
from verifier.checks.superseded import SUPERSEDED, name_successors
from verifier.errors import ImportFailed, UsageError
from verifier.judging.comparison import summarize
from verifier.judging.outcome import Finding, failure
from verifier.output import text

if TYPE_CHECKING:
    from verifier.observing.case import Case

GROUP = "verifier.checks"

# The order in which the areas run: checks that block others come first.
AREAS = (
    "reference",
    "build",
    "qkv",
    "weights",
    "hooks",
    "intervene",
    "backward",
    "forward",
    "cache",
    "state",
    "component",
)

# Areas whose checks are not in a module of their name alone; those of the cache are looked at in circumstances.
_SPLIT: Mapping[str, tuple[str, ...]] = {"hooks": ("hooks", "hook_effects"), "cache": ()}
MODULES = (*(module for area in AREAS for module in _SPLIT.get(area, (area,))), "in_circumstances")

# What a case leaves behind is looked at when all else is over.
LAST = "state.process"
# These find out in words of their own that an adapter changed what is not its own.
OF_SURROUNDINGS = ("build.surroundings", "state.settings", LAST)
OF_RANDOM_NUMBERS = "state.random"  # this one too

# To which cases a check applies. `valid`: every case that HF accepts. `invalid`: those that HF refuses. `always`: both.
# `pairwise`: valid cases in which every two values of every two flags meet; for checks that depend on how a subject is
# called and handled (positions, dtype, kernel, copies, training), or on Hugging Face alone, and not on the layout of a
# block. `sampled`: a few of those for each kind of block, for expensive checks.
Applies = Literal["valid", "invalid", "always", "pairwise", "sampled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A property that an adapter must have.

    Attributes:
        id: `area.property`.
        run: the function of a case; its docstring says what it proves and what a failure means.
        needs: the subject's capabilities without which it is not applicable.
        applies: to which cases, as `Applies` says.
        subject: whether it uses the adapter's subject; if so, a failed build blocks it.
    """

    id: str
    run: Callable[[Case], Finding]
    needs: frozenset[Capability]
    applies: Applies
    subject: bool

    @property
    def area(self) -> str:
        """The part of the id before the dot."""
        return self.id.partition(".")[0]

    @property
    def doc(self) -> str:
        """What the check proves and what a failure means, in one line."""
        return " ".join((self.run.__doc__ or "").split())


class FailedAt(Exception):
    """Ends a check with a failure at a place."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{where}: {message}")
        self.finding = failure(where, message)


def check(
    identity: str, *, needs: Sequence[Capability] = (), applies: Applies = "valid", subject: bool = True
) -> Callable[[Callable[[Case], Finding | Iterable[Finding]]], Check]:
    """Make a check of a function of a case; the arguments are the attributes of `Check`.

    The function gives the finding on the case, or those at several places in causal order, which are summarized. It may
    raise `FailedAt` before the first of them.

    Args:
        identity: the check's id, `area.property`.
        needs: the subject's capabilities without which the check is not applicable.
        applies: to which cases, as `Applies` says.
        subject: whether the check uses the adapter's subject; if so, a failed build blocks it.
    """

    def decorate(function: Callable[[Case], Finding | Iterable[Finding]]) -> Check:
        @functools.wraps(function)
        def run(case: Case) -> Finding:
            try:
                found = function(case)
                return found if isinstance(found, Finding) else summarize(found)
            except FailedAt as end:
                return end.finding

        return Check(id=identity, run=run, needs=frozenset(needs), applies=applies, subject=subject)

    return decorate


class _Named(Protocol):
    @property
    def id(self) -> str: ...


Named = TypeVar("Named", bound=_Named)


def own_checks() -> tuple[Check, ...]:
    """Every check of the harness, area by area, and at last what a case leaves behind."""
    modules = [vars(importlib.import_module(f"{__name__}.{module}")) for module in MODULES]
    # A module may import another one's check, which counts once, in the first of them.
    found = dict.fromkeys(value for module in modules for value in module.values() if isinstance(value, Check))
    return in_order(found)


def registered() -> tuple[Check, ...]:
    """Every check, area by area, those of entry points last.

    Raises:
        ImportFailed: a third party's check raised at import, or has the id of another check.
    """
    return add_outside(own_checks(), load_outside)


def load_outside(name: str) -> Check:
    """Import a third party's check by the name of its entry point.

    Raises:
        UsageError: the entry point names no check.
        ImportFailed: its module raised at import.
    """
    found: Check = plugins.load(name, group=GROUP, kind="check", is_one=lambda candidate: isinstance(candidate, Check))
    return found


def add_outside(ours: Iterable[Named], get: Callable[[str], Named]) -> tuple[Named, ...]:
    """Join the harness's checks and those of third parties; `get` finds one by the name of its entry point.

    Args:
        ours: the harness's own checks, which come first.
        get: loads the check behind the name of an entry point.

    Returns:
        Our checks, then the third parties' ones, and at last what a case leaves behind.

    Raises:
        ImportFailed: a third party's check has the id of another check.
    """
    found = {check.id: check for check in ours}
    for name in plugins.names(GROUP):
        outside = get(name)
        if outside.id in found:
            raise ImportFailed(f"check {name!r} has the id {outside.id!r}, which another one has")
        found[outside.id] = outside
    return in_order(found.values())


def in_order(found: Iterable[Named]) -> tuple[Named, ...]:
    """Put the check of what a case leaves behind last, and leave the others in their order."""
    return tuple(sorted(found, key=lambda check: check.id == LAST))


def is_selected(check: str, patterns: Sequence[str]) -> bool:
    """Whether globs or areas select the check with this id; without patterns every check is selected.

    Args:
        check: the check's id.
        patterns: globs of ids, or names of areas.
    """
    area = check.partition(".")[0]
    return not patterns or any(fnmatch.fnmatchcase(check, pattern) or area == pattern for pattern in patterns)


def select(patterns: Sequence[str]) -> tuple[Check, ...]:
    """Select the checks whose id matches one of the globs (`qkv.*`) or areas (`qkv`); all without patterns.

    Raises:
        UsageError: a pattern matches no check.
    """
    return select_from(registered(), patterns)


def select_from(known: tuple[Named, ...], patterns: Sequence[str]) -> tuple[Named, ...]:
    """Select from known checks those whose id matches one of the globs or areas; all without patterns.

    Args:
        known: the checks to choose from.
        patterns: globs of ids, or names of areas.

    Returns:
        The selected checks, in the order of the known ones.

    Raises:
        UsageError: a pattern matches no check.
    """
    if not patterns:
        return known
    matched: set[str] = set()
    for pattern in patterns:
        matching = {one.id for one in known if is_selected(one.id, [pattern])}
        if not matching:
            gone = [one for one in SUPERSEDED if is_selected(one, [pattern])]
            if gone:
                raise UsageError(f"no check matches {pattern!r} any more: {name_successors(gone)}")
            nearest = text.nearest(pattern, (*AREAS, *(one.id for one in known)))
            raise UsageError(f"no check matches {pattern!r}{nearest}; `verifier list checks` names them")
        matched |= matching
    return tuple(one for one in known if one.id in matched)
