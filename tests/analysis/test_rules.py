"""The shortest predicate that tells failing cases from passing ones, on sets whose rule is known."""

from __future__ import annotations

import ast
import functools
import itertools
import operator
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.analysis.rules import explain

FLAGS = {"alibi": [False, True], "bias": [False, True], "new": [False, True, None], "kv_heads": [None, 1, 3, 6]}
CONFIGS = [
    {**dict(zip(FLAGS, values, strict=True)), "heads": 6, "width": 48, "act": "gelu"}
    for values in itertools.product(*FLAGS.values())
]
CORNERS = [{**CONFIGS[0], "heads": 3, "width": 12, "act": "relu"}, {**CONFIGS[1], "heads": 3, "width": 15}]


def found(fails, configs=(*CONFIGS, *CORNERS)):
    """The rule of the configs of which `fails` is true."""
    failing = [config for config in configs if fails(config)]
    return explain(failing, [config for config in configs if not fails(config)], flags=FLAGS)


def test_one_flag_is_enough():
    rule = found(lambda config: config["alibi"])
    assert rule.text == "alibi"
    assert rule.exact
    assert rule.count_support() == "fails 24 of 24, passes 26 of 26"
    assert rule.state() == "alibi (fails 24 of 24, passes 26 of 26)"


@pytest.mark.parametrize(
    ("fails", "text"),
    [
        (lambda config: not config["bias"], "not bias"),
        (lambda config: config["new"] is None, "new is None"),
        (lambda config: config["kv_heads"] == 3, "kv_heads == 3"),
        (lambda config: config["kv_heads"] is not None, "kv_heads is not None"),
        (lambda config: config["kv_heads"] in (1, 3), "kv_heads < 6"),
        (lambda config: config["act"] == "relu", "act == 'relu'"),
        (lambda config: config["new"] is True and config["bias"], "bias and new"),
        (lambda config: config["alibi"] or config["kv_heads"] == 6, "alibi or kv_heads == 6"),
        (lambda config: config["alibi"] and config["bias"] and config["new"] is False, "alibi and bias and not new"),
    ],
)
def test_a_known_rule_is_found(fails, text):
    rule = found(fails)
    assert (rule.text, rule.exact) == (text, True)


def test_two_numbers_are_held_against_each_other():
    configs = [{"heads": heads, "kv_heads": kv} for heads in (2, 3, 4, 6) for kv in (1, 2, 3, 4, 6) if kv <= heads]
    rule = found(lambda config: config["kv_heads"] < config["heads"], configs)
    assert rule.text == "kv_heads < heads"
    assert rule.exact


GROUPED = [
    {"new": new, "heads": heads, "kv_heads": kv}
    for new in (False, True)
    for heads in (2, 3, 4, 6)
    for kv in (None, 1, 2, 3, 4, 6)
    if kv is None or kv <= heads
]


def grouped(config):
    return config["kv_heads"] is not None and 1 < config["kv_heads"] < config["heads"]


@pytest.mark.parametrize(
    ("fails", "text"),
    [
        (grouped, "1 < kv_heads < heads"),
        (lambda config: config["new"] and grouped(config), "1 < kv_heads < heads and new"),
        (lambda config: config["new"] or grouped(config), "1 < kv_heads < heads or new"),
    ],
)
def test_a_number_between_a_constant_and_another_is_one_thing(fails, text):
    rule = found(fails, GROUPED)
    assert (rule.text, rule.exact) == (text, True)


def test_a_single_comparison_that_tells_the_same_is_plainer():
    assert found(grouped, [config for config in GROUPED if config["heads"] == 3]).text == "kv_heads == 2"
    assert found(grouped, [config for config in GROUPED if config["kv_heads"] != 1]).text == "kv_heads < heads"


def test_only_small_values_are_the_lower_end():
    configs = [{"one": one, "other": other} for one in range(9) for other in range(9)]
    rule = found(lambda config: 7 < config["one"] < config["other"] or config["one"] == config["other"] == 0, configs)
    assert "7 < one" not in rule.text


