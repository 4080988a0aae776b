"""The rules of wrong adapters whose fault is known: what is found in the outcomes is what is wrong in the code.

Nobody tells `explain` under which flags a fault shows. Each is planted in a right adapter, a check looks at a part of
Falcon's matrix in which every three values of every three flags meet, and at all corners.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from verifier import checks, faults
from verifier.adapter import Adapter, AdapterRefusal, HookInfo, SplitQKV, Subject
from verifier.analysis.rules import Rule, explain
from verifier.cases import matrix
from verifier.cases.covering import covering
from verifier.cases.spec import CaseSpec
from verifier.checks.runner import run_case
from verifier.families.falcon import FalconFamily
from verifier.faults.altered_hooks import altered
from verifier.faults.mutants import Delegate, MutantAdapter, Mutation
from verifier.judging.outcome import NotApplicable, Verdict

_MEETING = 3  # a rule of two atoms is told apart from those with a third


@dataclass(frozen=True)
class Found:
    """What a check made of an adapter.

    Attributes:
        rule: what its failures have in common.
        failing: the cases that fail.
        passing: those that pass.
    """

    rule: Rule
    failing: Sequence[CaseSpec]
    passing: Sequence[CaseSpec]

    @property
    def missed(self) -> list[str | None]:
        return [self.failing[place].label for place in self.rule.missed]

    @property
    def unjust(self) -> list[str | None]:
        return [self.passing[place].label for place in self.rule.unjust]


Look = Callable[[str, Adapter], Found]


@pytest.fixture(scope="module")
def look(falcon: FalconFamily) -> Look:
    """Runs one check on every case, and explains its failures."""
    valid = [one for one in matrix.cases(falcon, "falcon") if one.valid]
    product, corners = ([one for one in valid if (one.label is None) is plain] for plain in (True, False))
    cases = [product[place] for place in covering([one.config for one in product], _MEETING)] + corners

    def at(check: str, adapter: Adapter) -> Found:
        chosen = [one for one in checks.registered() if one.id == check]
        by_verdict: dict[Verdict, list[CaseSpec]] = {verdict: [] for verdict in Verdict}
        for case in cases:
            for outcome in run_case(case, falcon, adapter, chosen):
                by_verdict[outcome.verdict].append(case)
        failing = by_verdict[Verdict.FAIL] + by_verdict[Verdict.ERROR]
        passing = by_verdict[Verdict.PASS]
        sides = ([one.config for one in side] for side in (failing, passing))
        rule = explain(*sides, flags=falcon.flags())
        assert rule is not None, f"{len(failing)} fail and {len(passing)} pass"
        return Found(rule, failing, passing)

    return at


# --- the faults of the self-test -------------------------------------------------------------------------------------


class RightElsewhere(Delegate):
    """A planted fault, and the right adapter for every model in which nothing could be wrong like that."""

    def __init__(self, broken: Adapter, right: Adapter) -> None:
        super().__init__(broken)
        self.name, self.version = broken.name, broken.version
        self._right = right

    def wrap(self, model: Any) -> Subject:
        try:
            subject: Subject = self.original.wrap(model)
        except NotApplicable:
            return self._right.wrap(model)
        return subject


@pytest.fixture(scope="module")
def planted(falcon: FalconFamily, bridge: Adapter) -> Callable[[str], Adapter]:
    def of(name: str) -> Adapter:
        fault = next(one for one in faults.list_faults(falcon) if one.name == name)
        return RightElsewhere(fault.plant(falcon, bridge)[1], bridge)

    return of


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "check", "text"),
    [
        pytest.param("split-bias-lost", "qkv.rows", "bias", marks=pytest.mark.slow),
        ("kv-tiled", "qkv.reads", "new_decoder_architecture and 1 < num_kv_heads < num_attention_heads"),
        pytest.param(
            "norms-swapped",
            "forward.logits",
            "new_decoder_architecture and num_ln_in_parallel_attn != 1",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "split-contiguous",  # what HF lays out so has one key for all heads
            "qkv.rows",
            "num_kv_heads != 1 and (multi_query is not True or new_decoder_architecture)",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["bias", "grouped", "two norms", "another layout"],
)
def test_a_planted_fault_is_explained(
    look: Look, planted: Callable[[str], Adapter], fault: str, check: str, text: str
) -> None:
    found = look(check, planted(fault))
    assert (found.rule.text, found.rule.exact) == (text, True)


@pytest.mark.slow
def test_cases_that_no_rule_explains_are_named(look: Look, planted: Callable[[str], Adapter]) -> None:
    found = look("qkv.heads", planted("split-kv-expanded"))
    # One head has its own key whatever the flags say: nothing is expanded there.
    assert (found.missed, found.unjust) == ([], ["one-head", "one-head-alibi"])
    assert found.rule.state().startswith(
        "nearly, with 2 exceptions: "
        "-1 < num_kv_heads < num_attention_heads or (multi_query and not new_decoder_architecture) ("
    )


# --- others, wrong where a config says so ----------------------------------------------------------------------------


def wrong_where(bridge: Adapter, when: Callable[[Any], bool], breaks: Mutation) -> Adapter:
    """The right adapter, but for models of a config of which `when` is true."""
    return MutantAdapter(bridge, lambda model: breaks if when(model.config) else Mutation())


def exchanged(split: SplitQKV, _layer: int) -> SplitQKV:
    return replace(split, k=split.v, v=split.k)


KEYS_FOR_VALUES = Mutation(split=exchanged)


@pytest.mark.parametrize(
    ("when", "text"),
    [
        (lambda config: config.alibi, "alibi"),
        pytest.param(lambda config: config.bias and not config.alibi, "not alibi and bias", marks=pytest.mark.slow),
        pytest.param(
            lambda config: config.alibi or config.num_hidden_layers == 3,
            "alibi or num_hidden_layers == 3",
            marks=pytest.mark.slow,
        ),
        (  # where the new architecture has as many keys as heads here, it has twelve: the plainer comparison is enough
            lambda config: config.new_decoder_architecture and config.num_kv_heads < config.num_attention_heads,
            "new_decoder_architecture and num_kv_heads < 12",
        ),
        pytest.param(
            lambda config: config.alibi and config.bias and config.parallel_attn is False,
            "alibi and bias and not parallel_attn",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["one flag", "one and not another", "one or another", "shared keys", "three flags"],
)
def test_the_condition_in_an_adapter_is_its_rule(
    look: Look, bridge: Adapter, when: Callable[[Any], bool], text: str
) -> None:
    found = look("qkv.rows", wrong_where(bridge, when, KEYS_FOR_VALUES))
    assert (found.rule.text, found.rule.exact) == (text, True)


def forgets_the_middle(names: dict[str, HookInfo]) -> dict[str, HookInfo]:
    return {name: info for name, info in names.items() if not name.endswith("hook_resid_mid")}


def has_a_middle_everywhere(names: dict[str, HookInfo]) -> dict[str, HookInfo]:
    return {**names, "blocks.0.hook_resid_mid": HookInfo(native_name="mid")}


@pytest.mark.slow
def test_what_is_missing_in_sequential_blocks_is_explained_by_them(look: Look, bridge: Adapter) -> None:
    adapter = MutantAdapter(bridge, lambda _model: altered(names=forgets_the_middle))
    found = look("hooks.present", adapter)
    assert (found.rule.text, found.rule.exact) == ("parallel_attn is not True", True)  # None is none


@pytest.mark.slow
def test_what_cannot_be_in_parallel_blocks_is_explained_by_them(look: Look, bridge: Adapter) -> None:
    adapter = MutantAdapter(bridge, lambda _model: altered(names=has_a_middle_everywhere))
    found = look("hooks.absent", adapter)
    assert (found.rule.text, found.rule.exact) == ("parallel_attn", True)


class NoRelu(Delegate):
    """Refuses an activation that HF knows."""

    name, version = "no relu", "1"

    def wrap(self, model: Any) -> Subject:
        if model.config.activation == "relu":
            raise AdapterRefusal("relu is not supported")
        subject: Subject = self.original.wrap(model)
        return subject


@pytest.mark.slow
def test_what_is_refused_is_explained_by_its_field(look: Look, bridge: Adapter) -> None:
    found = look("build.adapter", NoRelu(bridge))
    assert (found.rule.text, found.rule.exact) == ("activation == 'relu'", True)
