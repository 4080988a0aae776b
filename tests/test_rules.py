"""The shortest predicate that tells failing cases from passing ones, on sets whose rule is known."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.rules import explain

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
    assert rule.support == "fails 24 of 24, passes 26 of 26"
    assert rule.words == "alibi (fails 24 of 24, passes 26 of 26)"


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


def test_where_none_is_exact_the_best_is_given_with_its_exceptions():
    odd = CONFIGS[0]  # fails too, although nothing of it says why
    rule = found(lambda config: config["alibi"] or config is odd, CONFIGS)
    assert not rule.exact
    assert rule.text == "alibi"
    assert (rule.failing, rule.caught, rule.passing, rule.spared) == (25, 24, 23, 23)
    assert rule.words == "nearly alibi (fails 24 of 24, passes 23 of 24)"


def test_flags_are_preferred_to_what_tells_the_same():
    configs = [{"alibi": on, "a_width": 5 if on else 7} for on in (False, True)]
    assert explain(configs[1:], configs[:1], flags=["alibi"]).text == "alibi"


def test_where_there_is_nothing_to_tell_apart_there_is_no_rule():
    assert explain([], CONFIGS) is None
    assert explain(CONFIGS, []) is None
    assert explain([{"a": 1}], [{"a": 1}]) is None


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