DTYPES = [["float32"], ["float32", "bfloat16"], ["bfloat16"], ["float32", "float16"], []]


@pytest.mark.parametrize(
    ("fails", "text"),
    [
        (lambda config: "bfloat16" in config["dtypes"], "'bfloat16' in dtypes"),
        (lambda config: "float32" not in config["dtypes"], "'float32' not in dtypes"),
        (lambda config: config["dtypes"] == ["float32"], "dtypes == ['float32']"),
        (lambda config: config["dtype"] == "bfloat16", "dtype == 'bfloat16'"),
        (lambda config: config["attention"] != "sdpa", "attention != 'sdpa'"),
        (lambda config: config["attention"] is None, "attention is None"),
        (lambda config: config["causal"] == [True, False], "causal == [True, False]"),
        (
            lambda config: config["attention"] == "eager" and "float16" in config["dtypes"],
            "attention == 'eager' and 'float16' in dtypes",
        ),
    ],
)
def test_texts_and_lists_are_told_apart(fails, text):
    configs = [
        {"dtypes": dtypes, "dtype": dtype, "attention": attention, "causal": causal}
        for dtypes in DTYPES
        for dtype in ("float32", "bfloat16", "float16")
        for attention in ("sdpa", "eager", "flash", None)
        for causal in ([True, False], [False, True], [True, True])
    ]
    rule = found(fails, configs)
    assert (rule.text, rule.exact) == (text, True)


def test_equal_values_are_one_wherever_they_came_from():
    failing = [{"rope": {"type": "yarn", "factor": 2.0}, "sizes": (1, 2)}, {"rope": {"factor": 2.0, "type": "yarn"}}]
    rule = explain(failing, [{"rope": {"type": "linear", "factor": 2.0}, "sizes": [1, 2]}, {"rope": None}])
    assert rule.text == "rope == {'factor': 2.0, 'type': 'yarn'}"
    assert explain([{"sizes": (1, 2)}], [{"sizes": [1, 2]}]) is None


def test_one_number_is_one_threshold_however_it_is_written():
    low, high = [{"epsilon": 0}, {"epsilon": 0.5}], [{"epsilon": 1}, {"epsilon": 1.0}]
    for configs in itertools.permutations(high):
        assert explain(configs, low).text == "epsilon == 1"
    for configs in itertools.permutations([*high, {"epsilon": 2}]):
        assert explain(configs, low).text == "epsilon >= 1"


def test_a_flag_that_a_config_does_not_name_has_its_plainest_value():
    failing, passing = [{"alibi": False, "width": 1}, {"width": 2}], [{"alibi": True, "width": 1}]
    assert explain(failing, passing, flags={"alibi": (False, True)}).text == "not alibi"
    assert explain(failing, passing, flags=["alibi"]).text == "alibi is not True"


def test_a_switch_that_is_none_is_not_off():
    configs = [{"alibi": value, "bias": bias} for value in (None, False, True) for bias in (False, True)]
    assert found(lambda config: config["alibi"] is False, configs).text == "not alibi"
    assert found(lambda config: config["alibi"] is not True, configs).text == "alibi is not True"


@pytest.mark.parametrize(
    ("fails", "text"),
    [
        (
            lambda config: config["bias"] or (config["alibi"] and config["kv_heads"] == 3),
            "bias or (alibi and kv_heads == 3)",
        ),
        (
            lambda config: config["bias"] and (config["alibi"] or config["kv_heads"] == 3),
            "bias and (alibi or kv_heads == 3)",
        ),
    ],
)
def test_one_pair_may_be_within_another(fails, text):
    rule = found(fails)
    assert (rule.text, rule.exact) == (text, True)


