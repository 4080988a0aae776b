"""What a baseline excuses in a run, how much of the config space that is, and which entries are not true any more."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from verifier.judging.outcome import Verdict
from verifier.output.text import LINE_LIMIT, first_of, line, plural
from verifier.record import Record
from verifier.record.excusing import checks_looking_at_less, count_cases_looked_at
from verifier.record.known_failure import BaselineState, EntryState, KnownFailure, Settled

STATE_WORDS: Mapping[EntryState, str] = {
    EntryState.KNOWN: "known",
    EntryState.FIXED: "FIXED",
    EntryState.CHANGED: "CHANGED",
    EntryState.EXPIRED: "EXPIRED",
    EntryState.NOT_RUN: "not looked at",
}
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedFailure:
    """A known failure in a report.

    Attributes:
        number: its name in the matrix and the list: `K1`.
        settled: the entry, and what became of it.
        cases: on how many cases it excused something.
    """

    number: str
    settled: Settled
    cases: int

    @property
    def failure(self) -> KnownFailure:
        return self.settled.failure

    @property
    def words(self) -> str:
        return STATE_WORDS[self.settled.state]

    @property
    def summary(self) -> str:
        """`K1  qc8eamvf, known, 3 cases`, with its reason and where it is followed up."""
        cases = plural(self.cases, "case")
        parts = (f"{self.number}  {self.failure.fingerprint}", self.words, cases, self.failure.reason, self.follow_up)
        return ", ".join(part for part in parts if part)

    @property
    def follow_up(self) -> str:
        """Where the failure is followed up, and until when it is accepted."""
        until = "" if self.failure.expires is None else f"until {self.failure.expires}"
        return ", ".join(part for part in (self.failure.issue, until) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineComparison:
    """What a baseline did to a run.

    Attributes:
        path: the baseline's file.
        entries: the known failures, in the order of the file.
        excused: how many outcomes are excused.
        outcomes: how many outcomes are of a check that looked.
        cases: on how many valid cases something is excused.
        valid: how many valid cases there are.
        looking_at_less: where the run came to its end, the checks that looked at fewer cases than in the baseline's
            run: how many then, and how many now.
    """

    path: str
    entries: tuple[AcceptedFailure, ...]
    excused: int
    outcomes: int
    cases: int
    valid: int
    looking_at_less: Mapping[str, tuple[int, int]]

    @property
    def share(self) -> str:
        """`1,024 of 13,421 outcomes (8%), on 180 of 242 valid cases (74%)`."""
        return (
            f"{self.excused:,} of {plural(self.outcomes, 'outcome')} ({_percent(self.excused, self.outcomes)}), on "
            f"{self.cases:,} of {plural(self.valid, 'valid case')} ({_percent(self.cases, self.valid)})"
        )

    def in_state(self, *states: EntryState) -> tuple[AcceptedFailure, ...]:
        """The entries of which one of these became, in the order of the file."""
        return tuple(entry for entry in self.entries if entry.settled.state in states)

    @property
    def stale(self) -> tuple[AcceptedFailure, ...]:
        """The entries that are not true any more, so that the run fails."""
        return self.in_state(*(state for state in EntryState if state.gates))

    @property
    def removal(self) -> str | None:
        """The command that takes the entries out that are fixed, all of it on one line."""
        fixed = self.in_state(EntryState.FIXED)
        if not fixed:
            return None
        options = " ".join(f"--remove {shlex.quote(entry.failure.fingerprint)}" for entry in fixed)
        command = f"verifier baseline {options} --out {shlex.quote(self.path)}"
        return line(command, LINE_LIMIT * (1 + len(fixed)))  # so long that only what is no id is cut off

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the run does not conform on account of its baseline, in clauses; none where it may."""
        reasons = [
            f"{plural(len(entries), 'known failure')} {STATE_WORDS[state].lower()}"
            for state in (EntryState.FIXED, EntryState.CHANGED, EntryState.EXPIRED)
            if (entries := self.in_state(state))
        ]
        if self.looking_at_less:
            named = [f"{line(check, 80)} at {now:,} of {then:,}" for check, (then, now) in self.looking_at_less.items()]
            reasons.append(f"fewer cases looked at than the baseline's run: {first_of(named, _MOST_NAMED)}")
        return tuple(reasons)


def compare_with_baseline(record: Record) -> BaselineComparison | None:
    """Compare a run, whose excused failures have the verdict `known`, with its baseline; None where it had none."""
    held = record.held
    if held is None:
        return None
    cases: dict[str, set[str]] = {}
    for entry in record.entries:
        if entry.outcome.verdict is Verdict.KNOWN:
            cases.setdefault(entry.fingerprint or "", set()).add(entry.case)
    valid = {case for case, spec in record.cases.items() if spec.valid}
    return BaselineComparison(
        path=held.path,
        entries=tuple(
            AcceptedFailure(number=f"K{number}", settled=one, cases=len(cases.get(one.failure.fingerprint, ())))
            for number, one in enumerate(held.settled, start=1)
        ),
        excused=sum(entry.outcome.verdict is Verdict.KNOWN for entry in record.entries),
        outcomes=sum(count_cases_looked_at(record).values()),
        cases=len(valid & set().union(*cases.values())),
        valid=len(valid),
        # Of a run that was broken off it goes without saying.
        looking_at_less=checks_looking_at_less(record)
        if record.end is not None and record.end.stop == "complete"
        else {},
    )


def number_known_failures(held: BaselineState | None) -> dict[str, str]:
    """Number the known failures of a baseline, `K1` being the first, by fingerprint."""
    settled = () if held is None else held.settled
    return {one.failure.fingerprint: f"K{number}" for number, one in enumerate(settled, start=1)}


def _percent(part: int, whole: int) -> str:
    """Spell a share in percent: only all is 100%, and only nothing is 0%."""
    if not whole or part in (0, whole):
        return "100%" if whole and part else "0%"
    return f"{min(99, max(1, round(100 * part / whole)))}%"
