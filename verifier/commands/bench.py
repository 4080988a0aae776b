"""`verifier bench`: what a run costs, measured from outside and from inside, in one command."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from verifier import adapter
from verifier.bench import against, costs, fuzzed, growth, sample, startup, whole
from verifier.bench.curves import Curve
from verifier.bench.figures import Figures
from verifier.cases.spec import WORKING_DTYPES, CaseSpec
from verifier.engine.environment import versions
from verifier.engine.interrupts import Interrupts
from verifier.errors import ExitStatus, Inconclusive, UsageError, VerifierError
from verifier.output import pipe
from verifier.record import files
from verifier.requests import cases

CASES = 12  # valid cases in the sample, where nothing was said


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What the user asked for, as on the command line; empty where nothing was said.

    Attributes:
        family: reference.
        adapter: reference.
        only: globs that select checks.
        where: values that flags must have.
        everywhere: every check on every case.
        workers: processes of the run of the whole matrix.
        singly: how many valid cases are measured singly, at least.
        every_check: whether every check is shown, and not the dearest alone.
        against: the command of another program on the same cases.
        growth: whether the curves are measured.
        fuzz: how many cases of a fuzzing campaign are run; 0 for none.
        json: the file into which the figures go, too.
    """

    family: str
    adapter: str = adapter.DEFAULT
    only: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    everywhere: bool = False
    workers: int | None = None
    singly: int = CASES
    every_check: bool = False
    against: str | None = None
    growth: bool = False
    fuzz: int = 0
    json: Path | None = None


def bench(options: BenchOptions) -> ExitStatus:
    """Measure and print; whatever the figures are, the status says that they were measured.

    Raises:
        UsageError: something named on the command line is wrong.
        Inconclusive: there is no valid case.
        VerifierError: the harness, or code from outside at its import, failed.
    """
    reference = options.adapter
    adapter.require_findable(reference)
    specs = cases.from_matrix(
        options.family,
        seed=0,
        dtypes=WORKING_DTYPES,
        device="cpu",
        where=options.where,
        preset=None,
        checkpoint=None,
        everywhere=options.everywhere,
    )
    if not any(spec.valid for spec in specs):
        raise Inconclusive("HF refuses every case that is asked for, so there is nothing to measure")
    if options.against is not None:
        against.parse(options.against)
    if options.json is not None:
        _require_writable(options.json)
    with Interrupts() as interrupts:
        interrupts.immediate = True  # what runs is ended on the way out, and nothing is lost but time
        figures, unmeasured = _measure(options, reference, specs)
    from verifier.output import console
    from verifier.report import bench as page  # what is wrong with the command line is said before a printer is there

    try:
        page.show(figures, console.standard_output(), every_check=options.every_check)
        sys.stdout.flush()
    except BrokenPipeError:
        pipe.discard(sys.stdout)
    # The terminal has heard what was measured, whatever was not.
    if options.json is not None:
        files.put(json.dumps(figures.to_json(), indent=1) + "\n", options.json)
    if unmeasured is not None:
        raise unmeasured
    return ExitStatus.CONFORMS


def _measure(
    options: BenchOptions, reference: str, specs: tuple[CaseSpec, ...]
) -> tuple[Figures, VerifierError | None]:
    """The figures, and why the other program has none, where it could not be timed."""
    checks = [word for glob in options.only for word in ("--only", glob)]
    common = ["--adapter", reference, *checks]
    if options.workers is not None:
        common += ["--workers", str(options.workers)]
    narrowing_of_fields = [word for text in options.where for word in ("--where", text)]
    narrowing = [*narrowing_of_fields]
    narrowing += ["--everywhere"] if options.everywhere else []

    _say("the bare imports")
    imports = startup.imports(options.family)
    _say(f"the run of {len(specs):,} cases")
    run = whole.run(options.family, [*common, *narrowing])
    strata, refused = sample.strata(specs, options.singly), sample.refused(specs, options.singly)
    taken = tuple(spec for stratum in strata for spec in stratum.cases)
    _say(f"{len(taken)} cases singly")
    found = costs.measure(options.family, reference, options.only, strata, refused)
    beside, unmeasured = None, None
    if options.against is not None:
        _say("the other program")
        try:
            beside = against.run(options.against, taken, options.family, common)
        except VerifierError as error:  # it is told at the end: minutes of measuring are not thrown away for it
            unmeasured = error
    curves: tuple[Curve, ...] = ()
    if options.growth:
        _say("growth")
        curves = growth.curves(options.family, reference, options.only, specs)
    campaign = None
    if options.fuzz:
        _say("a fuzzing campaign")
        campaign = fuzzed.run(options.family, [*common, *narrowing_of_fields], options.fuzz)
    figures = Figures(
        family=options.family,
        adapter=reference,
        narrowed=" ".join([*checks, *narrowing]),
        versions=versions(reference),
        startup=startup.StartUp(imports=imports, first_outcome=run.first_outcome),
        whole=run,
        costs=found,
        against=beside,
        curves=curves,
        fuzzed=campaign,
    )
    return figures, unmeasured


def _say(what: str) -> None:
    """On standard error, because it takes minutes in all."""
    print(f"bench: measuring {what}", file=sys.stderr, flush=True)


def _require_writable(path: Path) -> None:
    """Before minutes are spent."""
    try:
        path.open("a").close()
    except OSError as error:
        raise UsageError(f"--json: cannot write {str(path)!r}: {error.strerror}") from error
