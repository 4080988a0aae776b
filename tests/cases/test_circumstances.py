"""The axes and constraints of circumstances, and the covering array that is kept beside them."""

from __future__ import annotations

import pytest

from verifier.cases.circumstances import (
    AXES,
    CLASSES,
    CONSTRAINTS,
    PLAIN,
    ObservableClass,
    complete,
    differences,
    has_one_of,
    is_allowed,
    is_value,
    meaning,
    missing_meetings,
    read_rows,
    shorter,
    with_plainer_step,
)

ROWS = read_rows()
CLASS_NAMES = [kind.name for kind in CLASSES]


def test_the_plainest_values_are_a_circumstance() -> None:
    assert is_allowed(PLAIN)
    assert complete({}, {}) == PLAIN == ROWS[0]
    assert differences(PLAIN) == {}


def test_constraints_name_axes_and_values_that_there_are() -> None:
    for constraint in CONSTRAINTS:
        for axis, values in constraint.values.items():
            assert set(values) <= AXES[axis].keys(), constraint.reason
            assert values, constraint.reason
    for kind in CLASSES:
        assert set(kind.axes) <= AXES.keys()
        for axis, values in kind.needs.items():
            assert set(values) <= AXES[axis].keys(), kind.name


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=[str(number) for number in range(len(CONSTRAINTS))])
def test_each_constraint_excludes_something_that_no_other_does(constraint) -> None:
    others = [other for other in CONSTRAINTS if other is not constraint]
    part = {axis: values[0] for axis, values in constraint.values.items()}
    assert not is_allowed(part)
    assert not any(other.excludes(part) for other in others)


def test_a_circumstance_is_completed_as_plainly_as_the_constraints_allow() -> None:
    assert differences(complete({"positions": "far"}, {})) == {"mask": "ones", "positions": "far"}
    assert complete({"past": "generation", "labels": "given"}, {}) is None
    assert complete({"past": "generation"}, CLASSES[0].needs) is None
    assert complete({}, {"grad": ("grad",)}) == PLAIN | {"grad": "grad"}


def test_histories_of_which_one_follows_the_other_are_a_value() -> None:
    assert is_value("history", "edited+backward+edited")
    assert is_value("history", "fresh")
    assert not any(
        is_value(*one) for one in (("history", "edited+fresh"), ("history", "edited+"), ("mask", "left+gaps"))
    )
    assert meaning("history", "edited+backward") == "after a call with an edit, then after a backward"
    assert shorter("edited+backward+edited") == ["backward+edited", "edited+edited", "edited+backward"]
    assert shorter("edited") == []
    assert list(with_plainer_step("edited+longer", 0)) == ["masked+longer", "longer+longer"]
    assert list(with_plainer_step("edited", 0)) == []
    assert has_one_of("masked+inference+longer", ["masked+longer"])
    assert not has_one_of("longer+masked", ["masked+longer"])
    assert not is_allowed({"history": "edited+trained", "mode": "train"})
    assert complete({"history": "edited+backward"}, {}) == PLAIN | {"history": "edited+backward"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLASSES, ids=CLASS_NAMES)
def test_every_meeting_of_a_class_has_a_row_in_which_it_can_be_looked_at(kind: ObservableClass) -> None:
    assert missing_meetings(ROWS, kind) == set()


def test_a_row_that_is_missing_is_seen() -> None:
    tokens = CLASSES[CLASS_NAMES.index("exact tokens")]
    looked_at = [number for number, row in enumerate(ROWS) if tokens.can_look(row)]
    fewer = [row for number, row in enumerate(ROWS) if number != looked_at[-1]]
    assert missing_meetings(fewer, tokens)


def test_every_row_is_allowed_and_stands_once() -> None:
    assert all(map(is_allowed, ROWS))
    assert len({tuple(row.items()) for row in ROWS}) == len(ROWS)


def test_the_single_values_come_first() -> None:
    sizes = [len(differences(row)) for row in ROWS]
    singles = [number for number, size in enumerate(sizes) if size == 1]
    possible = [
        {axis: value}
        for axis, values in AXES.items()
        for value in values
        if value != PLAIN[axis] and is_allowed(PLAIN | {axis: value})
    ]
    made = [differences(ROWS[number]) for number in singles]
    assert all(value in made for value in possible)
    assert len(made) == len(possible)
    assert max(sizes[: singles[-1]]) <= 3  # positions need a mask, and checkpointing needs training and gradients


def test_what_no_meeting_needs_is_plain() -> None:
    plain = sum(row[axis] == PLAIN[axis] for row in ROWS for axis in AXES)
    assert plain >= len(ROWS) * len(AXES) / 2
