"""Choose few cases in which every two values of every two fields meet, as far as a valid case can have both."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

from verifier.cases.covering import meetings
from verifier.fuzz.fields import Choice, Space

Pair = tuple[tuple[int, int], ...]  # a field by number and the place of its value; then another one
_TRIES = 12  # random completions of a pair, of which the one is taken that has most new pairs
_MORE_TRIES = 60  # for a pair that no completion so far is accepted with


def pairs_of(choice: Choice) -> set[Pair]:
    """Every pair of values that meets in a choice."""
    return meetings(enumerate(choice), 2)


def every_pair(space: Space) -> set[Pair]:
    """Every pair of values of two fields."""
    fields = [[(number, place) for place in range(len(field.values))] for number, field in enumerate(space.fields)]
    return {pair for one, other in itertools.combinations(fields, 2) for pair in itertools.product(one, other)}


class Covering:
    """Counts which pairs have met in a valid case, and chooses cases in which others meet.

    Args:
        space: whose pairs they are.
        accepted: whether a choice's case is valid.
        seed: of the random completions.
    """

    def __init__(self, space: Space, accepted: Callable[[Choice], bool], seed: int = 0) -> None:
        self._space = space
        self._accepted = accepted
        self._random = random.Random(seed)
        self._left = every_pair(space)
        self._all = len(self._left)
        self._refused: set[Pair] = set()

    @property
    def total(self) -> int:
        """How many pairs there are that a valid case was found for, or may still be."""
        return self._all - len(self._refused)

    @property
    def met(self) -> int:
        """How many pairs have met."""
        return self.total - len(self._left)

    @property
    def refused(self) -> int:
        """How many pairs no valid case was found for."""
        return len(self._refused)

    def note(self, choice: Choice) -> None:
        """A valid case of that choice was run."""
        met = pairs_of(choice)
        self._left -= met
        self._refused -= met

    def choices(self) -> Iterator[Choice]:
        """Choices until every pair has met or was given up; whoever takes one notes it."""
        while self._left:
            # In an order that hangs on nothing but the space, however sets are hashed.
            pair = min(self._left)
            best = self._best_with(pair)
            if best is None:
                self._left.discard(pair)
                self._refused.add(pair)
            else:
                self.note(best)
                yield best

    def _best_with(self, pair: Pair) -> Choice | None:
        found: Choice | None = None
        most = -1
        for number in range(_MORE_TRIES):
            if found is not None and number >= _TRIES:
                break
            made = self._completed(pair, plain=number == 0)
            if self._accepted(made):
                new = len(pairs_of(made) & self._left)
                if new > most:
                    found, most = made, new
        return found

    def _completed(self, pair: Pair, *, plain: bool) -> Choice:
        """Complete the pair to a random choice, or to the plainest one."""
        places = [0 if plain else self._random.randrange(len(field.values)) for field in self._space.fields]
        for number, place in pair:
            places[number] = place
        return tuple(places)
