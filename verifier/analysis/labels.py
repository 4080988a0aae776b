"""What a run is called, and each of several records that stand side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from verifier.output import text
from verifier.record import RunLine


def run_title(run: RunLine) -> str:
    """`falcon × mine:Adapter (mine 1.0)`: the family, the adapter as asked for, and what it calls itself."""
    return f"{text.line(run.family)} × {text.subject(run.adapter, run.adapter_name, run.adapter_version)}"


def name_apart(records: Sequence[tuple[RunLine, Path]]) -> tuple[str, ...]:
    """What each record is called: two of one adapter and version by their folders too, or else by their numbers.

    Args:
        records: what was run, and the record's file.
    """
    found = [f"{run.family} × {run.adapter_name} {run.adapter_version}" for run, _ in records]
    folders = [path.parent.name for _, path in records]
    for apart in (folders, [f"record {number}" for number, _ in enumerate(records, start=1)]):
        found = [f"{name} ({more})" if found.count(name) > 1 else name for name, more in zip(found, apart, strict=True)]
    return tuple(found)
