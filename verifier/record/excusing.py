"""Decide which failures a baseline excuses: those of an entry that still holds, inside its rule."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from verifier.cases.predicates import holds
from verifier.cases.spec import CaseSpec
from verifier.judging.outcome import BLOCKED, Verdict
from verifier.record import Record, RunLine
from verifier.record.case_description import config_difference, describe_case
from verifier.record.known_failure import EVERY_CASE, BaselineState, KnownFailure, narrowing


def covers(failure: KnownFailure, spec: CaseSpec, run: RunLine) -> bool:
    """Whether the known failure is accepted on this case.

    Args:
        failure: an entry of the baseline.
        spec: the case.
        run: the run that the case is of.

    Raises:
        UsageError: the entry's rule is no predicate.
    """
    name = name_case(spec, run)
    if name in failure.also or spec.id == failure.spec.id:
        return True
    return name not in failure.excepted and rule_holds(failure.rule, spec, run.flags)


def rule_holds(rule: str, spec: CaseSpec, flags: Mapping[str, Sequence[Any]]) -> bool:
    """Whether the rule of an entry is true of the case; an empty rule is true of no case.

    Args:
        rule: a predicate over the config, `EVERY_CASE`, or an empty text.
        spec: the case.
        flags: field → values, the plainest first.

    Raises:
        UsageError: the rule is no predicate.
    """
    return rule == EVERY_CASE or (rule != "" and holds(rule, describe_case(spec), flags))


def name_case(spec: CaseSpec, run: RunLine) -> str:
    """Name a case by everything in which its config differs from the plainest one: `alibi=true heads=4`.

    Args:
        spec: the case.
        run: the run that it is of.
    """
    found = config_difference(spec.config, run)
    return " ".join(f"{name}={_spell(found[name])}" for name in sorted(found)) or "the plainest config"


def _spell(value: Any) -> str:
    """Spell a value in full: two cases must not have one name."""
    if value is None:
        return "none"
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value, sort_keys=True)


def apply_known_failures(record: Record) -> Record:
    """Return the record with the verdict `known` on every failure that its baseline excuses."""
    if record.held is None or not record.held.settled:
        return record
    excuse = make_excuser(record.held, record.run)
    entries = tuple(
        replace(entry, outcome=replace(entry.outcome, verdict=Verdict.KNOWN))
        if entry.outcome.verdict.gates and excuse(record.cases[entry.case], entry.fingerprint)
        else entry
        for entry in record.entries
    )
    return replace(record, entries=entries)


def make_excuser(held: BaselineState, run: RunLine) -> Callable[[CaseSpec, str | None], bool]:
    """Make a function that says whether a failure with a fingerprint is excused on a case.

    Args:
        held: what the run's record holds of the baseline.
        run: the run that the cases are of.

    Returns:
        The function of a case and a fingerprint; a failure without a fingerprint is never excused.
    """
    excusing = held.excusing
    known: dict[tuple[str, str], bool] = {}

    def excuse(spec: CaseSpec, fingerprint: str | None) -> bool:
        failure = excusing.get(fingerprint or "")
        if failure is None:
            return False
        key = failure.fingerprint, spec.id
        if key not in known:
            known[key] = covers(failure, spec, run)
        return known[key]

    return excuse


def count_cases_looked_at(record: Record) -> dict[str, int]:
    """The number of cases on which each check gave anything but a skip."""
    found = Counter(entry.outcome.check for entry in record.entries if entry.outcome.verdict is not Verdict.SKIP)
    return dict(sorted(found.items()))


def checks_looking_at_less(record: Record) -> Mapping[str, tuple[int, int]]:
    """Find the checks that looked at fewer cases than when the baseline was written: how many then, and now.

    Nothing where the run was asked to look at something else than the baseline's.

    Args:
        record: with the verdict `known` on what is excused.
    """
    held = record.held
    if held is None or narrowing(held.asked) != narrowing(record.run.asked):
        return {}
    now = Counter(count_cases_looked_at(record))
    failing = {entry.case for entry in record.entries if entry.outcome.verdict.gates}
    # What a failure keeps from looking is told by the failure.
    now.update(
        entry.outcome.check
        for entry in record.entries
        if entry.case in failing and (entry.outcome.message or "").startswith(BLOCKED)
    )
    return {check: (then, now[check]) for check, then in held.ran.items() if now[check] < then}
