"""`verifier repro`: run one case of a record again, with every check that it failed, or write it down as a script."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from verifier import adapter as adapters
from verifier import record, scripts
from verifier.analysis.bugs import minimal_case
from verifier.cases.replaying import explain_circumstance, narrow
from verifier.cases.spec import CaseSpec
from verifier.checks import LAST
from verifier.engine import inline
from verifier.engine.debugger import Debugger
from verifier.engine.events import OutcomeReady, RunFinished, RunStarted, Stop, WorkerLost
from verifier.engine.limits import Limits
from verifier.engine.plan import Plan
from verifier.engine.run import run as run_plan
from verifier.errors import ExitStatus, UsageError
from verifier.judging.outcome import Outcome, Verdict
from verifier.output import console, text
from verifier.record import files
from verifier.record.case_description import config_difference
from verifier.report import terminal
from verifier.requests.folders import REPORTS

STANDARD_OUTPUT = Path("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproTarget:
    """What an id stands for.

    Attributes:
        record: the record in which the id was found.
        spec: the case; of a fingerprint the smallest case that has it, in its plainest circumstance alone where that is
            known to be enough.
        outcomes: the recorded outcomes that are compared: all of a case, or the one of a fingerprint.
        checks: the ids of the checks to run.
        fingerprint: the id, if it is a fingerprint.
        caveat: what became of it when it was run again alone, if that is no failure or another one.
        others: how many older records also know the id, if no record was named.
    """

    record: record.Record
    spec: CaseSpec
    outcomes: tuple[Outcome, ...]
    checks: tuple[str, ...]
    fingerprint: str | None
    caveat: str | None = None
    others: int = 0


def repro(identity: str, path: Path | None, adapter: str | None, *, pdb: bool = False) -> ExitStatus:
    """Run the case of an id, or the smallest case of a fingerprint, again, under the limits of its record.

    Args:
        identity: a case's id or a fingerprint.
        path: the record that knows the id; None for the newest one that does.
        adapter: the adapter to run it with; None for the record's.
        pdb: whether to run it in this process, and to stop in the debugger at each failure.

    Returns:
        `DIFFERS` if anything fails, `INCONCLUSIVE` if nothing ran.

    Raises:
        UsageError: no record knows the id.
        VerifierError: the harness, or code from outside at its import, failed.
    """
    target = find(identity, path)
    reference = adapter or target.record.run.adapter
    adapters.require_findable(reference)
    limits = target.record.run.limits
    plan = Plan(
        family=target.spec.family,
        adapter=reference,
        specs=(target.spec,),
        only=target.checks,
        device=target.spec.device,
        limits=Limits(seconds=limits.get("timeout"), bytes=limits.get("memory")),
    )
    out = console.standard_output()
    _show_case(target, reference, out)
    outcomes: dict[str, Outcome] = {}
    for event in inline.run(plan, debugger=Debugger()) if pdb else run_plan(plan, workers=1):
        match event:
            case RunStarted(adapter_name=name, adapter_version=version):
                out.print(Text(f"adapter  {text.line(name)} {text.line(version)}"))
            case WorkerLost(reason=reason):
                out.print(Text(f"the process {text.line(reason)}; the case is run once more"))
            case OutcomeReady(outcome=outcome):
                before = outcomes.get(outcome.check)
                if before is None or before.verdict is not outcome.verdict:
                    terminal.show_outcome(outcome, out)
                outcomes[outcome.check] = outcome
            case RunFinished(stop=Stop.INTERRUPTED):
                return ExitStatus.INTERRUPTED
    status, conclusion = _conclude(target, outcomes.values())
    out.print(Text(conclusion, style="bold"))
    return status


def _conclude(target: ReproTarget, outcomes: Collection[Outcome]) -> tuple[ExitStatus, str]:
    """Compare the outcomes with the recorded ones: the exit status, and a sentence for the user."""
    verdicts = {outcome.verdict for outcome in outcomes}
    failing = {outcome.fingerprint for outcome in outcomes if outcome.verdict.gates}
    recorded = {outcome.fingerprint for outcome in target.outcomes if outcome.verdict.gates}
    wanted = {target.fingerprint} if target.fingerprint else recorded
    gating = [outcome for outcome in target.outcomes if outcome.verdict.gates]
    if failing & wanted or any(one.fails_like(before) for one in outcomes for before in gating):
        return ExitStatus.DIFFERS, "it still fails"
    if failing:
        return ExitStatus.DIFFERS, "it fails, in another way" if wanted else "it fails, as it did not in the record"
    if Verdict.UPSTREAM in verdicts:
        return ExitStatus.CONFORMS, "Hugging Face still disagrees with itself; the adapter is not to blame"
    if verdicts - {Verdict.SKIP}:
        return ExitStatus.CONFORMS, "it does not fail here"
    return ExitStatus.INCONCLUSIVE, "nothing ran"


def write(
    identity: str, path: Path | None, adapter: str | None, *, script: Path | None, pytest: Path | None
) -> ExitStatus:
    """Write a Python file that shows a failure again, instead of running the case.

    Args:
        identity: a case's id or a fingerprint.
        path: the record that knows the id; None for the newest one that does.
        adapter: the adapter that the file uses; None for the record's.
        script: the file that is written to be run; `-` is the standard output.
        pytest: the file that is written as a test.

    Raises:
        UsageError: no record knows the id, a file cannot be written, or the failure ended its process.
        VerifierError: the family or the adapter failed at its import.
    """
    files_wanted = [(file, as_test) for file, as_test in ((script, False), (pytest, True)) if file is not None]
    if script == pytest:
        raise UsageError(f"--script and --pytest are two files, not both {str(script)!r}")
    for file, _ in files_wanted:
        if file.is_dir() or not file.parent.is_dir():
            what = "a folder" if file.is_dir() else f"in {str(file.parent)!r}, which is no folder"
            raise UsageError(f"cannot write {str(file)!r}: it is {what}")
    target = find(identity, path)
    reference = adapter or target.record.run.adapter
    adapters.require_findable(reference)
    for outcome in target.outcomes:
        if outcome.check == LAST and outcome.verdict.gates:
            raise UsageError(
                f"no script can show what a whole case leaves behind; `verifier repro {identity}` runs it again"
            )
        if outcome.verdict in (Verdict.CRASH, Verdict.TIMEOUT):
            # A process that dies tells nothing, not even that it failed.
            raise UsageError(
                f"no script can show a {outcome.verdict}; `verifier repro {identity}` runs it in a process of its own"
            )
    for file, as_test in files_wanted:
        written = scripts.write(target.spec, reference, target.outcomes, target.record.run, pytest=as_test)
        if file == STANDARD_OUTPUT:
            sys.stdout.write(written.source)
        else:
            files.write_report(written.source, file)
            print(text.line(str(file)))
        if written.why_harness is not None:
            print(f"verifier: it needs `verifier`: {written.why_harness}", file=sys.stderr)
    return ExitStatus.CONFORMS


def find(identity: str, path: Path | None) -> ReproTarget:
    """Find the case or the fingerprint of an id, in a record or in the newest record under `reports/` that knows it.

    Args:
        identity: a case's id or a fingerprint.
        path: the record that knows the id; None for the newest one that does.

    Returns:
        What the record has of the id.

    Raises:
        UsageError: nothing has that id, or the record cannot be read.
    """
    known: list[str] = []
    targets: list[ReproTarget] = []
    records = 0
    for one in _records(path):
        records += 1
        target = _find_in(one, identity)
        if target is not None:
            targets.append(target)
        known += [*one.cases, *(entry.fingerprint for entry in one.entries if entry.fingerprint)]
    if targets:
        return replace(targets[0], others=len(targets) - 1)
    if not records:
        raise UsageError(f"there is no record under {REPORTS}/ here: name one, or run `verifier run` first")
    close = difflib.get_close_matches(identity, dict.fromkeys(known), n=3, cutoff=0.5)
    hint = f"; near it: {', '.join(close)}" if close else ""
    place = str(path) if path else text.plural(records, "record") + f" under {REPORTS}/"
    raise UsageError(f"no case and no fingerprint {identity!r} in {place}{hint}")


def _records(path: Path | None) -> Iterator[record.Record]:
    """Read a record, or all records under `reports/`, the newest first."""
    if path is not None:
        yield record.read(path)
        return
    files = sorted(REPORTS.glob(f"*/{record.FILE}"), key=lambda file: (-file.stat().st_mtime, file))
    for file in files:
        try:
            yield record.read(file)
        except UsageError as error:
            # Another run's broken record must not keep this id from being found.
            print(f"verifier: left aside: {error}", file=sys.stderr)


def _find_in(one: record.Record, identity: str) -> ReproTarget | None:
    if identity in one.cases:
        outcomes = _outcomes_of(one, identity)
        checks = tuple(outcome.check for outcome in outcomes)
        return ReproTarget(record=one, spec=one.cases[identity], outcomes=outcomes, checks=checks, fingerprint=None)
    failing = [entry for entry in one.entries if entry.fingerprint == identity]
    if not failing:
        return None
    spec = minimal_case(one, identity, {entry.case for entry in failing})
    outcome = next(entry.outcome for entry in failing if entry.case == spec.id)
    confirmed = one.confirmations.get((identity, spec.id))
    if confirmed is not None and confirmed.narrowed:
        spec = narrow(spec, outcome.check, outcome.circumstance) or spec
    caveat = None if confirmed is None else confirmed.caveat
    # What a case leaves behind may come of any of its checks.
    needed = _outcomes_of(one, spec.id) if outcome.check == LAST else (outcome,)
    checks = tuple(one.check for one in needed)
    return ReproTarget(record=one, spec=spec, outcomes=(outcome,), checks=checks, fingerprint=identity, caveat=caveat)


def _outcomes_of(one: record.Record, case: str) -> tuple[Outcome, ...]:
    return tuple(entry.outcome for entry in one.entries if entry.case == case)


def _show_case(target: ReproTarget, reference: str, out: Console) -> None:
    spec = target.spec
    label = f", {text.line(spec.label)}" if spec.label else ""
    out.print(Text(f"case {spec.id} of {target.record.run.family} × {reference}{label}", style="bold"))
    if target.others:
        newest = f"{target.record.path.parent}, the newest of {target.others + 1} that know this id"
        out.print(Text(f"record   {text.line(newest)}"))
    out.print(Text(f"config   {text.config(config_difference(spec.config, target.record.run)) or 'the plainest one'}"))
    out.print(Text(f"inputs   seed {spec.seed}, {spec.batch} × {spec.length} tokens on {spec.device}"))
    for sentence in explain_circumstance(spec.circumstances) if target.fingerprint else ():
        out.print(Text(f"when     {sentence}"))
    if target.caveat:
        out.print(Text(f"alone    {target.caveat}"))
    if not spec.valid:
        out.print(Text(f"refused  {text.line(spec.reason)}"))
