"""What was written into a config, as a finding: said in one way of HF and of an adapter."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from verifier.judging.outcome import Finding, Verdict
from verifier.reference.snapshots import edited_keys


def written_into(
    before: Mapping[str, Any], after: Mapping[str, Any], *, verdict: Verdict, declared: Collection[str] = ()
) -> Finding | None:
    """The finding that names each field that is another one now, but for the declared ones; None where none is."""
    changed = [key for key in edited_keys(before, after) if key not in declared]
    if not changed:
        return None
    words = ", ".join(f"{key}: {before.get(key)!r} became {after.get(key)!r}" for key in changed)
    return Finding(verdict=verdict, where=f"config.{changed[0]}", message=words)
