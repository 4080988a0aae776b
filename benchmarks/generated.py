"""Compare the generated self-test with the matrix: how long each takes, and their ratio.

    python benchmarks/generated.py falcon --adapter bridge --workers 2

The script runs the adapter's whole matrix and then the generated self-test on the same circumstances, as a user does,
and prints the seconds and the CPU seconds of both with the ratios, and the last line of the self-test: how many mutants
and rows there were. With --quick it is the quick run and its mutants of one value. The exit status is 1 if a mutant
survives.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import processes


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family")
    options, rest = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        said = Path(name) / "said.txt"
        matrix = processes.run([*processes.VERIFIER, "run", options.family, *rest, "--no-baseline", "--out", name])
        mutants = processes.run([*processes.VERIFIER, "selftest", options.family, "--generated", *rest], output=said)
        lines = said.read_text(encoding="utf-8").splitlines()
    print(f"{'':12} {'self-test':>10} {'matrix':>10} {'ratio':>7}")
    for unit, ours, theirs in (
        ("seconds", mutants.seconds, matrix.seconds),
        ("CPU seconds", mutants.cpu_seconds, matrix.cpu_seconds),
    ):
        print(f"{unit:12} {ours:10.0f} {theirs:10.0f} {ours / theirs:7.2f}")
    print(*lines[-1:], sep="\n")
    return int(any("SURVIVED" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
