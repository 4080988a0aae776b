"""One process's share of a plan: each case is run once, whichever of its items asks first."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from verifier import record
from verifier.baseline.replaying import settle
from verifier.cases.spec import CaseSpec
from verifier.engine.case_runner import CaseRunner, InProcessRunner, SubprocessRunner
from verifier.errors import ImportFailed, UsageError, VerifierError
from verifier.judging.outcome import Outcome, Verdict
from verifier.record.excusing import covers
from verifier.record.known_failure import KnownFailure, Settled, State, to_json
from verifier.requests.folders import folder_name
from verifier.testing.plans import Item, TestPlan, items


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A case that was just run, for whoever keeps the record."""

    spec: CaseSpec
    outcomes: tuple[Outcome, ...]
    seconds: float


class Share:
    """What of a plan this process runs.

    Args:
        plan: the plan.
        isolated: whether what the plan isolates is to be.

    Attributes:
        plan: the plan.
        isolated: whether cases run in a process of their own.
        selected: the checks that are to be run in this session, by case: what is known of them before the first.
        unusable: why no case can be run; None where they can, as far as is known.
    """

    def __init__(self, plan: TestPlan, *, isolated: bool = True) -> None:
        self.plan = plan
        self.selected: dict[str, set[str]] = {}
        self.unusable: VerifierError | None = None
        self.isolated = plan.isolated and isolated
        self._runner: CaseRunner = SubprocessRunner(plan.plan) if self.isolated else InProcessRunner(plan.plan)
        self._outcomes: dict[str, dict[str, Outcome]] = {}
        self._broken: dict[str, VerifierError] = {}
        self._settled: dict[str, Settled] = {}
        self._news: list[Ran | Settled] = []
        self._line: record.RunLine | None = None
        self._introduced = False

    def expect(self, item: Item) -> None:
        """The item is to be run in this session, so that its checks are run with the others of its case."""
        if item.known is None:
            self.selected.setdefault(item.spec.id, set()).update(item.checks)

    def outcomes(self, item: Item) -> tuple[Outcome, ...]:
        """What the item's checks say; the case is run if it has not been.

        Raises:
            VerifierError: no case can be run, or the harness failed on this one.
        """
        had = self._case(item.spec, item.checks)
        missing = [check for check in item.checks if check not in had]
        assert not missing, f"the engine gave no outcome of {missing}"
        # What they rest on and nobody selected was run too; a failure of that is this item's to tell.
        others = self.selected.get(item.spec.id, set()) - set(item.checks)
        return tuple(outcome for check, outcome in had.items() if check not in others)

    def _case(self, spec: CaseSpec, checks: Sequence[str]) -> Mapping[str, Outcome]:
        """Every outcome of the case, by check; it is run with these checks, and with all that are selected of it."""
        had = self._outcomes.get(spec.id, {})
        if not set(checks) <= had.keys():
            wanted = self.selected.get(spec.id, set()) | set(checks)
            began = time.perf_counter()
            ran = self._run(spec, [check.id for check in self.plan.checks if check.id in wanted])
            self._outcomes[spec.id] = had = {outcome.check: outcome for outcome in ran}
            self._news.append(Ran(spec=spec, outcomes=ran, seconds=time.perf_counter() - began))
        return had

    def excused(self, spec: CaseSpec, outcome: Outcome) -> KnownFailure | None:
        """The known failure that excuses this one; None where none does."""
        baseline = self.plan.baseline
        if baseline is None or not outcome.verdict.gates:
            return None
        for failure in baseline.failures:
            if failure.fingerprint == outcome.fingerprint and covers(failure, spec, self.line):
                return failure if self.settled(failure).state is State.KNOWN else None
        return None

    def settled(self, failure: KnownFailure, *, whole: bool = False) -> Settled:
        """What became of a known failure; its own case is run again, once in this process.

        Args:
            failure: the entry.
            whole: whether the case is this process's to run anyhow, so that it is run with all that is selected of it.

        Raises:
            VerifierError: no case can be run, or the harness failed on this one.
        """
        found = self._settled.get(failure.fingerprint)
        if found is None:
            found = settle(failure, self._again(failure, whole), True, datetime.now(UTC).date())
            self._settled[failure.fingerprint] = found
            self._news.append(found)
        return found

    def _again(self, failure: KnownFailure, whole: bool) -> Outcome | None:
        """What its check says on its case now."""
        if failure.check in self._outcomes.get(failure.spec.id, {}):
            return self._outcomes[failure.spec.id][failure.check]
        if whole and failure.check in self.selected.get(failure.spec.id, set()):
            spec = next(spec for spec in self.plan.specs if spec.id == failure.spec.id)
            return self._case(spec, [failure.check]).get(failure.check)
        ran = self._run(self.plan.today(failure.spec), [failure.check])
        return next((one for one in ran if one.check == failure.check), None)

    def _run(self, spec: CaseSpec, checks: Sequence[str]) -> tuple[Outcome, ...]:
        """Run it; what went wrong with the harness is not tried again for another item of the case."""
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

    def gates(self, outcome: Outcome) -> bool:
        """Whether the outcome makes its item fail, unless it is excused."""
        return outcome.verdict.gates or outcome.verdict in self.plan.gate

    @property
    def line(self) -> record.RunLine:
        """A record's first line; only once something has run."""
        started = self._runner.started
        if self._line is None:
            assert started is not None
            chosen = [spec.valid for spec in self.plan.specs if spec.id in self.selected]
            self._line = record.RunLine(
                **{**self.plan.header, "planned": {"valid": chosen.count(True), "refused": chosen.count(False)}},
                adapter_name=started.adapter_name,
                adapter_version=started.adapter_version,
                started=datetime.now(UTC).isoformat(timespec="seconds"),
                checks=[check.to_json() for check in self.plan.checks],
                workers=1,
            )
            every = sum(len(item.checks) for item in items(self.plan) if item.known is None)
            wanted = sum(map(len, self.selected.values()))
            if wanted < every:  # `-k`, a node id, `--lf`: not to be held against a run of everything
                asked = {**self._line.asked, "items": f"{wanted:,} of {every:,} outcomes"}
                self._line = replace(self._line, asked=asked)
        return self._line

    def news(self) -> Mapping[str, Any] | None:
        """What happened since this was last asked, as plain values that may cross processes; None where nothing did."""
        if not self._news:
            return None
        told, self._news = self._news, []
        lost, self._runner.lost = self._runner.lost, []
        first, self._introduced = not self._introduced, True
        return {
            "plan": self.plan.id,
            "of": self._introduction() if first else None,
            "cases": [
                {
                    "spec": one.spec.to_json(),
                    "seconds": one.seconds,
                    "outcomes": [{**asdict(outcome), "verdict": str(outcome.verdict)} for outcome in one.outcomes],
                }
                for one in told
                if isinstance(one, Ran)
            ],
            "settled": [to_json(one) for one in told if isinstance(one, Settled)],
            "lost": [
                {"case": one.case, "check": one.check, "verdict": str(one.verdict), "reason": one.reason}
                for one in lost
            ],
        }

    def _introduction(self) -> Mapping[str, Any]:
        """What whoever keeps the record must know before the first case."""
        plan, baseline = self.plan, self.plan.baseline
        held: dict[str, Any] | None = None
        if baseline is not None:
            unlooked = [to_json(Settled(failure=one, state=State.NOT_RUN)) for one in baseline.failures]
            held = {
                "path": baseline.path,
                "asked": dict(baseline.asked),
                "ran": dict(baseline.ran),
                "settled": unlooked,
            }
        like = [one for one in _shares.values() if (one.plan.family, one.plan.adapter) == (plan.family, plan.adapter)]
        return {
            "run": asdict(self.line),
            "held": held,
            "folder": folder_name(plan.family, plan.adapter, *([] if len(like) == 1 else [plan.id])),
            "isolated": self.isolated,
            "object": plan.is_object,
        }

    def close(self) -> None:
        self._runner.close()


def outcome_of(data: Mapping[str, Any]) -> Outcome:
    """What `news` made of an outcome."""
    return Outcome(**{**data, "verdict": Verdict(data["verdict"])})


_shares: dict[str, Share] = {}


def share_of(plan: TestPlan, *, isolated: bool = True) -> Share:
    """What of the plan the process has run, and is to run.

    Args:
        plan: the plan.
        isolated: whether what the plan isolates is to be, if this is the first time that it is asked for.
    """
    if plan.id not in _shares:
        _shares[plan.id] = Share(plan, isolated=isolated)
    return _shares[plan.id]


def close_all() -> None:
    """End what was started for any plan."""
    for share in _shares.values():
        share.close()
    _shares.clear()
