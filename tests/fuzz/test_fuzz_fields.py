"""What varies, and how a choice becomes a case."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from verifier import family
from verifier.cases import matrix
from verifier.cases.circumstances import AXES, PLAIN
from verifier.cases.spec import SEEDS, CaseSpec
from verifier.errors import UsageError
from verifier.fuzz.fields import INPUTS, STEPS, Choice, Space, space

FALCON = family.load("falcon")


def test_the_plainest_choice_is_the_plainest_case_of_the_matrix(falcons):
    plainest = next(spec for spec in matrix.cases(FALCON, "falcon") if spec.valid)
    found = falcons()
    assert found.spec(found.plainest).config == plainest.config
    assert found.spec(found.plainest).id == plainest.id
    assert found.spec(found.plainest).circumstances == ({"grad": "grad"}, {})
    assert found.differing(found.plainest) == {}


def test_the_inputs_plainest_values_are_a_case_s_own():
    plain = CaseSpec(family="x", config={})
    assert {name: values[0] for name, values in INPUTS.items()} == {name: getattr(plain, name) for name in INPUTS}


def test_values_of_one_field_are_all_different(falcons):
    for field in falcons().fields:
        assert len({repr(value) for value in field.values}) == len(field.values) > 1


def test_every_value_alone_is_a_case_of_its_own(falcons):
    found = falcons()
    plainest = found.plainest
    ids = {found.spec(plainest).id}
    for place, field in enumerate(found.fields):
        for value in range(1, len(field.values)):
            ids.add(found.spec(found.mended((*plainest[:place], value, *plainest[place + 1 :]), [place])).id)
    # A further step alone is a history.
    assert len(ids) == 1 + sum(len(field.values) - 1 for field in found.fields if field.name not in STEPS)


def test_what_hugging_face_refuses_is_refused(falcons):
    found = falcons()
    wanted = {"new_decoder_architecture": True, "parallel_attn": False}
    spec = found.spec(tuple(field.values.index(wanted.get(field.name, field.values[0])) for field in found.fields))
    assert not spec.valid
    assert spec.reason


def test_a_field_may_be_fixed(falcons):
    found = falcons(alibi="true", long="33")
    values = found.values(found.plainest)
    assert values["alibi"] is True
    assert values["long"] == 33
    assert found.differing(found.plainest) == {"alibi": True, "long": 33}  # it says what it was fixed to


@pytest.mark.parametrize(
    ("fixed", "said"),
    [
        ({"alibbi": "true"}, "there is no field 'alibbi' to fuzz (did you mean 'alibi'?)"),
        ({"alibi": "perhaps"}, "alibi has no value 'perhaps' to fuzz; it has false, true"),
        ({"past": "token", "depth": "shallow"}, "depth has no value 'shallow' to fuzz; it has two, three, eleven"),
        ({"then": "edited"}, "'then' is a step of the history, which is fixed whole: history=edited+backward"),
        ({"history": "edited+trained", "mode": "train"}, "no circumstance is history=edited+trained, mode=train"),
        ({"history": "edited+never"}, "history has no value 'edited+never' to fuzz; it has fresh"),
        ({"positions": "given", "mask": "none"}, "no circumstance is positions=given, mask=none"),
    ],
)
def test_a_field_or_a_value_that_is_not_there_is_one_line(fixed, said):
    with pytest.raises(UsageError, match=f"^--where: {re.escape(said)}"):
        space(FALCON, "falcon", fixed=fixed)


def chosen(found: Space, **values: Any) -> Choice:
    return tuple(field.values.index(values.get(field.name, field.values[0])) for field in found.fields)


def test_a_choice_is_mended_to_a_circumstance_and_keeps_what_is_asked_for_first(falcons):
    found = falcons()
    given, hidden = (chosen(found, **one) for one in ({"positions": "given"}, {"mask": "left", "positions": "given"}))
    assert not found.goes_together(given)  # without a mask
    assert found.goes_together(hidden)
    assert found.mended(given) == found.plainest
    place = [field.name for field in found.fields].index("positions")
    assert found.differing(found.mended(given, [place])) == {"positions": "given", "mask": "ones"}


def test_what_hugging_face_cannot_be_called_with_is_no_choice(falcons):
    found = falcons()
    masked = {"alibi": True, "mask": "additive"}
    assert FALCON.circumstance_refusal({**FALCON.dims(), "alibi": True}, {**PLAIN, "mask": "additive"}) is not None
    assert not found.goes_together(chosen(found, **masked))
    assert found.goes_together(chosen(found, mask="additive"))


def test_a_case_is_looked_at_in_its_circumstance_and_in_the_plainest_with_gradients(falcons):
    found = falcons()
    case = found.spec(chosen(found, mask="left", past="token"))
    assert case.circumstances == ({"grad": "grad"}, {"mask": "left", "past": "token"})
    assert found.spec(chosen(found, grad="grad")).circumstances == ({"grad": "grad"},)
    # Where an axis is fixed, in nothing else.
    fixed = falcons(mask="left")
    assert fixed.spec(fixed.plainest).circumstances == ({"mask": "left"},)


def test_a_history_has_steps(falcons):
    found = falcons()

    def history(**values: str) -> dict[str, str]:
        return dict(found.spec(chosen(found, **values)).circumstances[-1])

    assert history(history="edited", then="backward", lastly="edited") == {"history": "edited+backward+edited"}
    assert history(then="backward") == history(history="backward") == {"history": "backward"}
    assert CaseSpec.from_json(found.spec(chosen(found, history="edited", then="backward")).to_json()).valid


def test_a_history_without_gaps_is_the_same_case(falcons):
    found = falcons()
    for values in (
        {"then": "backward"},
        {"lastly": "inference"},
        {"then": "masked", "lastly": "longer"},
        {"history": "edited", "lastly": "edited"},
        {"history": "edited", "then": "raised", "lastly": "trained", "mask": "left"},
        {"mask": "left"},
    ):
        choice = chosen(found, **values)
        filled = found.without_gaps(choice)
        assert found.spec(filled) == found.spec(choice)
        named = [found.values(filled)[name] for name in ("history", "then", "lastly")]
        assert named == sorted(named, key=lambda one: one in ("fresh", "nothing"))
    assert found.differing(found.without_gaps(chosen(found, then="backward"))) == {"history": "backward"}


@pytest.mark.parametrize("history", ["fresh", "edited", "edited+backward"])
def test_a_history_is_fixed_whole(falcons, history: str):
    found = falcons(history=history)
    assert not any(field.name in STEPS for field in found.fields)
    wanted = {"history": history} if history != "fresh" else {}
    assert found.spec(found.plainest).circumstances[-1] == wanted
    assert found.differing(found.plainest) == wanted
    assert found.spec(found.mended(chosen(found, mode="train"))).circumstances[-1].items() >= wanted.items()


def test_a_history_none_of_whose_steps_may_be_is_mended_whole(falcons):
    found = falcons()
    # With dropouts of 0 there is no call with others.
    wanted = chosen(found, mode="train", history="edited", then="trained")
    assert not found.goes_together(wanted)
    mode, then = (tuple(field.name for field in found.fields).index(name) for name in ("mode", "then"))
    assert found.differing(found.mended(wanted, [mode])) == {"mode": "train"}
    assert found.differing(found.mended(wanted, [then])) == {"history": "edited", "then": "trained"}


def test_half_dtypes_that_are_not_run_are_no_circumstances():
    found = space(FALCON, "falcon", dtypes=("float32",))
    assert next(field.values for field in found.fields if field.name == "dtype") == ("float64", "float32")


def test_a_family_that_says_nothing_is_fuzzed_in_its_flags():
    class Silent:
        def __getattr__(self, name):
            if name.startswith("fuzzed"):
                raise AttributeError(name)
            return getattr(FALCON, name)

    names = {field.name for field in space(Silent(), "falcon").fields}
    assert names == {*FALCON.flags(), *INPUTS, *AXES, *STEPS}


def test_new_fields_of_a_case_leave_old_ids_as_they_were():
    spec = CaseSpec(family="falcon", config={"alibi": True})
    # As it was in records that were written before there were such fields.
    assert spec.id == "uckumz42"
    others = [replace(spec, padding=1), replace(spec, scale=2.0), replace(spec, attention="eager")]
    assert len({spec.id, *(other.id for other in others)}) == 4
    assert all(CaseSpec.from_json(other.to_json()) == other for other in others)


def test_the_largest_seed_has_circumstances_too():
    found = space(FALCON, "falcon", seed=SEEDS - 1)
    assert found.spec(chosen(found, mask="left")).seed < SEEDS - 1
