"""Choose few cases in which every two values of two fields meet, as far as a valid case can have both."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

from verifier.cases.covering import meetings
from verifier.fuzz.fields import Choice, Field, Space

Pair = tuple[tuple[int, int], ...]  # a field by number and the place of its value; then another one
_TRIES = 12  # random completions of a pair, of which the one is taken that has most new pairs
_MORE_TRIES = 60  # for a pair that no completion so far is accepted with


def pairs_of(choice: Choice) -> set[Pair]:
    """List every pair of values that meets in a choice."""
    return meetings(enumerate(choice), 2)


def every_pair(space: Space) -> set[Pair]:
    """List every pair of values of two fields of a space."""
    fields = [[(number, place) for place in range(len(field.values))] for number, field in enumerate(space.fields)]
    return {pair for one, other in itertools.combinations(fields, 2) for pair in itertools.product(one, other)}


class Covering:
    """Counts which pairs have met in a valid case, and chooses cases in which others meet.

    Args:
        space: what varies.
        accepted: tells whether the case of a choice is valid.
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
        """The number of pairs for which a valid case was found, or may still be found."""
        return self._all - len(self._refused)

    @property
    def met(self) -> int:
        """The number of pairs that have met."""
        return self.total - len(self._left)

    @property
    def refused(self) -> int:
        """The number of pairs for which no valid case was found."""
        return len(self._refused)

    def note(self, choice: Choice) -> None:
        """Note that the valid case of a choice is run."""
        met = pairs_of(choice)
        self._left -= met
        self._refused -= met

    def choices(self) -> Iterator[Choice]:
        """Yield choices until every pair has met or was given up."""
        while self._left:
            # This order depends on the space alone, and not on how sets are hashed.
            pair = min(self._left)
            best = self._best_with(pair)
            if best is None:
                self._left.discard(pair)
                self._refused.add(pair)
            else:
                self.note(best)
                yield best

    def _best_with(self, pair: Pair) -> Choice | None:
        best: Choice | None = None
        most = -1
        for number in range(_MORE_TRIES):
            if best is not None and number >= _TRIES:
                break
            made = self._completed(pair, plain=number == 0)
            if set(pair) <= set(enumerate(made)) and self._accepted(made):
                new = len(pairs_of(made) & self._left)
                if new > most:
                    best, most = made, new
        return best

    def _completed(self, pair: Pair, *, plain: bool) -> Choice:
        """Complete the pair to a random choice, or to the plainest one."""
        places = [0 if plain else self._draw(field) for field in self._space.fields]
        for number, place in pair:
            places[number] = place
        return self._space.mended(tuple(places), [number for number, _ in pair])

    def _draw(self, field: Field) -> int:
        # Circumstances are plain half the time: what is wrong in one hides what is wrong in another.
        plain = field.is_axis and self._random.random() < 0.5
        return 0 if plain else self._random.randrange(len(field.values))
