"""The minimal case of one failure, found by Hypothesis' shrinker, which sees choices alone and never runs a case.

The test that Hypothesis is given asks whether a choice still fails *like this*: a choice that fails otherwise does not
count, so shrinking never slips from one bug to another.
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
    """The smallest choice that was found to fail in the same way; `start` itself if that is the one.

    One that shrinking ended with before is still the smallest if it fails and nothing that is one step plainer does:
    to know that takes a few calls. Otherwise Hypothesis goes on from there.

    Args:
        start: a choice that fails.
        sizes: how many values each field has.
        fails: whether a choice fails in that way; asked at most once of each, and at most `calls` times.
        before: what shrinking this failure ended with in other campaigns; it need not fail any more.
        calls: after how many a shrink is given up, with the best that it has.
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
    """The choices in which one field is the plainest, or the next plainer one."""
    for place, value in enumerate(choice):
        for less in sorted({0, value - 1}) if value else ():
            yield (*choice[:place], less, *choice[place + 1 :])
