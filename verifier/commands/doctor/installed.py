"""Which distributions the harness and what is registered with it need, and which are there; nothing is imported."""

from __future__ import annotations

import importlib.metadata

from packaging.requirements import Requirement

from verifier.adapter import GROUP as ADAPTERS
from verifier.checks import GROUP as CHECKS
from verifier.commands.doctor.facts import Installed, Kind
from verifier.family import GROUP as FAMILIES

OURS = "adapter-verifier"
NEEDED = "needed"  # the purpose of what nothing goes without
GROUPS: dict[Kind, str] = {"family": FAMILIES, "adapter": ADAPTERS, "check": CHECKS}
# What a notebook may ask for, and no extra names.
_USED_IF_THERE = ("pandas",)


def installed() -> tuple[Installed, ...]:
    """Every distribution of interest once: what is needed, what extras bring, and what registers something."""
    requirements = [Requirement(text) for text in importlib.metadata.requires(OURS) or []]
    listed = [(Requirement(OURS), "the harness")]
    for extra in ("", *(importlib.metadata.metadata(OURS).get_all("Provides-Extra") or [])):
        purpose = f"extra {extra}" if extra else NEEDED
        listed += [
            (one, purpose) for one in requirements if one.marker is None or one.marker.evaluate({"extra": extra})
        ]
    listed += [(Requirement(name), "used where it is there") for name in _USED_IF_THERE]
    for kind, group in GROUPS.items():
        for point in importlib.metadata.entry_points(group=group):
            if point.dist is not None:
                listed.append((Requirement(point.dist.name), f"{kind} {point.name}"))
    found: dict[str, Installed] = {}
    for requirement, purpose in listed:
        found.setdefault(requirement.name.replace("_", "-").lower(), _installed(requirement, purpose))
    return tuple(found.values())


def _installed(requirement: Requirement, purpose: str) -> Installed:
    version = _version(requirement.name)
    return Installed(
        name=requirement.name,
        version=version,
        wanted=str(requirement.specifier),
        purpose=purpose,
        needed=purpose == NEEDED or requirement.name == OURS,
        right=version is not None and requirement.specifier.contains(version, prereleases=True),
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
