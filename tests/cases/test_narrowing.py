"""`--where` chooses cases by the fields of their configs, and circumstances by their axes."""

from __future__ import annotations

import pytest

from verifier.cases import matrix
from verifier.cases.circumstances import PLAIN
from verifier.cases.dealing import WITH_GRADIENTS
from verifier.cases.narrowing import Narrowing
from verifier.cases.spec import CaseSpec
from verifier.errors import Inconclusive, UsageError
from verifier.families.falcon import FalconFamily


@pytest.fixture(scope="module")
def specs(falcon: FalconFamily) -> list[CaseSpec]:
    return matrix.cases(falcon, "falcon")


def asked(falcon: FalconFamily, **where: str) -> list[CaseSpec]:
    return matrix.cases(falcon, "falcon", where=where)


@pytest.mark.parametrize(
    "where",
    [{"dtype": "bfloat16"}, {"dtype": "float64"}, {"mask": "none"}, {"dtype": "bfloat16", "mask": "left"}],
    ids=str,
)
def test_each_case_keeps_the_circumstances_with_the_values_and_no_other(
    falcon: FalconFamily, specs: list[CaseSpec], where: dict[str, str]
) -> None:
    found = asked(falcon, **where)
    assert [spec.id for spec in found] == [spec.id for spec in specs]
    for before, after in zip(specs, found, strict=True):
        wanted = [one for one in before.circumstances if all((PLAIN | one)[axis] == where[axis] for axis in where)]
        assert list(after.circumstances) == wanted
        assert (after.depth, after.valid) == (before.depth, before.valid)
    kept = sum(len(spec.circumstances) for spec in found)
    assert 0 < kept < sum(len(spec.circumstances) for spec in specs)
    # Every case is looked at in the plainest circumstance with gradients.
    assert any(spec.valid and not spec.circumstances for spec in found) != (where.items() <= WITH_GRADIENTS.items())


def test_fields_and_axes_go_together(falcon: FalconFamily) -> None:
    found = asked(falcon, alibi="true", past="token")
    assert all(spec.config["alibi"] is True for spec in found)
    rows = [one for spec in found for one in spec.circumstances]
    assert rows
    assert {one["past"] for one in rows} == {"token"}


def test_a_name_that_is_both_is_the_field(falcon: FalconFamily) -> None:
    before = [
        CaseSpec(family="falcon", config={"depth": depth}, circumstances=({}, {"depth": "three"})) for depth in (2, 3)
    ]
    found = Narrowing(falcon, before, {"depth": "3"}).narrow(before)
    assert found == before[1:]
    with pytest.raises(UsageError, match=r"no case has depth=three; it is one of 2, 3$"):
        Narrowing(falcon, before, {"depth": "three"})


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"dtpye": "bfloat16"}, "--where: falcon has no flag, dim or axis 'dtpye' (did you mean 'dtype'?)"),
        ({"alibbi": "true"}, "--where: falcon has no flag, dim or axis 'alibbi' (did you mean 'alibi'?)"),
        ({"hidden_sise": "3"}, "--where: falcon has no flag, dim or axis 'hidden_sise' (did you mean 'hidden_size'?)"),
        (
            {"checkpointing": "onn"},
            "--where: checkpointing has no value 'onn' (did you mean 'on'?); it is one of off, on",
        ),
        (
            {"mask": "additive", "past": "chunk"},
            "--where: mask=additive and past=chunk do not go together: Adapters are given a 4-D mask over one "
            "call's tokens, which does not fit the keys of a cache.",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_with_an_axis_is_said(falcon: FalconFamily, where: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        asked(falcon, **where)
    assert str(raised.value) == said


def test_nothing_that_is_asked_for_is_inconclusive(falcon: FalconFamily) -> None:
    with pytest.raises(Inconclusive, match=r"^no case of this run is looked at with dtype=bfloat16; nothing ran$"):
        matrix.cases(falcon, "falcon", dtypes=["float32"], where={"dtype": "bfloat16"})
    with pytest.raises(Inconclusive, match="past=token"):  # a published shape is looked at most plainly alone
        matrix.cases(falcon, "falcon", preset="falcon-rw-1b", where={"past": "token"})
    (spec,) = matrix.cases(falcon, "falcon", preset="falcon-rw-1b", where={"grad": "grad"})
    assert spec.circumstances == ({"grad": "grad"},)
