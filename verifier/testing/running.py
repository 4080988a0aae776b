"""Run one process's share of a plan: each case is run once, for whichever of its items asks first."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from msgspec import structs

from verifier import record
from verifier.baseline.replaying import settle
from verifier.cases.spec import CaseSpec
from verifier.engine.case_runner import CaseResult, CaseRunner, InProcessRunner, SubprocessRunner
from verifier.engine.events import CaseFinished, CaseStarted, Event, OutcomeReady, RowReady
from verifier.engine.plan import Plan
from verifier.errors import ImportFailed, UsageError, VerifierError
from verifier.judging.outcome import Outcome
from verifier.record.excusing import covers
from verifier.record.known_failure import BaselineState, EntryState, KnownFailure, Settled
from verifier.requests.folders import folder_name
from verifier.requests.planning import make_first_line
from verifier.testing.plans import Item, TestPlan, list_items


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """What the process that keeps the record must know before the first case.

    Attributes:
        line: the record's first line.
        plan: the plan that failures are diagnosed with; it has no case.
        baseline: the state of the baseline, before any known failure was run again; None if the run has none.
        folder: the name of the folder for record and report.
        isolated: whether cases run in a process of their own.
        is_object: whether the adapter is an object of its process.
    """

    line: record.RunLine
    plan: Plan
    baseline: BaselineState | None
    folder: str
    isolated: bool
    is_object: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What happened in a share since the last news of it.

    Attributes:
        plan: the id of the plan.
        introduction: what the record begins with; None in all news but the first.
        events: what happened, in order.
    """

    plan: str
    introduction: Introduction | None
    events: tuple[Event | Settled, ...]

    def as_text(self) -> str:
        """Spell the news in ASCII letters, which any transport of reports can carry."""
        return base64.b64encode(pickle.dumps(self)).decode()

    @staticmethod
    def from_text(text: str) -> News:
        """Read what `as_text` spelled."""
        news: News = pickle.loads(base64.b64decode(text))
        return news


