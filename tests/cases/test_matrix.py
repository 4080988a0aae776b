"""The matrix is every flag combination and every corner, once, in one order, under ids of their own."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from verifier.cases import matrix
from verifier.cases.spec import CaseSpec
from verifier.errors import UsageError
from verifier.families.falcon import FalconFamily


@pytest.fixture(scope="module")
def specs(falcon: FalconFamily) -> list[CaseSpec]:
    return matrix.cases(falcon, "falcon")


def chosen(falcon: FalconFamily, **where: str) -> list[CaseSpec]:
    return matrix.cases(falcon, "falcon", where=where)


# --- all of it -------------------------------------------------------------------------------------------------------


def test_the_product_is_all_combinations_of_flags_once(falcon: FalconFamily, specs: list[CaseSpec]) -> None:
    flags = falcon.flags()
    combinations = [tuple(spec.config[name] for name in flags) for spec in specs if spec.label is None]
    assert len(combinations) == len(set(combinations)) == 384
    for number, (name, values) in enumerate(flags.items()):
        assert {combination[number] for combination in combinations} == set(values), name


def test_every_corner_is_there_under_its_name(falcon: FalconFamily, specs: list[CaseSpec]) -> None:
    assert [spec.label for spec in specs if spec.label is not None] == list(falcon.corners())


def test_every_config_stands_on_the_familys_dims(falcon: FalconFamily, specs: list[CaseSpec]) -> None:
    corners = falcon.corners()
    for spec in specs:
        own = corners[spec.label] if spec.label else {name: spec.config[name] for name in falcon.flags()}
        assert spec.config == {**falcon.dims(), **own}


def test_what_is_refused_has_the_familys_reason(falcon: FalconFamily, specs: list[CaseSpec]) -> None:
    assert {spec.valid for spec in specs} == {True, False}
    for spec in specs:
        assert spec.reason == falcon.refusal(spec.config)
        assert spec.valid == (spec.reason is None)


def test_every_two_values_meet_where_the_spread_checks_look(falcon: FalconFamily, specs: list[CaseSpec]) -> None:
    def meetings(chosen: list[CaseSpec]) -> set[Any]:
        return {
            met
            for spec in chosen
            for met in itertools.combinations([(name, spec.config[name]) for name in falcon.flags()], 2)
        }

    product = [spec for spec in specs if spec.valid and spec.label is None]
    pairwise = [spec for spec in product if spec.is_pairwise]
    assert meetings(pairwise) == meetings(product)
    assert len(pairwise) < len(product) / 8
    corners = [spec for spec in specs if spec.valid and spec.label is not None]
    assert 0 < sum(spec.is_pairwise for spec in corners) < len(corners)
    assert all(spec.depth == "all" for spec in specs if not spec.valid)


def test_each_kind_of_block_has_a_sampled_case(falcon: FalconFamily, specs: list[CaseSpec]) -> None:
    def kind(spec: CaseSpec) -> frozenset[str]:
        return frozenset(point.kind.template for point in falcon.points(spec.config))

    product = [spec for spec in specs if spec.valid and spec.label is None]
    assert {kind(spec) for spec in product if spec.is_sampled} == {kind(spec) for spec in product}
    assert 0 < sum(spec.is_sampled for spec in specs) < 20


def test_everywhere_is_everywhere(falcon: FalconFamily, specs: list[CaseSpec]) -> None:
    deep = matrix.cases(falcon, "falcon", everywhere=True)
    assert [spec.id for spec in deep] == [spec.id for spec in specs]
    assert all(spec.is_sampled for spec in deep)


def test_ids_are_unique(specs: list[CaseSpec]) -> None:
    ids: dict[str, CaseSpec] = {}
    for spec in specs:
        other = ids.setdefault(spec.id, spec)
        assert other is spec, f"{other.label or other.config} and {spec.label or spec.config} are one case"


def test_the_order_is_always_the_same(falcon: FalconFamily, specs: list[CaseSpec]) -> None:
    assert [spec.id for spec in matrix.cases(falcon, "falcon")] == [spec.id for spec in specs]
    assert specs[0].config == {**falcon.dims(), **{name: values[0] for name, values in falcon.flags().items()}}


def test_the_long_input_is_longer_than_any_dimension(specs: list[CaseSpec]) -> None:
    for spec in specs:
        sizes = [value for value in spec.config.values() if type(value) is int and value < 500]
        assert spec.long > max(size for size in sizes if size != spec.config["vocab_size"])


def test_some_long_input_goes_beyond_where_bfloat16_counts_exactly(specs: list[CaseSpec]) -> None:
    assert any(spec.long > 256 and spec.config.get("alibi") for spec in specs if spec.valid)


def test_seed_dtypes_device_and_family_are_as_asked_for(falcon: FalconFamily) -> None:
    for spec in matrix.cases(falcon, "mine:Falcon", seed=5, dtypes=["float16"], device="meta"):
        assert (spec.family, spec.seed, spec.dtypes, spec.device) == ("mine:Falcon", 5, ("float16",), "meta")


def test_another_seed_is_another_case(falcon: FalconFamily, specs: list[CaseSpec]) -> None:
    other = matrix.cases(falcon, "falcon", seed=1)
    assert not {spec.id for spec in other} & {spec.id for spec in specs}


# --- some of it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ({"alibi": "true"}, True),
        ({"alibi": "True"}, True),
        ({"bias": "false"}, False),
        ({"num_kv_heads": "none"}, None),
        ({"num_kv_heads": "null"}, None),
        ({"num_kv_heads": "4"}, 4),
        ({"num_kv_heads": "-1"}, -1),
        ({"activation": "relu"}, "relu"),
        ({"layer_norm_epsilon": "0.1"}, 0.1),
    ],
    ids=str,
)
def test_cases_are_chosen_by_value(falcon: FalconFamily, where: dict[str, str], value: Any) -> None:
    ((name, _),) = where.items()
    found = chosen(falcon, **where)
    assert found
    plainest = falcon.flags().get(name, (None,))[0]
    for spec in found:
        assert spec.config.get(name, plainest) == value


def test_one_is_not_true(falcon: FalconFamily) -> None:
    assert all(spec.config["num_kv_heads"] == 1 for spec in chosen(falcon, num_kv_heads="1"))
    with pytest.raises(UsageError, match="alibi=1"):
        chosen(falcon, alibi="1")


def test_several_conditions_hold_together(falcon: FalconFamily) -> None:
    found = chosen(falcon, alibi="true", bias="true", num_kv_heads="4")
    assert len([spec for spec in found if spec.label is None]) == 384 // 16


def test_a_dim_that_a_case_does_not_set_is_not_none(falcon: FalconFamily) -> None:
    """HF has a default for it, which no family writes down for each."""
    with pytest.raises(UsageError, match="layer_norm_epsilon"):
        chosen(falcon, layer_norm_epsilon="none")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"alibbi": "true"}, "--where: falcon has no flag, dim or axis 'alibbi' (did you mean 'alibi'?)"),
        ({"zzz": "true"}, "--where: falcon has no flag, dim or axis 'zzz'"),
        ({"num_kv_heads": "99"}, "--where: no case has num_kv_heads=99; it is one of "),
        ({"alibi": "maybe"}, "--where: no case has alibi=maybe; it is one of false, none, true"),
    ],
    ids=str,
)
def test_a_wrong_condition_is_the_users_and_says_what_would_be_right(
    falcon: FalconFamily, where: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError) as raised:
        chosen(falcon, **where)
    assert str(raised.value).startswith(said)


# --- presets ---------------------------------------------------------------------------------------------------------


def test_a_preset_is_one_case_at_full_width(falcon: FalconFamily) -> None:
    for name, config in falcon.presets().items():
        (spec,) = matrix.cases(falcon, "falcon", preset=name, seed=2)
        assert (spec.label, spec.config, spec.valid, spec.seed) == (name, config, True, 2)


def test_conditions_hold_for_presets_too(falcon: FalconFamily) -> None:
    assert len(matrix.cases(falcon, "falcon", preset="falcon-rw-1b", where={"alibi": "true"})) == 1
    with pytest.raises(UsageError, match="no case has alibi=false"):
        matrix.cases(falcon, "falcon", preset="falcon-rw-1b", where={"alibi": "false"})


def test_an_unknown_preset_lists_what_there_is(falcon: FalconFamily) -> None:
    with pytest.raises(
        UsageError, match=r"no preset 'falcon-70b' \(did you mean 'falcon-\w+'\?\); presets: falcon-7b, "
    ):
        matrix.cases(falcon, "falcon", preset="falcon-70b")


@pytest.mark.parametrize(
    ("preset", "heads", "kv_heads", "flags"),
    [
        ("falcon-7b", 71, None, {"multi_query": True, "parallel_attn": True}),
        ("falcon-40b", 128, 8, {"new_decoder_architecture": True}),
        ("falcon-180B", 232, 8, {"new_decoder_architecture": True}),
        ("falcon-11B", 32, 8, {"num_ln_in_parallel_attn": 1, "tie_word_embeddings": False}),
        ("falcon-rw-1b", 32, None, {"alibi": True, "bias": True, "multi_query": False, "parallel_attn": False}),
        ("falcon-rw-7b", 64, None, {"alibi": True, "bias": True, "multi_query": False, "parallel_attn": False}),
    ],
)
def test_presets_are_the_published_ones(
    falcon: FalconFamily, preset: str, heads: int, kv_heads: int | None, flags: dict[str, object]
) -> None:
    config = falcon.presets()[preset]
    assert (config["num_attention_heads"], config.get("num_kv_heads")) == (heads, kv_heads)
    assert flags.items() <= config.items()
