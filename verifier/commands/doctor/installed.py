"""Which distributions the harness and what is registered with it need, and which are there; nothing is imported."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator

from packaging.requirements import Requirement

from verifier.adapter import GROUP as ADAPTERS
from verifier.checks import GROUP as CHECKS
from verifier.commands.doctor.facts import Fact, PluginKind, Problem, Section
from verifier.family import GROUP as FAMILIES

OURS = "adapter-verifier"
NEEDED = "needed"  # the purpose of what nothing goes without
GROUPS: dict[PluginKind, str] = {"family": FAMILIES, "adapter": ADAPTERS, "check": CHECKS}


def requirements() -> Iterator[tuple[Requirement, str]]:
    """List the harness, what it needs, what its extras bring, and what registers something, each with its purpose."""
    yield Requirement(OURS), "the harness"
    ours = [Requirement(text) for text in importlib.metadata.requires(OURS) or []]
    for extra in ("", *(importlib.metadata.metadata(OURS).get_all("Provides-Extra") or [])):
        for one in ours:
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                yield one, f"extra {extra}" if extra else NEEDED
    yield Requirement("pandas"), "used where it is there"  # a notebook may ask for it, and it needs no extra
    for kind, group in GROUPS.items():
        for point in importlib.metadata.entry_points(group=group):
            if point.dist is not None:
                yield Requirement(point.dist.name), f"{kind} {point.name}"


def find_installed(wanted: Iterable[tuple[Requirement, str]]) -> Iterator[Fact]:
    """Look up each distribution once, for the first of its purposes.

    Args:
        wanted: requirements, and what each is for.
    """
    seen = set[str]()
    for requirement, purpose in wanted:
        name, specifier = requirement.name, str(requirement.specifier)
        if (key := name.replace("_", "-").lower()) in seen:
            continue
        seen.add(key)
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        needed = purpose == NEEDED or name == OURS
        right = version is not None and requirement.specifier.contains(version, prereleases=True)
        problems: tuple[Problem, ...] = ()
        if not right and (needed or version is not None):
            is_there = "not installed" if version is None else f"installed as {version}, and wanted as {specifier}"
            what, remedy = f"{name} is {is_there} ({purpose})", f"pip install '{name}{specifier}'"
            problems = (Problem(what=what, remedy=remedy),)
        values = {"name": name, "version": version, "wanted": specifier, "purpose": purpose}
        yield Fact(
            section=Section.INSTALLED,
            rows=((name, version or "-", f"{purpose}, {specifier}" if specifier else purpose),),
            values={**values, "needed": needed, "right": right},
            problems=problems,
        )