class Share:
    """The part of a plan that this process runs.

    Args:
        plan: the plan.
        isolated: whether to isolate cases if the plan does.

    Attributes:
        plan: the plan.
        isolated: whether cases run in a process of their own.
        selected: the ids of the checks that this session runs, by the id of their case.
        unusable: why no case can be run; None as long as nothing is known to be in the way.
    """

    def __init__(self, plan: TestPlan, *, isolated: bool = True) -> None:
        self.plan = plan
        self.selected: dict[str, set[str]] = {}
        self.unusable: VerifierError | None = None
        self.isolated = plan.run.request.isolated and isolated
        self._runner: CaseRunner = (SubprocessRunner if self.isolated else InProcessRunner)(plan.run.plan())
        self._outcomes: dict[str, dict[str, Outcome]] = {}
        self._broken: dict[str, VerifierError] = {}
        self._settled: dict[str, Settled] = {}
        self._news: list[Event | Settled] = []
        self._line: record.RunLine | None = None
        self._introduced = False

    def expect(self, item: Item) -> None:
        """Note that the session runs an item, so that its checks are run together with the others of its case."""
        if item.known is None:
            self.selected.setdefault(item.spec.id, set()).update(item.checks)

    def outcomes(self, item: Item) -> tuple[Outcome, ...]:
        """Give the outcomes of an item's checks; its case is run if it has not been.

        Raises:
            VerifierError: no case can be run, or the harness failed on this one.
        """
        had = self._case(item.spec, item.checks)
        missing = [check for check in item.checks if check not in had]
        assert not missing, f"the engine gave no outcome of {missing}"
        # The checks that they rest on were run too; if nobody selected one of these, this item reports its failure.
        others = self.selected.get(item.spec.id, set()) - set(item.checks)
        return tuple(outcome for check, outcome in had.items() if check not in others)

    def _case(self, spec: CaseSpec, checks: Sequence[str]) -> Mapping[str, Outcome]:
        """Give every outcome of a case, by check; it is run with these checks and all that are selected for it."""
        had = self._outcomes.get(spec.id, {})
        if not set(checks) <= had.keys():
            wanted = self.selected.get(spec.id, set()) | set(checks)
            ran = self._run(spec, [check.id for check in self.plan.checks if check.id in wanted])
            self._outcomes[spec.id] = had = {outcome.check: outcome for outcome in ran.outcomes}
            self._news.append(CaseStarted(spec=ran.settle(spec)))
            self._news += [lost for lost in self._runner.lost if lost.case == spec.id]
            self._news += [OutcomeReady(case=spec.id, outcome=outcome) for outcome in ran.outcomes]
            self._news += [RowReady(row=row) for row in ran.rows]
            self._news.append(CaseFinished(case=spec.id, seconds=ran.seconds))
            self._runner.lost = []
        return had

    def excused(self, spec: CaseSpec, outcome: Outcome) -> KnownFailure | None:
        """Find the known failure that excuses an outcome; None if there is none.

        Args:
            spec: the case.
            outcome: one of its outcomes.

        Raises:
            VerifierError: the known failure's own case cannot be run, or the harness failed on it.
        """
        baseline = self.plan.run.baseline
        if baseline is None or not outcome.verdict.gates:
            return None
        for failure in baseline.failures:
            if failure.fingerprint == outcome.fingerprint and covers(failure, spec, self.line):
                return failure if self.settled(failure).state is EntryState.KNOWN else None
        return None

    def settled(self, failure: KnownFailure, *, whole: bool = False) -> Settled:
        """Say what became of a known failure; its own case is run again, once in this process.

        Args:
            failure: the entry.
            whole: whether the case is this process's to run anyhow, so that it is run with all that is selected for it.

        Raises:
            VerifierError: no case can be run, or the harness failed on this one.
        """
        settled = self._settled.get(failure.fingerprint)
        if settled is None:
            settled = settle(failure, self._again(failure, whole), True, datetime.now(UTC).date())
            self._settled[failure.fingerprint] = settled
            self._news.append(settled)
        return settled

    def _again(self, failure: KnownFailure, whole: bool) -> Outcome | None:
        """Give the outcome of a known failure's check on its case now; None if the check does not apply any more."""
        if failure.check in self._outcomes.get(failure.spec.id, {}):
            return self._outcomes[failure.spec.id][failure.check]
        if whole and failure.check in self.selected.get(failure.spec.id, set()):
            spec = next(spec for spec in self.plan.run.specs if spec.id == failure.spec.id)
            return self._case(spec, [failure.check]).get(failure.check)
        ran = self._run(self.plan.revalidate(failure.spec), [failure.check])
        return next((one for one in ran.outcomes if one.check == failure.check), None)

    def _run(self, spec: CaseSpec, checks: Sequence[str]) -> CaseResult:
        """Run a case; if the harness failed on it before, raise the same error again instead."""
        if self.unusable or spec.id in self._broken:
            raise self.unusable or self._broken[spec.id]
        try:
            return self._runner.run(spec, checks)
        except (UsageError, ImportFailed) as error:
            self.unusable = error
            raise
        except VerifierError as error:
            self._broken[spec.id] = error
            raise

    @property
    def line(self) -> record.RunLine:
        """The first line of the record, once something has run."""
        started = self._runner.started
        if self._line is None:
            assert started is not None
            chosen = [spec.valid for spec in self.plan.run.specs if spec.id in self.selected]
            header = {**self.plan.header, "planned": {"valid": chosen.count(True), "refused": chosen.count(False)}}
            loaded = structs.replace(started, checks=self.plan.checks, workers=1)
            self._line = make_first_line(header, loaded, self.plan.run.limits)
            every = sum(len(item.checks) for item in list_items(self.plan) if item.known is None)
            wanted = sum(map(len, self.selected.values()))
            if wanted < every:  # `-k`, a node id, `--lf`: not to be held against a run of everything
                asked = {**self._line.asked, "items": f"{wanted:,} of {every:,} outcomes"}
                self._line = replace(self._line, asked=asked)
        return self._line

    def news(self) -> News | None:
        """Give what happened since the last news; None if nothing did."""
        if not self._news:
            return None
        events, self._news = tuple(self._news), []
        first, self._introduced = not self._introduced, True
        return News(plan=self.plan.id, introduction=self._introduction() if first else None, events=events)

    def _introduction(self) -> Introduction:
        run, baseline = self.plan.run, self.plan.run.baseline
        state = None
        if baseline is not None:
            settled = tuple(Settled(failure=one, state=EntryState.NOT_RUN) for one in baseline.failures)
            state = BaselineState(path=baseline.path, asked=baseline.asked, ran=baseline.ran, settled=settled)
        alike = [
            share.plan.id
            for share in _shares.values()
            if (share.plan.run.request.family, share.plan.run.adapter) == (run.request.family, run.adapter)
        ]
        return Introduction(
            line=self.line,
            plan=run.plan(),
            baseline=state,
            folder=folder_name(run.request.family, run.adapter, *([] if len(alike) == 1 else [self.plan.id])),
            isolated=self.isolated,
            is_object=self.plan.is_object,
        )

    def close(self) -> None:
        """Stop what was started to run cases."""
        self._runner.close()


_shares: dict[str, Share] = {}


def share_of(plan: TestPlan, *, isolated: bool = True) -> Share:
    """Give this process's share of a plan; there is one for each plan.

    Args:
        plan: the plan.
        isolated: whether to isolate cases if the plan does; only the first call for a plan counts.
    """
    if plan.id not in _shares:
        _shares[plan.id] = Share(plan, isolated=isolated)
    return _shares[plan.id]


def close_all() -> None:
    """Stop what was started for any plan."""
    for share in _shares.values():
        share.close()
    _shares.clear()
