"""Renew a baseline of before checks became observables: what people wrote of a failure goes to what took its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from verifier.checks.superseded import SUPERSEDED
from verifier.record import Record
from verifier.record.known_failure import Baseline, KnownFailure


def carry_over(before: Baseline, made: Baseline, record: Record) -> tuple[Baseline, int]:
    """Give new entries the reason, the issue and the day of entries of checks that are gone.

    An entry gets those of every earlier one whose check its own took the place of, and on whose case it fails. Several
    reasons stand side by side, and the first day counts.

    Args:
        before: the baseline that is renewed.
        made: the baseline of the record.
        record: of the run.

    Returns:
        The baseline of the record with what was carried over, and the number of entries that got something.
    """
    failing = {(entry.case, entry.fingerprint) for entry in record.entries}
    old = [one for one in before.failures if one.check in SUPERSEDED and one.reason.strip()]
    there = {one.fingerprint for one in before.failures}
    failures, carried = [], 0
    for failure in made.failures:
        ancestors = [
            one
            for one in old
            if (one.spec.id, failure.fingerprint) in failing
            and any(observable == failure.check for observable, _ in SUPERSEDED[one.check])
        ]
        if ancestors and failure.fingerprint not in there:
            failure, carried = _take_over(failure, ancestors), carried + 1
        failures.append(failure)
    return replace(made, failures=tuple(failures)), carried


def _take_over(failure: KnownFailure, old: Sequence[KnownFailure]) -> KnownFailure:
    days = [one.expires for one in old if one.expires is not None]
    return replace(
        failure,
        reason="; ".join(dict.fromkeys(one.reason.strip() for one in old)),
        issue=", ".join(dict.fromkeys(one.issue.strip() for one in old if one.issue.strip())),
        expires=min(days, default=None),
    )
