"""Compare a quick run with the whole matrix: what both plan, and, if asked, what both find and how long it takes.

    python benchmarks/quick.py falcon
    python benchmarks/quick.py falcon --run --adapter bridge --workers 2

The script prints of both plans the cases, the outcomes, the circumstances and what these cost in units of the plainest
one, with the ratios. With --run it runs both as a user does, one after the other, and prints the seconds, how many
places of how many checks are found wrong, their ratios, and what the whole run alone finds; further options go to the
two runs as they are.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import processes

from verifier import family
from verifier.analysis.bugs import find_bugs
from verifier.canonical import template_of
from verifier.cases import matrix
from verifier.cases.circumstances import PLAIN
from verifier.cases.dealing import cost
from verifier.engine import catalogue
from verifier.engine.plan import count_outcomes, drop_repeated
from verifier.judging.wording import circumstance_words
from verifier.record.reading import read


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


Found = Mapping[tuple[str, str], str]
"""By check and place, the circumstance in which a failure was told, in words."""


def measured(reference: str, options: Sequence[str], *, quick: bool) -> tuple[float, Found]:
    """Run the matrix or a part of it, and return the seconds and what was found.

    Args:
        reference: the family.
        options: of the run.
        quick: whether it is a quick one, and not of the whole matrix.
    """
    command = [*processes.VERIFIER, "run", reference, *options, *["--quick"] * quick, "--no-baseline", "--out"]
    with tempfile.TemporaryDirectory() as name:
        seconds = processes.run([*command, name]).seconds
        outcomes = [bug.entry.outcome for bug in find_bugs(read(Path(name)), upstream=False)]
    return seconds, {
        (one.check, template_of(one.where or one.exception or "")): circumstance_words(one.circumstance or {})
        for one in outcomes
    }


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
        (quick, few), (whole, all_found) = (measured(options.family, rest, quick=quick) for quick in (True, False))
        show({"seconds": quick, "found": len(few)}, {"seconds": whole, "found": len(all_found)})
        for check, place in sorted(all_found.keys() - few.keys()):
            print(f"only the whole run: {check} at {place} {all_found[check, place]}".rstrip())


if __name__ == "__main__":
    main()
