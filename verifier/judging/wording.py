"""How outcomes read: the words and shapes for verdicts, what a check said, and an error beside its bound."""

from __future__ import annotations

from collections.abc import Mapping

from verifier.judging.outcome import Outcome, Verdict
from verifier.output.text import number

VERDICT_WORDS: Mapping[Verdict, str] = {
    Verdict.PASS: "ok",
    Verdict.REDUCED: "reduced",
    Verdict.FAIL: "FAIL",
    Verdict.ERROR: "ERROR",
    Verdict.CRASH: "CRASH",
    Verdict.TIMEOUT: "TIMEOUT",
    Verdict.SKIP: "n/a",
    Verdict.UPSTREAM: "upstream",
    Verdict.KNOWN: "known",
}

# A shape for each verdict, so that none is told by colour alone.
VERDICT_SHAPES: Mapping[Verdict, str] = {
    Verdict.PASS: "✓",
    Verdict.REDUCED: "≈",
    Verdict.FAIL: "✗",
    Verdict.ERROR: "!",
    Verdict.CRASH: "☠",
    Verdict.TIMEOUT: "◷",
    Verdict.SKIP: "–",
    Verdict.UPSTREAM: "↑",
    Verdict.KNOWN: "◇",
}


def said(outcome: Outcome) -> str | None:
    """What it said: the message, with the exception's type before it where it does not name that itself.

    Of a crash or a timeout the message alone, which is the harness's own and says how the process ended.
    """
    message, exception = outcome.message, outcome.exception
    if outcome.verdict in (Verdict.CRASH, Verdict.TIMEOUT):
        return message or exception
    if exception is None or exception in (message or ""):
        return message or exception
    return f"{exception}: {message}" if message else exception


def facts(outcome: Outcome) -> dict[str, str | None]:
    """What is said of an outcome in a list, by name; None where there is nothing to say."""
    return {
        "where": outcome.where,
        "measured": against_bound(outcome),
        "said": said(outcome),
        "in": outcome.site,
    }


def against_bound(outcome: Outcome) -> str | None:
    """`0.5 against a bound of 1e-14`; None where nothing was measured, or what is either so or not."""
    if outcome.measured is None or outcome.bound == 0:
        return None
    bound = "" if outcome.bound is None else f" against a bound of {number(outcome.bound)}"
    return f"{number(outcome.measured)}{bound}"
