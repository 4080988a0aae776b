"""Compare a quick run with one of the whole matrix: what both plan, and, if asked, how long both take.

    python benchmarks/quick.py falcon
    python benchmarks/quick.py falcon --run --adapter bridge --workers 2

The script prints of both plans the cases, the outcomes, the circumstances and what these cost in units of the plainest
one, with the ratios. With --run it runs both as a user does, one after the other, and prints the seconds and their
ratio; further options go to the two runs as they are.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import processes

from verifier import family
from verifier.cases import matrix
from verifier.cases.circumstances import PLAIN
from verifier.cases.dealing import cost
from verifier.engine import catalogue
from verifier.engine.plan import count_outcomes, drop_repeated


def planned(reference: str, *, quick: bool) -> dict[str, float]:
    """Add up what a run plans, by what is counted.

    Args:
        reference: the family.
        quick: whether the run is a quick one, and not of the whole matrix.
    """
    specs = drop_repeated(matrix.cases(family.load(reference), reference, quick=quick))
    rows = [PLAIN | circumstance for spec in specs for circumstance in spec.circumstances]
    return {
        "valid cases": sum(spec.valid for spec in specs),
        "refused cases": sum(not spec.valid for spec in specs),
        "outcomes": count_outcomes(specs, catalogue.registered()),
        "circumstances": len(rows),
        "their cost": sum(map(cost, rows)),
    }


def measured(reference: str, options: Sequence[str]) -> tuple[float, float]:
    """Run the quick and the whole matrix, and return the seconds of each.

    Args:
        reference: the family.
        options: of both runs.
    """
    command = [*processes.VERIFIER, "run", reference, *options, "--no-baseline", "--out"]
    with tempfile.TemporaryDirectory() as name:
        quick = processes.run([*command, str(Path(name, "quick")), "--quick"]).seconds
        whole = processes.run([*command, str(Path(name, "whole"))]).seconds
    return quick, whole


def show(quick: Mapping[str, float], whole: Mapping[str, float]) -> None:
    """Print what was counted of both runs, and the ratios."""
    print(f"{'':16} {'quick':>12} {'whole':>12} {'ratio':>7}")
    for name, number in quick.items():
        ratio = f"{number / whole[name]:7.1%}" if whole[name] else f"{'–':>7}"
        print(f"{name:16} {number:12,.6g} {whole[name]:12,.6g} {ratio}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family")
    parser.add_argument("--run", action="store_true", help="run both, too")
    options, rest = parser.parse_known_args(arguments)
    if rest and not options.run:
        parser.error(f"{' '.join(rest)}: options of a run need --run")
    show(planned(options.family, quick=True), planned(options.family, quick=False))
    if options.run:
        quick, whole = measured(options.family, rest)
        show({"seconds": quick}, {"seconds": whole})


if __name__ == "__main__":
    main()
