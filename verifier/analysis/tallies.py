"""Sentences that are true of many outcomes, each counted once: why cases are refused, why checks did not run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """A sentence and how many outcomes it is true of, by check."""

    text: str
    count: int
    checks: tuple[str, ...]


def count_texts(pairs: Iterable[tuple[str, str | None]]) -> tuple[Tally, ...]:
    """Count equal texts, each with the checks that gave it, the most frequent first."""
    counts: Counter[str] = Counter()
    checks: dict[str, set[str]] = {}
    for text, check in pairs:
        counts[text] += 1
        checks.setdefault(text, set()).update([check] if check else [])
    ordered = sorted(counts, key=lambda text: (-counts[text], text))
    return tuple(Tally(text=text, count=counts[text], checks=tuple(sorted(checks[text]))) for text in ordered)