def test_one_pair_within_another_may_have_exceptions():
    odd = next(config for config in CONFIGS if not config["bias"] and not config["alibi"])
    rule = found(
        lambda config: config is odd or config["bias"] or (config["alibi"] and config["kv_heads"] == 3), CONFIGS
    )
    assert rule.text == "bias or (alibi and kv_heads == 3)"
    assert (len(rule.missed), rule.unjust) == (1, ())


def test_where_none_is_exact_the_best_is_given_with_its_exceptions():
    odd = CONFIGS[0]  # fails too, although nothing of it says why
    rule = found(lambda config: config["alibi"] or config is odd, CONFIGS)
    assert not rule.exact
    assert rule.text == "alibi"
    assert (rule.failing, rule.caught, rule.passing, rule.spared) == (25, 24, 23, 23)
    assert rule.state() == "nearly, with 1 exception: alibi (fails 24 of 24, passes 23 of 24)"


def test_the_exceptions_can_be_looked_up():
    failing = [{"alibi": True}, {"alibi": False}, {"alibi": True}, {"alibi": True}]
    passing = [{"alibi": False}, {"alibi": False}, {"alibi": True}, {"alibi": False}]
    rule = explain(failing, passing, flags=["alibi"])
    assert (rule.text, rule.missed, rule.unjust) == ("alibi", (1,), (2,))
    assert (rule.caught, rule.spared) == (3, 3)


def test_an_exact_rule_has_no_exceptions():
    rule = found(lambda config: config["alibi"])
    assert (rule.missed, rule.unjust) == ((), ())


def test_what_hits_no_better_than_chance_is_no_rule():
    alike = [{"alibi": on} for on in (False, True)]
    assert explain(alike, alike) is None
    # Of the one that fails nothing is true that is not true of more that pass, and what is true of none is no rule.
    rule = explain([{"a": 0, "b": 0}], [{"a": 0, "b": 0}, {"a": 0, "b": 1}, {"a": 1, "b": 0}])
    assert rule.caught == 1


def test_flags_are_preferred_to_what_tells_the_same():
    configs = [{"alibi": on, "a_width": 5 if on else 7} for on in (False, True)]
    assert explain(configs[1:], configs[:1], flags=["alibi"]).text == "alibi"


DEPTHS = ("all", "pairwise", "sampled")


def test_a_field_that_is_named_last_is_named_where_nothing_else_tells():
    configs = [{"alibi": on, "depth": depth} for on in (False, True) for depth in DEPTHS]
    sides = ([one for one in configs if (one["depth"] != "all") is deep] for deep in (True, False))
    rule = explain(*sides, flags=["alibi"], last=["depth"])
    assert (rule.text, rule.exact) == ("depth != 'all'", True)


def test_a_field_that_is_named_last_is_not_named_where_a_longer_rule_does_without():
    """Of few cases the one that is looked at most closely may be the only one that fails."""
    configs = [{"alibi": on, "bias": bias, "depth": "all"} for on in (False, True) for bias in (False, True)]
    failing = {**configs.pop(), "depth": "sampled"}
    assert explain([failing], configs, flags=["alibi", "bias"]).text == "depth == 'sampled'"
    assert explain([failing], configs, flags=["alibi", "bias"], last=["depth"]).text == "alibi and bias"


def test_a_field_that_is_named_last_is_not_named_where_it_helps_nothing():
    configs = [{"alibi": on, "seed": seed} for on in (False, True, True) for seed in (0, 1)]
    rule = explain(configs[2:], [*configs[:2], configs[2], configs[3]], flags=["alibi"], last=["seed"])
    assert rule.text == "alibi"


def test_a_number_that_is_no_size_is_held_against_no_other():
    configs = [{"padding": padding, "layers": layers} for padding in range(4) for layers in range(4)]
    sides = [[one for one in configs if (one["padding"] < one["layers"]) is fails] for fails in (True, False)]
    assert explain(*sides).text == "padding < layers"
    rule = explain(*sides, no_sizes=["padding"])
    assert "padding < layers" not in rule.text
    assert "layers < padding" not in rule.text


