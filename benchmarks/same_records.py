"""Compare two records outcome by outcome: verdict, first place, measured error and bound of every (case, check).

    python benchmarks/same_records.py BEFORE AFTER

BEFORE and AFTER are a record.jsonl each, or a folder each: then records with the same path in both are compared. The
script prints how many outcomes were compared, how many differ, and the first of these. Its exit status is 1 if an
outcome differs or is in one record only, or if there is nothing to compare. It reads the JSON without the harness, so
it reads records of any version.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

COMPARED = ("verdict", "where", "measured", "bound")
FIRST = 5  # differences that are printed

Outcomes = dict[tuple[str, ...], tuple[Any, ...]]


def read_outcomes(path: Path) -> Outcomes:
    """Read what is compared of each outcome, by record, case and check; of several outcomes the last one counts."""
    records = [path] if path.is_file() else sorted(path.rglob("record.jsonl"))
    found: Outcomes = {}
    for record in records:
        name = "" if record == path else str(record.relative_to(path))
        for text in record.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if line["kind"] == "outcome":
                found[name, line["case"], line["check"]] = tuple(line.get(field) for field in COMPARED)
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args(arguments)
    before, after = read_outcomes(options.before), read_outcomes(options.after)
    differing = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    print(f"{len(before.keys() & after.keys()):,} outcomes compared, {len(differing):,} differ or are in one alone")
    for key in differing[:FIRST]:
        print(" ".join(part for part in key if part))
        for name, outcomes in (("before", before), ("after", after)):
            found = outcomes.get(key)
            said = "is not there" if found is None else dict(zip(COMPARED, found, strict=True))
            print(f"    {name}: {said}")
    return 1 if differing or not before else 0


if __name__ == "__main__":
    sys.exit(main())
