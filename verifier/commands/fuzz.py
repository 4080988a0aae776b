"""`verifier fuzz`: a campaign over the family's whole config space, a record, a report, and what it found kept."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verifier import family, record
from verifier.cases.spec import CaseSpec
from verifier.commands.run import show, show_rest
from verifier.engine import recording
from verifier.engine.asking import asking_hugging_face
from verifier.engine.environment import usable_cores, versions
from verifier.engine.events import CaseStarted, RunFinished, Stop
from verifier.engine.limits import TINY_BYTES, TINY_SECONDS, Limits
from verifier.engine.plan import Plan
from verifier.engine.run import run as run_plan
from verifier.errors import ExitStatus, UsageError
from verifier.fuzz import kept
from verifier.record.fuzz_finding import ReplayedFailure, ShrunkFailure, StoredFailure
from verifier.reference.acceptance import refusal_of
from verifier.requests.cases import parse_where
from verifier.requests.folders import REPORTS, folder_name
from verifier.requests.planning import make_first_line, require_known
from verifier.requests.request import RunRequest

if TYPE_CHECKING:
    from verifier.fuzz.fields import Space
    from verifier.fuzz.ledger import Event as CampaignEvent
    from verifier.fuzz.request import CampaignRequest

# The largest cases of the space, with all interventions and their gradients, are a hundred times the matrix's: some
# seconds, where other work has the cores half a minute. One that hangs is waited for often.
SECONDS = TINY_SECONDS
BYTES = 2 * TINY_BYTES


def fuzz(request: RunRequest) -> ExitStatus:
    """Fuzz until the time or the number of cases is up, or Ctrl-C.

    Raises:
        UsageError: something named on the command line, or a kept case, is wrong.
        VerifierError: the harness, or code from outside at its import, failed.
    """
    require_known(request)
    with asking_hugging_face(request.family):  # as long as configs are drawn
        return _fuzz(request)


def _fuzz(request: RunRequest) -> ExitStatus:
    # Hypothesis is imported here and not above: a wrong command line must fail at once.
    from verifier.fuzz.fields import space
    from verifier.fuzz.remembered import FOLDER as CHOICES
    from verifier.fuzz.request import CampaignRequest
    from verifier.output import console
    from verifier.report.fuzzing import CampaignMeter, show_replayed

    described = space(
        family.load(request.family),
        request.family,
        fixed=parse_where(request.where),
        seed=request.seed,
        device=request.device,
        dtypes=request.dtypes,
    )
    folder = request.out or REPORTS / folder_name(request.family, request.adapter, "fuzz")
    plan = Plan(
        family=request.family,
        adapter=request.adapter,
        specs=(),
        only=request.only,
        device=request.device,
        limits=Limits(seconds=SECONDS, bytes=BYTES).with_asked(request.timeout, request.memory),
    )
    campaign = CampaignRequest(
        space=described,
        plan=plan,
        workers=request.workers or usable_cores(),
        seconds=request.time,
        most=request.max_examples,
        kept=_read_kept(folder / kept.FOLDER, described),
        choices=folder / CHOICES,
    )
    replayed: list[ReplayedFailure] = []
    title = f"fuzzing {request.family} × {request.adapter}"
    with record.lock_folder(folder), record.Writer(folder, of=(request.family, request.adapter)) as writer:
        with CampaignMeter(console.standard_error(), title, seconds=campaign.seconds) as meter:
            try:
                started = recording.record_events(
                    writer,
                    _run(campaign, folder / kept.FOLDER, replayed),
                    plan,
                    partial(run_plan, workers=campaign.workers),
                    lambda event: writer.run(make_first_line(_header(request, described), event, plan.limits)),
                    meter,
                    isolated=True,
                )
            except record.RecordLost as lost:
                show_rest(lost)
                raise
        if not started:
            print("verifier: interrupted before the first case; nothing was written", file=sys.stderr)
            return ExitStatus.INTERRUPTED
    status = show(writer.path, folder, 0).summary.status
    show_replayed(replayed, folder / kept.FOLDER, console.standard_output())
    return status


def _read_kept(folder: Path, described: Space) -> tuple[StoredFailure, ...]:
    """Read the failures that the folder keeps, whose cases are to run on the device of the space.

    Raises:
        UsageError: a file is broken, or of another family.
    """
    failures = []
    for one in kept.read(folder):
        if one.spec.family != described.reference:
            raise UsageError(
                f"{folder / one.fingerprint}.json is a case of the family {one.spec.family!r}, not of "
                f"{described.reference!r}; name another folder with --out"
            )
        spec = replace(one.spec.accepted_by(refusal_of(described.family)), device=described.device)
        failures.append(replace(one, spec=spec))
    return tuple(failures)


def _run(request: CampaignRequest, folder: Path, replayed: list[ReplayedFailure]) -> Iterator[CampaignEvent]:
    """Run a campaign, yield its events, and keep each failure at once: a campaign may be killed.

    Args:
        request: the campaign.
        folder: where failures are kept.
        replayed: receives what became of the failures that were kept before.
    """
    from verifier.fuzz import campaign

    specs: dict[str, CaseSpec] = {}
    is_endless = request.seconds is None and request.most is None
    for event in campaign.run(request):
        match event:
            case CaseStarted(spec=spec):
                specs[spec.id] = spec
            case ShrunkFailure(fingerprint=fingerprint, check=check, case=case, differs=differs):
                failure = StoredFailure(fingerprint=fingerprint, check=check, spec=specs[case], differs=differs)
                kept.write(folder, failure)
            case ReplayedFailure():
                replayed.append(event)
            case RunFinished() if is_endless:  # Ctrl-C is how a campaign without an end is ended
                event = replace(event, stop=Stop.COMPLETE)
        yield event


def _header(request: RunRequest, space: Space) -> dict[str, Any]:
    """Give the fields of the record's first line that are known before anything is loaded."""
    flags = {name: list(values) for name, values in space.family.flags().items()}
    plainest = space.spec(space.plainest).config
    asked = {
        "fuzz": True,
        "only": list(request.only),
        "where": list(request.where),
        "time": request.time,
        "max_examples": request.max_examples,
    }
    return {
        "family": request.family,
        "adapter": request.adapter,
        "versions": versions(request.adapter),
        "seed": request.seed,
        "flags": flags,
        "dims": {name: value for name, value in plainest.items() if name not in flags},
        "planned": {"valid": 0, "refused": 0},
        "asked": {name: value for name, value in asked.items() if value},
    }