def test_where_there_is_nothing_to_tell_apart_there_is_no_rule():
    assert explain([], CONFIGS) is None
    assert explain(CONFIGS, []) is None
    assert explain([{"a": 1}], [{"a": 1}]) is None


def test_ten_thousand_configs_of_many_random_fields_are_told_apart_by_what_matters():
    draw = random.Random(0)
    switches, dims = [f"flag_{number}" for number in range(12)], [f"dim_{number}" for number in range(15)]
    configs = [
        {name: draw.random() < 0.5 for name in switches} | {name: draw.randint(1, 200) for name in dims}
        for _ in range(10_000)
    ]

    def fails(config):
        return config["flag_3"] and config["flag_7"] and 2 < config["dim_4"] < config["dim_9"]

    failing, passing = ([config for config in configs if fails(config) is wrong] for wrong in (True, False))
    rule = explain(failing, passing, flags=switches)
    assert rule.state().startswith("2 < dim_4 < dim_9 and flag_3 and flag_7 (fails")


# --- whatever the configs --------------------------------------------------------------------------------------------

COMPARED = {
    ast.Lt: operator.lt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda one, many: many is not None and one in many,
    ast.NotIn: lambda one, many: many is not None and one not in many,
}


@functools.cache
def parsed(text):
    return ast.parse(text, mode="eval").body


def holds(text, config):
    """Whether a predicate is true of a config: Python's own reading of it, but for what None means."""

    def value(node):
        return config[node.id] if isinstance(node, ast.Name) else ast.literal_eval(node)

    def compared(one, relation, other):
        if isinstance(relation, ast.Lt | ast.GtE) and None in (one, other):
            return False  # None is no number
        return COMPARED[type(relation)](one, other)

    def true(node):
        match node:
            case ast.BoolOp(op=ast.And()):
                return all(map(true, node.values))
            case ast.BoolOp():
                return any(map(true, node.values))
            case ast.UnaryOp():
                return value(node.operand) is False  # what is None is not off
            case ast.Name():
                return value(node) is True
        values = [value(one) for one in (node.left, *node.comparators)]
        return all(map(compared, values, node.ops, values[1:]))

    return true(parsed(text))


def everything_said(configs):
    """Every atom that there may be, in words; made without a thought of how long that takes."""
    numeric = ("kv_heads", "heads")
    for name in ("alibi", "bias"):
        yield from (name, f"not {name}")
        yield from (f"{name} {relation} {value}" for relation in ("is", "is not") for value in (None, True, False))
    for name in ("kv_heads", "heads", "dtype", "dtypes"):
        for value in (config[name] for config in configs):
            yield from (f"{name} {relation} {value!r}" for relation in ("==", "!="))
            yield from (f"{name} {relation} {value!r}" for relation in ("<", ">=") if name in numeric and value)
            yield from (
                f"{one!r} {relation} dtypes" for relation in ("in", "not in") if name == "dtypes" for one in value
            )
    for one, other in itertools.permutations(numeric):
        yield from (f"{one} < {other}", f"{one} == {other}")
        yield from (f"{config[one]} < {one} < {other}" for config in configs if config[one] is not None)


switch = st.sampled_from([False, True, None])
CONFIG = st.fixed_dictionaries(
    {
        "alibi": switch,
        "bias": st.booleans(),
        "kv_heads": st.sampled_from([None, 1, 2, 3]),
        "heads": st.integers(1, 4),
        "dtype": st.sampled_from(["float32", "bfloat16"]),
        "dtypes": st.lists(st.sampled_from(["float32", "float16"]), unique=True),
    }
)
SOME = st.lists(CONFIG, min_size=1, max_size=8)
PLANTED = st.sampled_from(
    [
        "alibi",
        "bias and 1 < kv_heads < heads",
        "not bias or kv_heads == 3",
        "'float16' in dtypes",
        "dtype == 'bfloat16' and heads >= 3",
        "alibi is None or heads < 2",
        "alibi and bias and kv_heads < heads",
        "bias and (alibi or 'float32' in dtypes)",
    ]
)


