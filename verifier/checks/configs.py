"""Find what HF or an adapter wrote into a config."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from verifier.judging.outcome import Finding, Verdict
from verifier.reference.snapshots import edited_keys


def find_config_edits(
    before: Mapping[str, Any], after: Mapping[str, Any], *, verdict: Verdict, declared: Collection[str] = ()
) -> Finding | None:
    """Make the finding that names each changed field that is not declared; None where there is none.

    Args:
        before: the config's fields before the edits.
        after: the same config's fields afterwards.
        verdict: of the finding.
        declared: the fields that may change.
    """
    changed = [key for key in edited_keys(before, after) if key not in declared]
    if not changed:
        return None
    words = ", ".join(f"{key}: {before.get(key)!r} became {after.get(key)!r}" for key in changed)
    return Finding(verdict=verdict, where=f"config.{changed[0]}", message=words)
