"""What checks there are, without importing any, because they import torch.

A command line that names a check that is not there fails at once, and whoever only plans (the list, pytest while it
collects) starts at once. It is written down in `checks/catalogue.json`; `python -m verifier.engine.catalogue` writes
it, and a test tells when that is due. It is believed only while the checks' sources are those of which it was made.
Checks of third parties are imported: what they are is known to them alone.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from verifier import checks, plugins
from verifier.engine.events import CheckInfo

FILE = Path(checks.__file__).with_name("catalogue.json")


def registered() -> tuple[CheckInfo, ...]:
    """Every check, in the order in which they run.

    Raises:
        ImportFailed: a third party's check raised at import.
    """
    known = None if plugins.names(checks.GROUP) else _written()
    return infos(checks.registered()) if known is None else known


def select(patterns: Sequence[str]) -> tuple[CheckInfo, ...]:
    """Those whose id matches one of the globs; all where there is none.

    Raises:
        UsageError: a pattern matches no check.
        ImportFailed: a third party's check raised at import.
    """
    return checks.chosen(registered(), patterns)


def require_known(patterns: Sequence[str]) -> None:
    """Make sure that each glob matches a check. Where third parties have some it is left to the workers, because what
    is imported for them may crash.

    Raises:
        UsageError: a pattern matches no check.
    """
    if patterns and not plugins.names(checks.GROUP):
        select(patterns)


def infos(some: Sequence[checks.Check]) -> tuple[CheckInfo, ...]:
    """The checks without their functions."""
    return tuple(CheckInfo(id=check.id, doc=check.doc, applies=check.applies) for check in some)


def write() -> None:
    """Write down the checks as they are now."""
    # Not those of third parties, which are looked for only where there are some.
    known = [check.to_json() for check in infos(checks.ours())]
    FILE.write_text(json.dumps({"sources": _sources(), "checks": known}, indent=1) + "\n", encoding="utf-8")


@functools.cache
def _written() -> tuple[CheckInfo, ...] | None:
    """What is written down; None where it is not of these sources."""
    try:
        found = json.loads(FILE.read_text(encoding="utf-8"))
        fresh = found["sources"] == _sources()
        return tuple(CheckInfo(**one) for one in found["checks"]) if fresh else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # whatever it is, it is no more than a shorter way


def _sources() -> str:
    """A digest of the modules that define the checks."""
    digest = hashlib.sha256()
    for path in sorted(FILE.parent.glob("*.py")):
        digest.update(f"{path.name}\n{path.read_text(encoding='utf-8')}\n".encode())
    return digest.hexdigest()


if __name__ == "__main__":
    write()
