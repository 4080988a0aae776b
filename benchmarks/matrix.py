"""Measure what a run of a family's matrix costs: start-up, time, CPU time, memory, and the share of each check.

    python benchmarks/matrix.py falcon --adapter bridge
    python benchmarks/matrix.py falcon --fuzz 100

The script starts `verifier run` as a user does (`verifier fuzz` with --fuzz), watches it from outside, and reads its
record. It prints the seconds until the first outcome, and their ratio to a bare import of torch and the model class;
the seconds, CPU time, memory, and cases per second and worker of the whole run; the mean and the slowest case; and the
most expensive checks with their shares. Further options (`--only`, `--where`, `--workers`, …) go to the run as they
are.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import processes

from verifier import family

DEAREST = 15  # checks that are printed without --every-check
# An interpreter takes a while to take torch down again, for which no run's first outcome waits.
_IMPORTS = "import os, torch, transformers; transformers.{architecture}; os._exit(0)"


def bare_import_seconds(reference: str, times: int = 3) -> float:
    """Measure the median seconds in which a new interpreter imports torch and the family's model class, and no more."""
    script = _IMPORTS.format(architecture=family.load(reference).architecture)
    command = [sys.executable, "-c", script]
    return statistics.median(processes.run(command, statuses=(0,)).seconds for _ in range(times))


def first_outcome_seconds(command: list[str], record: Path) -> float:
    """Measure the seconds from the start of a run until its first outcome is in the record, and end the run."""
    return processes.run(command, until=lambda: processes.has_outcome(record)).seconds


def read_lines(record: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the lines of a record, by their kind."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for text in record.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        found[line["kind"]].append(line)
    return found


def show_run(usage: processes.Usage, lines: dict[str, list[dict[str, Any]]]) -> None:
    """Print what the whole run cost."""
    workers = lines["run"][0]["workers"]
    valid = sum(case["valid"] for case in lines["case"])
    verdicts = Counter(outcome["verdict"] for outcome in lines["outcome"])
    print(f"{usage.seconds:9.2f} s    wall time of {len(lines['case']):,} cases, {valid:,} of them valid")
    print(f"{usage.cpu_seconds:9.2f} s    CPU time of all its processes")
    print(f"{len(lines['case']) / usage.seconds / workers:9.2f}      cases per second and worker ({workers} workers)")
    print(f"{usage.bytes / 2**20:9,.0f} MiB  memory at most, of all its processes together")
    print(f"{verdicts.total():9,}      outcomes: {', '.join(f'{n:,} {verdict}' for verdict, n in verdicts.items())}")
    if lines["found"]:
        print(f"{len(lines['found']):9,}      distinct failures, each shrunk")


def show_cases(lines: dict[str, list[dict[str, Any]]], most: int | None) -> None:
    """Print how long a case takes, and the share of each check."""
    cases = [done["seconds"] for done in lines["done"]]
    total = sum(cases)
    print(f"{total / len(cases):9.3f} s    a mean case; the slowest took {max(cases):.3f} s")
    by_check: dict[str, list[float]] = defaultdict(list)
    for outcome in lines["outcome"]:
        by_check[outcome["check"]].append(outcome["seconds"])
    print(f"\n{'check':28} {'cases':>6} {'mean ms':>9} {'share':>6}")
    for check, seconds in sorted(by_check.items(), key=lambda item: -sum(item[1]))[:most]:
        mean = 1000 * statistics.mean(seconds)
        print(f"{check:28} {len(seconds):6,} {mean:9.2f} {sum(seconds) / total:6.1%}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family")
    parser.add_argument("--fuzz", type=int, metavar="N", help="a campaign of so many cases in the place of the matrix")
    parser.add_argument("--every-check", action="store_true", help="not the dearest checks alone")
    options, rest = parser.parse_known_args(arguments)
    if options.fuzz:
        command = [*processes.VERIFIER, "fuzz", options.family, *rest, "--max-examples", str(options.fuzz)]
    else:
        command = [*processes.VERIFIER, "run", options.family, *rest, "--no-baseline"]
    with tempfile.TemporaryDirectory() as folder:
        bare = bare_import_seconds(options.family)
        record = Path(folder, "first", "record.jsonl")
        first = first_outcome_seconds([*command, "--out", str(record.parent)], record)
        print(
            f"{first:9.2f} s    until the first outcome, {first / bare:.2f} times a bare import of torch and HF's class"
        )
        usage = processes.run([*command, "--out", str(Path(folder, "whole"))])
        lines = read_lines(Path(folder, "whole", "record.jsonl"))
    show_run(usage, lines)
    show_cases(lines, None if options.every_check else DEAREST)


if __name__ == "__main__":
    main()
