"""Rules read back are true of exactly the cases that they were made of."""

from __future__ import annotations

import random
from typing import Any

import pytest

from verifier.analysis.rules import explain
from verifier.cases.predicates import holds, require_readable
from verifier.errors import UsageError

FLAGS: dict[str, list[Any]] = {"alibi": [False, True], "bias": [False, True], "norms": [None, 1, 2], "heads": [1, 3, 6]}


@pytest.mark.parametrize(
    ("text", "config", "true"),
    [
        ("alibi", {"alibi": True}, True),
        ("not alibi", {"alibi": False}, True),
        ("alibi and not bias", {"alibi": True, "bias": True}, False),
        ("alibi or bias", {"alibi": False, "bias": True}, True),
        ("norms is None", {"norms": None}, True),
        ("norms is not None", {"norms": 2}, True),
        ("norms == 2", {"norms": 2}, True),
        ("norms != 2", {"norms": 1}, True),
        ("1 < heads < 6", {"heads": 3}, True),
        ("1 < heads < 6", {"heads": 6}, False),
        ("heads < width", {"heads": 3, "width": 24}, True),
        ("heads >= 3", {"heads": 3}, True),
        ("heads < 3", {"heads": None}, False),
        ("(alibi or bias) and heads == 1", {"alibi": False, "bias": True, "heads": 1}, True),
        ("activation == 'gelu'", {"activation": "gelu"}, True),
        ("'bfloat16' in dtypes", {"dtypes": ["float32", "bfloat16"]}, True),
        ("'bfloat16' not in dtypes", {"dtypes": ["float32"]}, True),
        ("epsilon == -1.5", {"epsilon": -1.5}, True),
        ("heads == 1", {"heads": True}, False),
        ("rope == {'type': 'linear'}", {"rope": {"type": "linear"}}, True),
        ("sizes == [1, 2]", {"sizes": (1, 2)}, True),
    ],
)
def test_what_rules_say_is_read_as_it_is_meant(text: str, config: dict[str, Any], true: bool) -> None:
    assert holds(text, config, FLAGS) is true


def test_a_flag_that_a_config_does_not_name_has_its_plainest_value() -> None:
    assert holds("not alibi and norms is None", {}, FLAGS)


@pytest.mark.parametrize("seed", range(40))
def test_a_rule_is_true_of_the_cases_that_it_was_made_of(seed: int) -> None:
    chance = random.Random(seed)
    configs = [
        {name: chance.choice(values) for name, values in FLAGS.items()}
        | {"width": chance.choice([4, 24, 96]), "activation": chance.choice(["gelu", "relu"]), "sizes": [1, 2]}
        for _ in range(60)
    ]
    failing = [config for config in configs if (config["alibi"] and config["heads"] > 1) or config["width"] == 96]
    failing = failing or configs[:1]
    passing = [config for config in configs if config not in failing]
    rule = explain(failing, passing, flags=FLAGS)
    assert rule is not None
    assert [holds(rule.text, config, FLAGS) for config in failing] == [
        place not in rule.missed for place in range(len(failing))
    ]
    assert [holds(rule.text, config, FLAGS) for config in passing] == [
        place in rule.unjust for place in range(len(passing))
    ]


@pytest.mark.parametrize(
    "text", ["", "alibi and", "__import__('os')", "a.b", "heads + 1", "[x for x in y]", "lambda: 1"]
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no rule"):
        require_readable(text)
