"""Which distributions the harness and what is registered with it need, and which are there; nothing is imported."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

from packaging.requirements import Requirement

from verifier.adapter import GROUP as ADAPTERS
from verifier.checks import GROUP as CHECKS
from verifier.commands.doctor.facts import Installed, Kind
from verifier.family import GROUP as FAMILIES

OURS = "adapter-verifier"
GROUPS: dict[Kind, str] = {"family": FAMILIES, "adapter": ADAPTERS, "check": CHECKS}
# What a notebook may ask for, and no extra names.
_USED_IF_THERE = ("pandas",)


def installed() -> tuple[Installed, ...]:
    """Every distribution of interest once: what is needed, what extras bring, and what registers something."""
    found: dict[str, Installed] = {}
    for one in (*_required(), *_optional(), *_registering()):
        found.setdefault(one.name.replace("_", "-").lower(), one)
    return tuple(found.values())


def _required() -> Iterator[Installed]:
    yield _installed(OURS, purpose="the harness", needed=True)
    for requirement in _requirements():
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _wanted(requirement, "needed", needed=True)


def _optional() -> Iterator[Installed]:
    for extra in importlib.metadata.metadata(OURS).get_all("Provides-Extra") or []:
        for requirement in _requirements():
            marker = requirement.marker
            if marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
                yield _wanted(requirement, f"extra {extra}", needed=False)
    for name in _USED_IF_THERE:
        yield _installed(name, purpose="used where it is there", needed=False)


def _registering() -> Iterator[Installed]:
    for kind, group in GROUPS.items():
        for point in importlib.metadata.entry_points(group=group):
            if point.dist is not None:
                yield _installed(point.dist.name, purpose=f"{kind} {point.name}", needed=False)


def _requirements() -> list[Requirement]:
    return [Requirement(text) for text in importlib.metadata.requires(OURS) or []]


def _wanted(requirement: Requirement, purpose: str, *, needed: bool) -> Installed:
    version = _version(requirement.name)
    return Installed(
        name=requirement.name,
        version=version,
        wanted=str(requirement.specifier),
        purpose=purpose,
        needed=needed,
        right=version is not None and requirement.specifier.contains(version, prereleases=True),
    )


def _installed(name: str, *, purpose: str, needed: bool) -> Installed:
    version = _version(name)
    return Installed(name=name, version=version, wanted="", purpose=purpose, needed=needed, right=version is not None)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
