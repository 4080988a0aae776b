"""Compare the time of this checkout with that of another commit, or of another program, on the same cases.

    python benchmarks/against.py falcon --commit HEAD~1 --adapter bridge
    python benchmarks/against.py falcon --command "other-harness {cases}" --cases 40

The two programs run in turns: ours, theirs, ours, theirs, …. The script prints the median seconds of each, start-up
included, and the ratio of ours to theirs. `{cases}` in a command stands for the path of a file with a case's JSON on
each line; without it the path comes last. Options that are not named here go to both `verifier run` commands.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import processes

from verifier import family
from verifier.cases import matrix
from verifier.cases.spec import CaseSpec

ROOT = Path(__file__).parent.parent
CASES = "{cases}"


def sample_cases(reference: str, wanted: int | None) -> list[CaseSpec]:
    """Choose a number of cases, evenly spread over the family's matrix; all of them if `wanted` is None."""
    specs = matrix.cases(family.load(reference), reference)
    return specs if wanted is None else specs[:: max(1, len(specs) // wanted)][:wanted]


def fill_command(command: str, cases: Path) -> list[str]:
    """Split a command into words, and put the path of the cases in its place, or at the end."""
    words = shlex.split(command)
    if any(CASES in word for word in words):
        return [word.replace(CASES, str(cases)) for word in words]
    return [*words, str(cases)]


def imports_of(checkout: Path) -> dict[str, str]:
    """Make the environment in which Python imports the harness of a checkout, whatever is installed."""
    return {"PYTHONPATH": os.pathsep.join([str(checkout), str(checkout / "adapters")])}


def check_out(commit: str, folder: Path) -> Path:
    """Write the files of a commit into a folder, of which git knows nothing."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    place = folder / "checkout"
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(place, filter="data")
    return place


def time_in_turns(
    ours: Sequence[str], theirs: Sequence[str], turns: int, *, checkout: Path | None
) -> tuple[list[float], list[float]]:
    """Run the two commands in turns, and return the seconds of each turn of ours and of theirs."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        found[0].append(processes.run(ours, environment=imports_of(ROOT)).seconds)
        found[1].append(processes.run(theirs, environment=checkout and imports_of(checkout)).seconds)
        print(f"ours {found[0][-1]:.2f} s, theirs {found[1][-1]:.2f} s", flush=True)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family")
    other = parser.add_mutually_exclusive_group(required=True)
    other.add_argument("--commit", help="of this repository")
    other.add_argument("--command", help="another program")
    parser.add_argument("--cases", type=int, metavar="N", help="so many of the matrix; default: all")
    parser.add_argument("--turns", type=int, default=3)
    options, rest = parser.parse_known_args(arguments)
    specs = sample_cases(options.family, options.cases)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = folder / "cases.jsonl"
        cases.write_text("".join(json.dumps(spec.to_json()) + "\n" for spec in specs))
        # A commit from before a change of the case's form reads its own cases alone.
        chosen = [] if options.cases is None else ["--cases", str(cases)]
        run = [*processes.VERIFIER, "run", options.family, *rest, "--no-baseline", *chosen, "--out"]
        checkout = None if options.commit is None else check_out(options.commit, folder)
        theirs = fill_command(options.command, cases) if checkout is None else [*run, str(folder / "theirs")]
        found = time_in_turns([*run, str(folder / "ours")], theirs, options.turns, checkout=checkout)
    ours, others = map(statistics.median, found)
    print(f"{len(specs):,} cases, median of {options.turns} turns: ours {ours:.2f} s, theirs {others:.2f} s")
    print(f"ours over theirs: {ours / others:.2f}")


if __name__ == "__main__":
    sys.exit(main())
