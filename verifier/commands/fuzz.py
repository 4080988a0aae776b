"""`verifier fuzz`: a campaign over the family's whole config space, a record, a report, and what it found kept."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verifier import family, record
from verifier.cases.spec import CaseSpec
from verifier.commands.run import show
from verifier.engine import recording
from verifier.engine.environment import usable_cores, versions
from verifier.engine.events import CaseStarted, Event, RunFinished, RunStarted, Stop
from verifier.engine.limits import TINY_BYTES, TINY_SECONDS, Limits
from verifier.engine.plan import Plan
from verifier.errors import ExitStatus, UsageError, VerifierError
from verifier.fuzz import kept
from verifier.record.fuzz_finding import ReplayedFailure, ShrunkFailure, StoredFailure
from verifier.requests.cases import parse_where
from verifier.requests.folders import REPORTS, folder_name
from verifier.requests.planning import now, require_known
from verifier.requests.request import RunRequest

if TYPE_CHECKING:
    from verifier.fuzz.fields import Space
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
    reference = request.adapter
    # Hypothesis is imported here and not above: a wrong command line must fail at once.
    from verifier.fuzz.fields import space
    from verifier.fuzz.remembered import FOLDER as CHOICES
    from verifier.fuzz.request import CampaignRequest

    described = space(
        family.load(request.family),
        request.family,
        fixed=parse_where(request.where),
        seed=request.seed,
        device=request.device,
        dtypes=request.dtypes,
    )
    folder = request.out or REPORTS / folder_name(request.family, reference, "fuzz")
    order = CampaignRequest(
        space=described,
        adapter=reference,
        only=request.only,
        limits=Limits(seconds=SECONDS, bytes=BYTES).with_asked(request.timeout, request.memory),
        workers=request.workers or usable_cores(),
        seconds=request.time,
        most=request.max_examples,
        kept=_kept(folder / kept.FOLDER, described),
        choices=folder / CHOICES,
    )
    with record.lock_folder(folder):
        return _campaign(request, order, folder)


def _kept(folder: Path, described: Space) -> tuple[StoredFailure, ...]:
    """What is kept in the folder, of this family.

    Raises:
        UsageError: a file is broken, or of another family.
    """
    found = []
    for one in kept.read(folder):
        if one.spec.family != described.reference:
            raise UsageError(
                f"{folder / one.fingerprint}.json is a case of the family {one.spec.family!r}, not of "
                f"{described.reference!r}; name another folder with --out"
            )
        spec = replace(one.spec.accepted_by(described.family.refusal), device=described.device)
        found.append(replace(one, spec=spec))
    return tuple(found)


def _campaign(request: RunRequest, order: CampaignRequest, folder: Path) -> ExitStatus:
    from verifier.output import console
    from verifier.report.fuzzing import Picture, show_replayed

    with record.Writer(folder, of=(request.family, order.adapter)) as writer:
        drive = _Drive(request=request, order=order, writer=writer, folder=folder)
        picture = Picture(
            console.standard_error(), f"fuzzing {request.family} × {order.adapter}", seconds=order.seconds
        )
        with picture:
            started = drive.run(picture)
        if not started:
            print("verifier: interrupted before the first case; nothing was written", file=sys.stderr)
            return ExitStatus.INTERRUPTED
    status = show(writer.path, folder, 0).summary.status
    show_replayed(drive.replayed, folder / kept.FOLDER, console.standard_output())
    return status


class _Drive:
    """One campaign into one record."""

    def __init__(self, *, request: RunRequest, order: CampaignRequest, writer: record.Writer, folder: Path) -> None:
        self._request = request
        self._order = order
        self._writer = writer
        self._folder = folder
        self._specs: dict[str, CaseSpec] = {}
        self.replayed: list[ReplayedFailure] = []

    def run(self, picture: Any) -> bool:
        """Run it; whether it came to its first case."""
        from verifier.fuzz import campaign

        writer, started = self._writer, False
        try:
            for event in campaign.run(self._order):
                match event:
                    case RunStarted():
                        writer.run(_line(self._request, self._order, event))
                        started = True
                    case CaseStarted(spec=spec) if self._specs.setdefault(spec.id, spec) is not spec:
                        pass  # it is run once more
                    case ShrunkFailure():
                        writer.found(event)
                        self._keep(event)
                    case ReplayedFailure():
                        self.replayed.append(event)
                    case RunFinished(stop=stop, seconds=seconds):
                        if started:
                            stop = self._meant(stop)
                            recording.finish(
                                writer, self._order.plan, self._look_with, picture.look, stop=stop, seconds=seconds
                            )
                    case _:
                        recording.write_event(writer, event)
                picture.note(event)
        except VerifierError as error:
            if started and not writer.ended:
                writer.end(status=error.status, stop=Stop.BROKEN, seconds=0.0)
            raise
        return started

    def _keep(self, found: ShrunkFailure) -> None:
        """At once: a campaign may be killed, and nothing that it has found is lost."""
        one = StoredFailure(
            fingerprint=found.fingerprint, check=found.check, spec=self._specs[found.case], differs=found.differs
        )
        kept.write(self._folder / kept.FOLDER, one)

    def _look_with(self, plan: Plan) -> Iterator[Event]:
        from verifier.engine.run import run as run_plan

        return run_plan(plan, workers=self._order.workers)

    def _meant(self, stop: Stop) -> Stop:
        """Ctrl-C is how a campaign without an end is ended."""
        endless = self._order.seconds is None and self._order.most is None
        return Stop.COMPLETE if endless else stop


def _line(request: RunRequest, order: CampaignRequest, event: RunStarted) -> record.RunLine:
    asked = {
        "fuzz": True,
        "only": list(request.only),
        "where": list(request.where),
        "time": request.time,
        "max_examples": request.max_examples,
    }
    flags, dims = _plain(order.space)
    return record.RunLine(
        family=request.family,
        adapter=order.adapter,
        adapter_name=event.adapter_name,
        adapter_version=event.adapter_version,
        versions=versions(order.adapter),
        seed=request.seed,
        started=now(),
        flags=flags,
        dims=dims,
        checks=[check.to_json() for check in event.checks],
        planned={"valid": 0, "refused": 0},
        asked={name: value for name, value in asked.items() if value},
        workers=event.workers,
        limits={"timeout": order.limits.seconds, "memory": order.limits.bytes},
    )


def _plain(space: Space) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The flags with their values, and what the plainest config has besides."""
    flags = {name: list(values) for name, values in space.family.flags().items()}
    config = space.spec(space.plainest).config
    return flags, {name: value for name, value in config.items() if name not in flags}
