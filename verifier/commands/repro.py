"""`verifier repro`: one case again, with everything that its checks have to say."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from verifier import adapter as adapters
from verifier import record, scripts
from verifier.analysis.bugs import minimal_case
from verifier.cases.spec import CaseSpec
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
        record: where it was found.
        spec: the case; for a fingerprint the smallest of its cases.
        outcomes: those of the checks to run: of a case all that it had, of a fingerprint its own.
        fingerprint: the id, if it is one.
        others: how many older records know the id too, where none was named.
    """

    record: record.Record
    spec: CaseSpec
    outcomes: tuple[Outcome, ...]
    fingerprint: str | None
    others: int = 0


def repro(identity: str, path: Path | None, adapter: str | None, *, pdb: bool = False) -> ExitStatus:
    """Run the case of that id, or the smallest case of that fingerprint, again, under the limits that it was under.

    Args:
        identity: a case's id or a fingerprint.
        path: the record that knows it; None for the newest one.
        adapter: another one than the record's.
        pdb: whether to run it in this process, and to stop in the debugger at each failure.

    Raises:
        UsageError: no record knows the id.
        VerifierError: the harness, or code from outside at its import, failed.
    """
    found = find(identity, path)
    reference = adapter or found.record.run.adapter
    adapters.require_findable(reference)
    limits = found.record.run.limits
    plan = Plan(
        family=found.spec.family,
        adapter=reference,
        specs=(found.spec,),
        only=tuple(outcome.check for outcome in found.outcomes),
        device=found.spec.device,
        limits=Limits(seconds=limits.get("timeout"), bytes=limits.get("memory")),
    )
    out = console.standard_output()
    _show_case(found, reference, out)
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
    gating = [outcome for outcome in outcomes.values() if outcome.verdict.gates]
    known = {one.fingerprint for one in found.outcomes if one.verdict.gates}
    asked_for = {found.fingerprint} if found.fingerprint else known
    fails = "it fails, in another way" if asked_for else "it fails, as it did not in the record"
    if any(outcome.fingerprint in asked_for for outcome in gating):
        fails = "it still fails"
    return _conclude([outcome.verdict for outcome in outcomes.values()], fails, out)


def write(
    identity: str, path: Path | None, adapter: str | None, *, script: Path | None, pytest: Path | None
) -> ExitStatus:
    """Write a Python file that shows again what failed, instead of running it.

    Args:
        identity: a case's id or a fingerprint.
        path: the record that knows it; None for the newest one.
        adapter: another one than the record's.
        script: where the file goes that can be run; `-` is the standard output.
        pytest: where the test goes.

    Raises:
        UsageError: no record knows the id, a file cannot be written there, or the failure ended its process.
        VerifierError: the family or the adapter failed at its import.
    """
    targets = [(file, as_test) for file, as_test in ((script, False), (pytest, True)) if file is not None]
    if len({file for file, _ in targets}) < len(targets):
        raise UsageError(f"--script and --pytest are two files, not both {str(script)!r}")
    for file, _ in targets:
        if file.is_dir() or not file.parent.is_dir():
            what = "a folder" if file.is_dir() else f"in {str(file.parent)!r}, which is no folder"
            raise UsageError(f"cannot write {str(file)!r}: it is {what}")
    found = find(identity, path)
    reference = adapter or found.record.run.adapter
    adapters.require_findable(reference)
    deadly = [one for one in found.outcomes if one.verdict in (Verdict.CRASH, Verdict.TIMEOUT)]
    if deadly:
        # A process that dies tells nothing, not even that it failed.
        raise UsageError(
            f"no script can show a {deadly[0].verdict}; `verifier repro {identity}` runs it in a process of its own"
        )
    for file, as_test in targets:
        written = scripts.write(found.spec, reference, found.outcomes, found.record.run, pytest=as_test)
        if file == STANDARD_OUTPUT:
            sys.stdout.write(written.source)
        else:
            files.write_report(written.source, file)
            print(text.line(str(file)))
        if written.why_harness is not None:
            print(f"verifier: it needs `verifier`: {written.why_harness}", file=sys.stderr)
    return ExitStatus.CONFORMS


def find(identity: str, path: Path | None) -> ReproTarget:
    """The case or fingerprint of that id in a record; without one in the newest record that knows it.

    Raises:
        UsageError: nothing has that id, or the record cannot be read.
    """
    known: list[str] = []
    knowing: list[ReproTarget] = []
    looked = 0
    for one in _records(path):
        looked += 1
        found = _in(one, identity)
        if found is not None:
            knowing.append(found)
        known += [*one.cases, *(entry.fingerprint for entry in one.entries if entry.fingerprint)]
    if knowing:
        return replace(knowing[0], others=len(knowing) - 1)
    if not looked:
        raise UsageError(f"there is no record under {REPORTS}/ here: name one, or run `verifier run` first")
    close = difflib.get_close_matches(identity, dict.fromkeys(known), n=3, cutoff=0.5)
    hint = f"; near it: {', '.join(close)}" if close else ""
    place = str(path) if path else text.plural(looked, "record") + f" under {REPORTS}/"
    raise UsageError(f"no case and no fingerprint {identity!r} in {place}{hint}")


def _records(path: Path | None) -> Iterator[record.Record]:
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


def _in(one: record.Record, identity: str) -> ReproTarget | None:
    if identity in one.cases:
        outcomes = tuple(entry.outcome for entry in one.entries if entry.case == identity)
        return ReproTarget(record=one, spec=one.cases[identity], outcomes=outcomes, fingerprint=None)
    failing = [entry for entry in one.entries if entry.fingerprint == identity]
    if not failing:
        return None
    spec = minimal_case(one, identity, {entry.case for entry in failing})
    outcome = next(entry.outcome for entry in failing if entry.case == spec.id)
    return ReproTarget(record=one, spec=spec, outcomes=(outcome,), fingerprint=identity)


def _show_case(found: ReproTarget, reference: str, out: Console) -> None:
    spec = found.spec
    label = f", {text.line(spec.label)}" if spec.label else ""
    out.print(Text(f"case {spec.id} of {found.record.run.family} × {reference}{label}", style="bold"))
    if found.others:
        newest = f"{found.record.path.parent}, the newest of {found.others + 1} that know this id"
        out.print(Text(f"record   {text.line(newest)}"))
    out.print(Text(f"config   {text.config(config_difference(spec.config, found.record.run)) or 'the plainest one'}"))
    out.print(Text(f"inputs   seed {spec.seed}, {spec.batch} × {spec.length} tokens on {spec.device}"))
    if not spec.valid:
        out.print(Text(f"refused  {text.line(spec.reason)}"))


def _conclude(verdicts: Iterable[Verdict], fails: str, out: Console) -> ExitStatus:
    """Say what it came to.

    Args:
        verdicts: of each check that was run.
        fails: what a failure among them means.
        out: where to say it.
    """
    seen = set(verdicts)
    if any(verdict.gates for verdict in seen):
        status, said = ExitStatus.DIFFERS, fails
    elif Verdict.UPSTREAM in seen:
        status, said = ExitStatus.CONFORMS, "Hugging Face still disagrees with itself; the adapter is not to blame"
    elif seen - {Verdict.SKIP}:
        status, said = ExitStatus.CONFORMS, "it does not fail here"
    else:
        status, said = ExitStatus.INCONCLUSIVE, "nothing ran"
    out.print(Text(said, style="bold"))
    return status
