"""Cases are run dearest first, by what was measured."""

from __future__ import annotations

import pytest

from verifier.cases.spec import CaseSpec
from verifier.engine.events import CheckInfo
from verifier.engine.schedule import Schedule

CHECKS = (
    CheckInfo(id="build.adapter", doc="", applies="valid"),
    CheckInfo(id="forward.logits", doc="", applies="valid"),
    CheckInfo(id="build.refusal", doc="", applies="invalid"),
)


def spec(name: str, **more) -> CaseSpec:
    return CaseSpec(family="toy", config={"name": name}, **more)


REFUSED, SHORT, LONG = spec("refused", valid=False), spec("short"), spec("long", length=40)


def test_what_more_checks_look_at_comes_first_while_nothing_is_known():
    schedule = Schedule([REFUSED, SHORT], CHECKS)
    assert schedule
    assert schedule.estimate_left({}, [], 1) is None
    assert [schedule.take_case(), schedule.take_case()] == [SHORT, REFUSED]
    assert not schedule
    with pytest.raises(IndexError):
        schedule.take_case()


def test_what_was_dear_before_comes_first():
    known = {REFUSED.id: 5.0, SHORT.id: 1.0, LONG.id: 3.0}
    schedule = Schedule([SHORT, REFUSED, LONG], CHECKS, known)
    assert schedule.estimate_left({}, [], 2) == 4.5
    assert [schedule.take_case() for _ in range(3)] == [REFUSED, LONG, SHORT]


def test_a_kind_that_turns_out_dear_is_taken_first():
    short, long = [spec(f"short {i}") for i in range(3)], [spec(f"long {i}", length=40) for i in range(3)]
    schedule = Schedule([*short, *long], CHECKS)
    first, second = schedule.take_case(), schedule.take_case()
    assert (first, second) == (short[0], short[1])  # nothing tells them apart yet
    schedule.note_cost(first.id, 1.0)
    schedule.note_cost(second.id, 1.0)
    taken = schedule.take_case()
    schedule.note_cost(taken.id, 9.0 if taken in long else 1.0)
    rest = [schedule.take_case() for _ in range(3)]
    assert rest[0] in long or taken not in long
    assert rest.index(long[1]) < rest.index(short[2]) if taken in long else True


def test_the_time_that_is_left_counts_what_runs_and_what_is_run_again():
    short = [spec(f"short {i}") for i in range(5)]
    schedule = Schedule(short, CHECKS)
    for one in short[:3]:
        assert schedule.take_case() == one
    schedule.note_cost(short[0].id, 2.0)
    # Two wait, two run (one of them for a second), one is run again alone afterwards.
    assert schedule.estimate_left({short[1].id: 0.0, short[2].id: 1.0}, [short[0]], 2) == (2 * 2 + 2 + 1) / 2 + 2
    # What takes longer than its like is not counted below nothing.
    assert schedule.estimate_left({short[1].id: 60.0}, [], 1) == 2 * 2


def test_each_side_of_a_kind_is_taken_as_it_stands():
    first, *others = all_alike = [spec(f"short {i}") for i in range(4)]
    schedule = Schedule(all_alike, CHECKS, known={one.id: float(i) for i, one in enumerate(all_alike)})
    assert schedule.take_case() == first
    assert [schedule.take_case(last=True), schedule.take_case(last=True)] == others[:0:-1]
    assert schedule.take_case(last=True) == others[0]
