"""Where two records are compared, give the outcomes of a check that is gone to the observables that took its place."""

from __future__ import annotations

from verifier.analysis.changes import SupersededCheck
from verifier.analysis.outcome_index import OutcomeIndex, find_state
from verifier.checks.superseded import SUPERSEDED, is_taken_over
from verifier.record import RecordedOutcome

_Key = tuple[str, str]  # case and check

_WORST_IN_OLD = ("fails", "upstream", "passes", "unseen")
_WORST_IN_NEW = ("fails", "unseen", "upstream", "passes")


class Succession:
    """OLD's outcomes, as they are compared with NEW's.

    An outcome of a check that is gone counts as one of the observable that took its place, where that fails in NEW and
    the check did in OLD, or where NEW looks at the case in all the circumstances of the check. Where NEW does neither,
    nothing can be said of it. Of several outcomes of one observable the worst counts.

    Args:
        old: the record that is compared with.
        new: the record that is compared.

    Attributes:
        before: OLD's outcomes by case, and by the check under which they are compared; of a check that is gone only
            those on cases that NEW has.
        apart: the outcomes that are compared with nothing, by case and check, sorted.
        checks: the checks of which something is compared in this way, or with nothing.
    """

    def __init__(self, old: OutcomeIndex, new: OutcomeIndex) -> None:
        self._new = new
        self._ran = {check["id"] for check in new.record.run.checks}
        gone = {
            key: entry for key, entry in sorted(old.entries.items()) if key[1] in SUPERSEDED and key[1] not in self._ran
        }
        self.before = {key: entry for key, entry in old.entries.items() if key not in gone}
        self.apart: list[_Key] = []
        checks: dict[str, list[RecordedOutcome]] = {}
        for (case, check), entry in gone.items():
            if case not in new.record.cases or find_state(entry) == "unseen":
                continue
            heir = self._find_heir(entry)
            if heir != check:
                checks.setdefault(check, [])
            if heir is None:
                self.apart.append((case, check))
                checks[check].append(entry)
            else:
                candidates = (self.before.get((case, heir)), entry)
                self.before[case, heir] = min(
                    (one for one in candidates if one is not None),
                    key=lambda one: _WORST_IN_OLD.index(find_state(one)),
                )
        self.checks = tuple(
            SupersededCheck(
                check=check,
                apart=tuple(entry.case for entry in entries),
                failed=sum(find_state(entry) == "fails" for entry in entries),
            )
            for check, entries in sorted(checks.items())
        )

    def _find_heir(self, entry: RecordedOutcome) -> str | None:
        """Find the observable of NEW with which an outcome is compared: of several the worst one.

        Returns:
            The check itself where NEW did not run all that took its place; None where NEW does not look at the case
            in all its circumstances.
        """
        check = entry.outcome.check
        observables = dict.fromkeys(observable for observable, _ in SUPERSEDED[check])
        states = {one: find_state(self._new.entries.get((entry.case, one))) for one in observables}
        worst = min(states, key=lambda one: _WORST_IN_NEW.index(states[one]))
        if states[worst] == find_state(entry) == "fails":
            return worst
        if not observables.keys() <= self._ran:
            return check
        return worst if is_taken_over(check, self._new.record.cases[entry.case].circumstances) else None
