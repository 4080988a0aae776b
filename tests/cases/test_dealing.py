"""Circumstances are dealt over the cases of a run: every one to somebody, and to nobody who cannot be called so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Hashable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from verifier.canonical import points
from verifier.cases import matrix
from verifier.cases.circumstances import (
    AXES,
    PLAIN,
    Circumstance,
    classes_in,
    complete,
    differences,
    is_allowed,
    read_rows,
)
from verifier.cases.dealing import (
    WITH_GRADIENTS,
    can_be_called,
    cost,
    deal,
    is_single,
    kind_of_model,
    kinds_of_blocks,
    plainly,
)
from verifier.cases.spec import CaseSpec
from verifier.families.falcon import FalconFamily
from verifier.family import Family

ROWS = read_rows()
Dealt = Mapping[frozenset[tuple[str, str]], Sequence[CaseSpec]]


@pytest.fixture(scope="module")
def specs(falcon: FalconFamily) -> list[CaseSpec]:
    return matrix.cases(falcon, "falcon")


@pytest.fixture(scope="module")
def everywhere(falcon: FalconFamily) -> list[CaseSpec]:
    return matrix.cases(falcon, "falcon", everywhere=True)


def by_row(specs: Sequence[CaseSpec]) -> Dealt:
    """The cases of each circumstance."""
    found: dict[frozenset[tuple[str, str]], list[CaseSpec]] = {}
    for spec in specs:
        for circumstance in spec.circumstances:
            found.setdefault(frozenset(circumstance.items()), []).append(spec)
    return found


def key(row: Circumstance) -> frozenset[tuple[str, str]]:
    return frozenset(differences(row).items())


def features(family: Family, specs: Sequence[CaseSpec]) -> set[Hashable]:
    """The values of flags, the kinds of block and the kinds of position that cases have."""
    found: set[Hashable] = set()
    for spec in specs:
        points = {point.kind.template for point in family.points(spec.config)}
        rotary = {point for point in points if "rot_" in point}
        found |= {("block", frozenset(points - rotary)), ("rotary", bool(rotary))}
    return found | {(flag, spec.config.get(flag)) for spec in specs for flag in family.flags()}


def able(family: Family, specs: Sequence[CaseSpec], row: Circumstance) -> list[CaseSpec]:
    """The cases of the matrix that can be called in a circumstance."""
    return [spec for spec in specs if spec.valid and spec.label is None and can_be_called(family, spec, row)]


def circumstances(specs: Sequence[CaseSpec]) -> Mapping[str, Sequence[Circumstance]]:
    return {spec.id: spec.circumstances for spec in specs}


def test_every_row_is_dealt(specs: Sequence[CaseSpec]) -> None:
    dealt = by_row(specs)
    assert [differences(row) for row in ROWS if key(row) not in dealt] == []


def test_every_valid_case_is_looked_at_in_something_and_in_nothing_twice(specs: Sequence[CaseSpec]) -> None:
    for spec in specs:
        rows = [frozenset(one.items()) for one in spec.circumstances]
        assert bool(rows) == spec.valid
        assert len(set(rows)) == len(rows)


def test_every_case_is_looked_at_with_gradients_first(specs: Sequence[CaseSpec]) -> None:
    assert all(spec.circumstances[0] == differences(WITH_GRADIENTS) for spec in specs if spec.valid)


def test_every_circumstance_that_is_dealt_is_allowed(specs: Sequence[CaseSpec]) -> None:
    for row in by_row(specs):
        assert is_allowed(PLAIN | dict(row))


@pytest.mark.parametrize("axis", AXES)
def test_every_single_value_meets_every_value_of_every_flag_and_every_kind_of_block(
    axis: str, falcon: FalconFamily, specs: Sequence[CaseSpec]
) -> None:
    for value in AXES[axis]:
        row = complete({axis: value}, {})
        assert row is not None
        # Beside it there is what it cannot be without, and gradients.
        alone = [
            spec
            for circumstance, those in by_row(specs).items()
            if (PLAIN | dict(circumstance))[axis] == value
            and circumstance <= {*key(row), *key(complete({axis: value}, {"grad": ("grad",)}) or row)}
            and classes_in(PLAIN | dict(circumstance))
            for spec in those
        ]
        assert features(falcon, able(falcon, specs, row)) <= features(falcon, alone), value


def test_every_other_row_is_dealt_to_one_case(specs: Sequence[CaseSpec]) -> None:
    dealt = by_row([spec for spec in specs if spec.label is None])
    assert {len(dealt[key(row)]) for row in ROWS if not is_single(row)} == {1}


def test_kinds_of_blocks_and_of_positions_are_told_apart_by_which_points_go_together(
    falcon: FalconFamily, specs: Sequence[CaseSpec]
) -> None:
    models = {kind_of_model(falcon, spec) for spec in specs if spec.valid and spec.label is None}
    groups = [{point.rpartition(".")[2] for point in group} for group in kinds_of_blocks(models)]
    assert {"hook_rot_q", "hook_rot_k"} in groups
    assert len(groups) == 2
    assert any("hook_resid_mid" in group for group in groups)


def test_everywhere_each_row_meets_every_value_of_every_flag_and_every_kind_of_block(
    falcon: FalconFamily, everywhere: Sequence[CaseSpec]
) -> None:
    dealt = by_row(everywhere)
    can: dict[tuple[str, str], set[Hashable]] = {}
    for row in ROWS:
        kind = row["mask"], row["dims"]  # all that `can_be_called` looks at
        if kind not in can:
            can[kind] = features(falcon, able(falcon, everywhere, row))
        assert can[kind] <= features(falcon, dealt[key(row)]), differences(row)


def test_what_hugging_face_cannot_be_called_with_is_dealt_to_nobody(
    falcon: FalconFamily, specs: Sequence[CaseSpec], everywhere: Sequence[CaseSpec]
) -> None:
    for spec in (*specs, *everywhere):
        for circumstance in spec.circumstances:
            row = PLAIN | circumstance
            assert falcon.circumstance_refusal(spec.config, row) is None
            if row["dims"] not in ("usual", "extreme"):
                assert falcon.refusal(falcon.reshaped(spec.config, row["dims"])) is None
    added = [spec for spec in specs if any(one.get("mask") == "additive" for one in spec.circumstances)]
    assert added
    assert not any(spec.config["alibi"] for spec in added)  # which would be refused


@pytest.mark.parametrize("where", [{"alibi": "true"}, {"multi_query": "false", "bias": "true"}], ids=str)
def test_a_run_of_fewer_cases_looks_at_each_in_the_same_circumstances(
    falcon: FalconFamily, specs: Sequence[CaseSpec], where: Mapping[str, str]
) -> None:
    fewer = matrix.cases(falcon, "falcon", where=where)
    assert 0 < len(fewer) < len(specs)
    assert circumstances(fewer).items() <= circumstances(specs).items()


@pytest.mark.parametrize(
    ("dtypes", "left"),
    [((), {"float64"}), (("float32",), {"float64", "float32"}), (("bfloat16",), {"float64", "bfloat16", "mixed"})],
    ids=["none", "float32", "bfloat16"],
)
def test_a_run_of_fewer_dtypes_leaves_out_those_and_nothing_else(
    falcon: FalconFamily, specs: Sequence[CaseSpec], dtypes: tuple[str, ...], left: set[str]
) -> None:
    fewer = matrix.cases(falcon, "falcon", dtypes=dtypes)
    for one, whole in zip(fewer, specs, strict=True):
        kept = [row for row in whole.circumstances if row.get("dtype", PLAIN["dtype"]) in left]
        assert list(one.circumstances) == kept


def test_no_case_has_much_more_to_do_than_others(specs: Sequence[CaseSpec]) -> None:
    loads = [
        sum(cost(PLAIN | one) for one in spec.circumstances) for spec in specs if spec.valid and spec.label is None
    ]
    assert max(loads) <= 2 * sum(loads) / len(loads)


def test_a_named_case_is_also_called_beyond_its_tables(specs: Sequence[CaseSpec]) -> None:
    named = [spec for spec in specs if spec.valid and spec.label is not None]
    assert named
    for spec in named:
        assert {"length": "beyond"} in spec.circumstances
        assert {"history": "longer"} in spec.circumstances


def test_a_model_of_a_published_size_is_called_plainly_alone(falcon: FalconFamily) -> None:
    (spec,) = matrix.cases(falcon, "falcon", preset=next(iter(falcon.presets())))
    assert spec.circumstances == ({"grad": "grad"},)
    refused = CaseSpec(family="falcon", config={}, valid=False)
    assert plainly([refused]) == [refused]


@pytest.mark.parametrize("seed", ["0", "1"])
def test_it_is_the_same_in_every_process_and_imports_no_torch(seed: str, specs: Sequence[CaseSpec]) -> None:
    script = (
        "import sys; from verifier import family; from verifier.cases import matrix; "
        "print([spec.circumstances for spec in matrix.cases(family.load('falcon'), 'falcon')]); "
        "assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([spec.circumstances for spec in specs])


# --- in the small ----------------------------------------------------------------------------------------------------


class Toy:
    """A family of one flag, without other shapes; it cannot be called with a boolean mask where the flag is on."""

    def flags(self) -> Mapping[str, Sequence[Any]]:
        return {"flag": (False, True)}

    def points(self, config: Mapping[str, Any]) -> Sequence[Any]:
        return [SimpleNamespace(kind=SimpleNamespace(template="on" if config["flag"] else "off"), layer=0)]

    def circumstance_refusal(self, config: Mapping[str, Any], circumstance: Circumstance) -> str | None:
        return "no" if config["flag"] and circumstance["mask"] == "boolean" else None


TOY = cast("Family", Toy())


def toys(*flags: bool) -> list[CaseSpec]:
    return [CaseSpec(family="toy", config={"flag": flag, "number": number}) for number, flag in enumerate(flags)]


def test_a_family_without_other_shapes_is_called_in_its_own() -> None:
    (spec,) = toys(True)
    assert [value for value in AXES["dims"] if can_be_called(TOY, spec, PLAIN | {"dims": value})] == [
        "usual",
        "extreme",
    ]


def test_what_a_family_refuses_goes_to_the_others_or_to_nobody() -> None:
    off, on = deal(TOY, toys(False, True))
    boolean = [one for one in off.circumstances if one.get("mask") == "boolean"]
    assert boolean
    assert not any(one.get("mask") == "boolean" for one in on.circumstances)
    (alone,) = deal(TOY, toys(True))
    rows = [row for row in ROWS if row["mask"] != "boolean" and row["dims"] in ("usual", "extreme")]
    assert {frozenset(one.items()) for one in alone.circumstances} == set(map(key, rows))


def test_where_all_cases_are_named_they_are_dealt_to_like_others() -> None:
    named = [CaseSpec(family="toy", config={"flag": True}, label="one")]
    assert {"mask": "left"} in deal(TOY, named)[0].circumstances


def test_a_refused_case_is_dealt_nothing() -> None:
    refused = CaseSpec(family="toy", config={"flag": True}, valid=False)
    given, other = deal(TOY, [refused, *toys(False)])
    assert given.circumstances == ()
    assert other.circumstances


DENSE, EXPERTS = ["blocks.{i}.mlp.hook_pre"], ["blocks.{i}.mlp.hook_expert_weights"]
ATTENTION = ["blocks.{i}.attn.hook_q"]


class Mixed(Toy):
    """A family whose flag says which of two unlike blocks has the attention."""

    def points(self, config: Mapping[str, Any]) -> Sequence[Any]:
        blocks = [[*DENSE, *ATTENTION], EXPERTS] if config["flag"] else [DENSE, [*EXPERTS, *ATTENTION]]
        return points(["hook_embed"], by_layer=blocks)


def test_models_with_the_same_points_in_other_blocks_are_of_other_kinds() -> None:
    family = cast("Family", Mixed())
    one, other = (kind_of_model(family, spec) for spec in toys(False, True))
    assert one != other
    shared = {"hook_embed", *DENSE, *EXPERTS, *ATTENTION}
    assert one & other == shared
    for row in ({"grad": "grad"}, {"dtype": "bfloat16", "grad": "grad"}):
        assert all(row in spec.circumstances for spec in deal(family, toys(False, True)))


def test_blocks_that_are_alike_make_no_kind_beside_their_points(falcon: FalconFamily) -> None:
    (spec, *_) = matrix.cases(falcon, "falcon")
    assert kind_of_model(falcon, spec) == {point.kind.template for point in falcon.points(spec.config)}


def test_a_single_value_is_single_with_gradients_or_where_there_can_be_none_without() -> None:
    def single(**values: str) -> bool:
        row = complete(values, {})
        assert row is not None
        return is_single(row)

    assert single(mask="left", grad="grad")
    assert not single(mask="left")
    assert single(grad="inference")
    assert single(past="generation")
    assert single(positions="far", grad="grad")  # needs a mask
    assert single(checkpointing="on")  # needs training, and gradients
    assert not single(mask="left", grad="inference")
    assert not single(mask="left", mode="train", grad="grad")


def test_a_deep_model_and_a_long_text_with_gradients_cost_more() -> None:
    costs = [cost(PLAIN), cost(WITH_GRADIENTS), cost(WITH_GRADIENTS | {"depth": "eleven"})]
    assert costs == sorted(costs)
    assert costs[0] == 1
    assert cost(PLAIN | {"length": "long"}) > 1
