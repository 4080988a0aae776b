"""Count outcomes: by verdict, and by the reasons for which checks did not run or cases are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from verifier.judging.outcome import Outcome, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """A sentence, the number of outcomes of which it is true, and the checks that gave them."""

    text: str
    count: int
    checks: tuple[str, ...]


def count_verdicts(outcomes: Iterable[Outcome]) -> dict[Verdict, int]:
    """Count the outcomes of each verdict that is there, in the order of the verdicts."""
    counts = Counter(outcome.verdict for outcome in outcomes)
    return {verdict: counts[verdict] for verdict in Verdict if counts[verdict]}


def count_reasons(outcomes: Iterable[Outcome]) -> tuple[Tally, ...]:
    """Count the reasons for which checks did not look, the most frequent first."""
    return count_texts(
        (outcome.message or "no reason given", outcome.check) for outcome in outcomes if outcome.verdict is Verdict.SKIP
    )


def count_texts(pairs: Iterable[tuple[str, str | None]]) -> tuple[Tally, ...]:
    """Count equal texts, each with the checks that gave it, the most frequent first."""
    counts: Counter[str] = Counter()
    checks: dict[str, set[str]] = {}
    for text, check in pairs:
        counts[text] += 1
        checks.setdefault(text, set()).update([check] if check else [])
    ordered = sorted(counts, key=lambda text: (-counts[text], text))
    return tuple(Tally(text=text, count=counts[text], checks=tuple(sorted(checks[text]))) for text in ordered)
