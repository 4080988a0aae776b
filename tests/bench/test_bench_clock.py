"""Calls are counted at the outermost, watched ones apart, and what is timed is as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from verifier.bench.clock import Clock, Kind


def test_a_call_inside_another_one_is_a_part_of_it() -> None:
    clock = Clock()
    inner = clock.timed(lambda: 1, Kind.FORWARD)
    outer = clock.timed(lambda: inner() + inner(), Kind.BACKWARD)

    assert (outer(), inner()) == (2, 1)
    assert {kind: tally.calls for kind, tally in clock.tallies.items() if tally.calls} == {
        Kind.BACKWARD: 1,
        Kind.FORWARD: 1,
    }
    assert clock.inside == clock.tallies[Kind.BACKWARD].seconds + clock.tallies[Kind.FORWARD].seconds > 0


def test_a_call_that_raises_is_counted_and_the_next_one_too() -> None:
    clock = Clock()

    def fails() -> None:
        raise KeyError("x")

    for _ in range(2):
        with pytest.raises(KeyError):
            clock.timed(fails, Kind.WRAP)()
    assert clock.tallies[Kind.WRAP].calls == 2


def test_the_kind_may_hang_on_the_first_argument() -> None:
    clock = Clock()
    timed = clock.timed(lambda value: value, lambda value: Kind.PART if value else Kind.FORWARD)
    for value in (0, 1, 1):
        assert timed(value) == value
    assert (clock.tallies[Kind.PART].calls, clock.tallies[Kind.FORWARD].calls) == (2, 1)


def test_the_adapters_other_work_is_no_models() -> None:
    clock = Clock()
    clock.timed(lambda: None, Kind.OTHER)()
    assert clock.tallies[Kind.OTHER].calls == 1
    assert clock.inside == 0


def test_results_are_shown_outside_the_time() -> None:
    clock, seen = Clock(), []
    inner = clock.timed(lambda: None, Kind.FORWARD)

    def note(value: object) -> None:
        seen.append(value)
        inner()

    clock.timed(lambda: 7, Kind.BUILD, then=note)()
    assert seen == [7]
    assert clock.tallies[Kind.FORWARD].calls == 1


def test_what_runs_while_the_harness_looks_on_is_watched() -> None:
    modes = [False]
    clock = Clock(lambda: modes[0])
    run = clock.timed(lambda: None, Kind.FORWARD)

    @contextlib.contextmanager
    def taps(value: str) -> Iterator[str]:
        yield value

    run()
    with clock.looking(taps)("here") as given:
        assert given == "here"
        run()
    modes[0] = True
    run()
    modes[0] = False
    run()
    tally = clock.tallies[Kind.FORWARD]
    assert (tally.calls, tally.watched_calls) == (4, 2)
    assert 0 < tally.watched_seconds < tally.seconds


def test_a_context_that_swallows_still_does_and_is_left() -> None:
    clock = Clock()
    run = clock.timed(lambda: None, Kind.FORWARD)
    with clock.looking(contextlib.suppress)(KeyError):
        raise KeyError("x")
    with pytest.raises(ValueError, match="y"), clock.looking(contextlib.suppress)(KeyError):
        raise ValueError("y")
    run()
    assert clock.tallies[Kind.FORWARD].watched_calls == 0


def test_it_begins_anew() -> None:
    clock = Clock()
    clock.timed(lambda: None, Kind.FORWARD)()
    clock.reset()
    assert clock.inside == 0
    assert not any(tally.calls for tally in clock.tallies.values())
