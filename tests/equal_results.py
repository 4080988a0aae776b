"""Compare two records, apart from what two runs of the same cases may differ in."""

from __future__ import annotations

import json
from pathlib import Path

from verifier.judging.outcome import Verdict

# What two runs with one seed may differ in.
_CIRCUMSTANCES = frozenset({"seconds", "started", "workers", "out", "limits"})
_OF_THE_MACHINE = frozenset({"lost", "resumed", "alone"})  # the last is not tried without isolation


def have_same_result(first: Path, second: Path) -> bool:
    """Whether two records are of the same result.

    They may differ in times, limits, the number of workers, the order of lines, in whether a run was taken up again,
    and in the last output of a process that died, which depends on what it had run before.
    """
    return _essence(first) == _essence(second)


def _essence(path: Path) -> dict[tuple[object, ...], str]:
    """What counts of each line; a later one of the same thing replaces the earlier one, as for a reader."""
    lines: dict[tuple[object, ...], str] = {}
    for line in path.read_bytes().splitlines():
        data = {key: value for key, value in json.loads(line).items() if key not in _CIRCUMSTANCES}
        if data.get("kind") in _OF_THE_MACHINE:
            continue
        if data.get("verdict") in (Verdict.CRASH, Verdict.TIMEOUT):
            data.pop("detail", None)
        row = json.dumps(data.get("circumstance"), sort_keys=True) if data.get("kind") == "row" else None
        lines[data.get("kind"), data.get("case"), data.get("check"), row] = json.dumps(data, sort_keys=True)
    return lines
