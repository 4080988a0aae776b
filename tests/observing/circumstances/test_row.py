"""What a circumstance is looked at in: which layers of a deep model, and which call comes first."""

from __future__ import annotations

import pytest
from falcons import KINDS, spec

from verifier.adapter import Adapter, Inputs, Output, Subject
from verifier.cases.circumstances import PLAIN, Circumstance, read_rows
from verifier.families.falcon import FalconFamily
from verifier.faults.mutants import MutantAdapter, Mutation
from verifier.observing.circumstances.row import Row

CONFIG = KINDS["two-norms-grouped-rope"]


def row(family: FalconFamily, circumstance: Circumstance) -> Row:
    return Row(spec(CONFIG), family, {**PLAIN, **circumstance})


def layers(one: Row) -> set[int]:
    return {point.layer for point in one.points if point.layer is not None}


@pytest.mark.parametrize(("depth", "count"), [("two", 2), ("three", 3)])
def test_few_layers_are_all_looked_at(falcon: FalconFamily, depth: str, count: int) -> None:
    assert layers(row(falcon, {"depth": depth})) == set(range(count))


def test_of_many_layers_some_are_looked_at_in_each_circumstance_and_all_in_one(falcon: FalconFamily) -> None:
    deep = [layers(row(falcon, one)) for one in read_rows() if one["depth"] == "eleven"]
    assert all(len(found) == 4 for found in deep)
    assert all({0, 1, 10} < found for found in deep)
    assert set().union(*deep) == set(range(11))


@pytest.mark.parametrize("circumstance", [{}, {"grad": "grad"}, {"past": "token"}])
def test_what_only_a_later_call_does_wrong_is_told_of_the_repeated_call(
    falcon: FalconFamily, bridge: Adapter, circumstance: Circumstance
) -> None:
    def planted(_model: object) -> Mutation:
        calls: list[Inputs] = []

        def forward(subject: Subject, inputs: Inputs) -> Output:
            if inputs.cache is not None or circumstance.get("past") is None:
                calls.append(inputs)
            output = subject.forward(inputs)
            return (
                output if len(calls) < 2 else Output(logits=output.logits * 1.5, loss=output.loss, cache=output.cache)
            )

        return Mutation(forward=forward)

    result = row(falcon, circumstance).run(MutantAdapter(bridge, planted), only=("forward.outputs", "forward.repeated"))
    assert not result.is_wrong("forward.outputs")
    assert result.is_wrong("forward.repeated")
