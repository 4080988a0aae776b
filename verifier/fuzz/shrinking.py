"""Shrink one failure to its minimal case with Hypothesis' shrinker, which sees only choices and never runs a case.

Hypothesis is told whether a choice fails *in the same way*. A choice that fails in another way does not count, so
shrinking never slips from one bug to another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from hypothesis import Phase, find, settings, strategies
from hypothesis.database import InMemoryExampleDatabase, choices_to_bytes
from hypothesis.errors import Flaky, NoSuchExample

from verifier.fuzz.fields import Choice

MOST_CALLS = 400
_KEY = b"verifier"
# Where Hypothesis keeps what it has found and not yet shrunk: it is tried first, and then made smaller.
_NOT_YET_SHRUNK = _KEY + b".secondary"


def minimal(
    start: Choice,
    sizes: Sequence[int],
    fails: Callable[[Choice], bool],
    *,
    before: Sequence[Choice] = (),
    calls: int = MOST_CALLS,
) -> Choice:
    """Find the smallest choice that fails in the same way; it may be `start` itself.

    A choice that shrinking ended with before is still the smallest if it fails and no choice that is one step plainer
    does, which takes a few calls to know. Otherwise Hypothesis goes on from there.

    Args:
        start: a choice that fails.
        sizes: how many values each field has.
        fails: tells whether a choice fails in that way; called at most once for each choice, and at most `calls` times.
        before: the choices that shrinking this failure ended with in earlier campaigns; they may not fail any more.
        calls: the number of calls after which shrinking gives up and returns the best choice so far.
    """
    known: dict[Choice, bool] = {start: True}
    best = start

    def asked(choice: Choice) -> bool:
        nonlocal best
        choice = tuple(choice)
        if choice not in known:
            known[choice] = len(known) <= calls and fails(choice)
        if known[choice] and choice < best:
            best = choice
        return known[choice]

    for choice in sorted(before):
        if choice < start and asked(choice):
            break
    if best in before and not any(asked(one) for one in _plainer(best)):
        return best
    database = InMemoryExampleDatabase()
    database.save(_NOT_YET_SHRUNK, choices_to_bytes(best))
    chosen = settings(
        database=database,
        phases=[Phase.reuse, Phase.shrink],
        max_examples=calls,
        deadline=None,
        print_blob=False,
    )
    space = strategies.tuples(*(strategies.integers(0, size - 1) for size in sizes))
    # An answer that is given up on after `calls` may contradict an earlier one; what failed is kept here.
    with contextlib.suppress(NoSuchExample, Flaky):
        find(space, asked, settings=chosen, database_key=_KEY)
    return best


def _plainer(choice: Choice) -> Iterator[Choice]:
    """Yield the choices in which one field has its plainest value, or the next plainer one."""
    for place, value in enumerate(choice):
        for less in sorted({0, value - 1}) if value else ():
            yield (*choice[:place], less, *choice[place + 1 :])