@st.composite
def by_a_rule(draw):
    """Configs that fail by a rule, and those that do not."""
    rule, configs = draw(PLANTED), draw(st.lists(CONFIG, min_size=2, max_size=24))
    return tuple([config for config in configs if holds(rule, config) is wrong] for wrong in (True, False))


SIDES = st.tuples(SOME, SOME) | by_a_rule().filter(all)


def truths(text, configs):
    return tuple(holds(text, config) for config in configs)


def length(rule):
    return 1 + sum(rule.text.count(f" {word} ") for word in ("and", "or"))


@given(SIDES)
def test_what_it_claims_is_true(sides):
    failing, passing = sides
    rule = explain(failing, passing, flags=["alibi", "bias"])
    if rule is None:
        return
    caught, unjust = truths(rule.text, failing), truths(rule.text, passing)
    assert (rule.failing, rule.caught) == (len(failing), sum(caught))
    assert (rule.passing, rule.spared) == (len(passing), len(passing) - sum(unjust))
    assert rule.missed == tuple(place for place, true in enumerate(caught) if not true)
    assert rule.unjust == tuple(place for place, true in enumerate(unjust) if true)
    assert rule.exact is (all(caught) and not any(unjust))
    assert length(rule) <= 3
    # It hits better than chance.
    assert sum(caught) * len(passing) > sum(unjust) * len(failing)


@given(SIDES)
def test_no_shorter_one_is_exact(sides):
    failing, passing = sides
    configs = [*failing, *passing]
    rule = explain(failing, passing, flags=["alibi", "bias"])
    wanted = sum(1 << place for place in range(len(failing)))
    atoms = {
        sum(true << place for place, true in enumerate(truths(text, configs))) for text in everything_said(configs)
    }
    if wanted in atoms:
        shortest = 1
    elif any(wanted in (one & other, one | other) for one, other in itertools.combinations(atoms, 2)):
        shortest = 2
    else:
        assert rule is None or not rule.exact or length(rule) == 3
        return
    assert rule.exact
    assert length(rule) == shortest


@pytest.mark.slow
@given(SIDES, st.randoms())
def test_neither_the_order_of_cases_nor_of_fields_makes_another_rule(sides, shuffler):
    def shuffled(configs):
        order = shuffler.sample(range(len(configs)), len(configs))
        return order, [dict(shuffler.sample(list(configs[place].items()), len(configs[place]))) for place in order]

    failing, passing = sides
    rule = explain(failing, passing, flags=["alibi", "bias"])
    (fails, other_failing), (passes, other_passing) = shuffled(failing), shuffled(passing)
    other = explain(other_failing, other_passing, flags=["bias", "alibi"])
    assert other == rule
    if rule is not None:
        assert sorted(fails[place] for place in other.missed) == list(rule.missed)
        assert sorted(passes[place] for place in other.unjust) == list(rule.unjust)


@pytest.mark.slow
@given(st.sets(st.integers(0, len(CONFIGS) - 1), min_size=1, max_size=len(CONFIGS) - 1), st.randoms())
def test_it_counts_rightly_and_does_not_hang_on_the_order(numbers, shuffler):
    failing = [CONFIGS[number] for number in sorted(numbers)]
    passing = [config for number, config in enumerate(CONFIGS) if number not in numbers]
    rule = explain(failing, passing, flags=FLAGS)
    assert 0 <= rule.caught <= rule.failing == len(failing)
    assert 0 <= rule.spared <= rule.passing == len(passing)
    # It is never worse than saying of nothing that it fails.
    assert rule.failing - rule.caught + rule.passing - rule.spared <= max(len(failing), len(passing))
    shuffler.shuffle(failing)
    shuffler.shuffle(passing)
    assert explain(failing, passing, flags=FLAGS) == rule
