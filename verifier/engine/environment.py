"""What a result depends on beside the code: versions, read without importing anything, and the usable cores."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from verifier import adapter, plugins
from verifier.engine import sources

_DISTRIBUTIONS = ("adapter-verifier", "torch", "transformers", "hypothesis", "numpy")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def versions(adapter_reference: str) -> dict[str, str]:
    """Look up the versions of everything that a result depends on.

    Args:
        adapter_reference: the adapter, by name or as `module:object`.

    Returns:
        The version by name: of Python, of the distributions that every result depends on, and of the adapter's
        distribution if it has one; and a short hash of the adapter's sources, because an edit changes no version.
    """
    found_versions = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found_versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for point in importlib.metadata.entry_points(group=adapter.GROUP, name=adapter_reference):
        if point.dist is not None:
            found_versions[point.dist.name] = point.dist.version
    module = plugins.module_of(adapter_reference, adapter.GROUP)
    digest = None if module is None else sources.digest(module)
    return found_versions if digest is None else {**found_versions, f"{module} (sources)": digest}


def usable_cores() -> int:
    """Count the cores that this process may use, by its affinity and by the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
