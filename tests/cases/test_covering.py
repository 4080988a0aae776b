"""Whatever values meet somewhere meet in what is taken, and little is taken."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from verifier.cases.covering import covering

CONFIG = st.fixed_dictionaries(
    {name: st.sampled_from(values) for name, values in {"a": [0, 1], "b": [0, 1, 2], "c": [None, 1], "d": "xy"}.items()}
)


def meetings(configs, strength):
    return {met for config in configs for met in itertools.combinations(sorted(config.items(), key=str), strength)}


@given(st.lists(CONFIG, max_size=40), st.integers(1, 4))
def test_everything_that_meets_somewhere_meets_in_what_is_taken(configs, strength):
    taken = [configs[place] for place in covering(configs, strength)]
    assert meetings(taken, strength) == meetings(configs, strength)
    # Each one brought something that those before it had not.
    for number in range(len(taken)):
        assert meetings(taken[: number + 1], strength) > meetings(taken[:number], strength)


def test_it_is_much_less_than_everything():
    everything = [dict(zip("abcdefgh", bits, strict=True)) for bits in itertools.product([0, 1], repeat=8)]
    assert len(covering(everything, 2)) <= 10
    assert len(covering(everything, 3)) <= 24
    assert covering(everything, 3) == covering(everything, 3)


def test_other_fields_do_not_count():
    configs = [{"a": bit, "serial": number} for number, bit in enumerate([0, 0, 1, 1])]
    assert covering(configs, 1, ["a"]) == [0, 2]
    assert covering([], 2) == []
    assert covering([{"a": 1}], 2) == []  # no two fields, so nothing meets
