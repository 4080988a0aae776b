"""Word outcomes for people: the message, and an error beside its bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from verifier.judging.outcome import Outcome, Verdict
from verifier.output.text import number


def outcome_message(outcome: Outcome) -> str | None:
    """Word an outcome: its message, after the exception's type where the message does not name it.

    The message of a crash or a timeout is the harness's own and says how the process ended, so it stands alone.
    """
    message, exception = outcome.message, outcome.exception
    if outcome.verdict in (Verdict.CRASH, Verdict.TIMEOUT):
        return message or exception
    if exception is None or exception in (message or ""):
        return message or exception
    return f"{exception}: {message}" if message else exception


def circumstance_words(circumstance: Mapping[str, Sequence[str]] | None) -> str:
    """Write what a circumstance must have: `when dtype is bfloat16 or float16 and mask is left`; empty if nothing."""
    parts = [f"{axis} is {' or '.join(values)}" for axis, values in (circumstance or {}).items()]
    return f"when {' and '.join(parts)}" if parts else ""


def outcome_facts(outcome: Outcome) -> dict[str, str | None]:
    """List the facts of an outcome that a report shows, by name; None for a fact that the outcome lacks."""
    return {
        "where": outcome.where,
        "when": circumstance_words(outcome.circumstance).removeprefix("when ") or None,
        "measured": error_against_bound(outcome),
        "said": outcome_message(outcome),
        "in": outcome.site,
    }


def error_against_bound(outcome: Outcome) -> str | None:
    """Word the error: `0.5 against a bound of 1e-14`; None where nothing was measured, or the check is a condition."""
    if outcome.measured is None or outcome.bound == 0:
        return None
    bound = "" if outcome.bound is None else f" against a bound of {number(outcome.bound)}"
    return f"{number(outcome.measured)}{bound}"
