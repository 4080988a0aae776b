"""Check the effects of hooks: they change only what they are told to, and leave nothing behind."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from verifier.adapter import Edit
from verifier.cases.spec import Scenario
from verifier.checks import check
from verifier.checks.subjects import compute_logits
from verifier.errors import all_but_interrupts
from verifier.judging.comparison import from_condition
from verifier.judging.numerics import compare_bitwise
from verifier.judging.outcome import Finding, NotApplicable
from verifier.observing import activations
from verifier.observing.capabilities import require
from verifier.observing.case import Case


@check("hooks.identity", needs=["hooks"], applies="pairwise")
def identity(case: Case) -> list[Finding]:
    """Hooks that only read, or return their tensor unchanged, change no bit of the logits.

    A failure means that the model that is looked at is not the one that is run.
    """
    before, subject = case.subject.output().logits, case.subject.wrapped()
    ungated = [name for name, info in activations.hook_points(case).items() if info.switch is None]

    def run(edit: Edit) -> Tensor:
        with activations.hooked(case, subject, forward=dict.fromkeys(ungated, edit)):
            return compute_logits(case, subject)

    return [
        compare_bitwise("read", activations.subject_activations(case).logits, before),
        compare_bitwise("given back", run(lambda value: value), before),
        compare_bitwise("given back as a copy", run(lambda value: value.clone()), before),
    ]


@check("hooks.switches", needs=["hooks"], applies="pairwise")
def switches(case: Case) -> Iterator[Finding]:
    """Switching gated points on changes the logits by rounding at most, and the switch is off again afterwards.

    A failure means that looking at a gated activation makes another model of it, or that the switch stays on.
    """
    gates = [switch for switch in activations.by_switch(case, activations.hook_points(case)) if switch is not None]
    if not gates:
        raise NotApplicable("no hook point has a switch")
    for switch in gates:
        logits = activations.subject_activations(case, Scenario.PLAIN, switch).logits
        # The truth is the subject's own logits: another check reports where those are wrong.
        yield case.compare_logits(f"{switch} on", logits, truth=case.subject.output().logits)
    after = compute_logits(case, case.subject.wrapped())
    yield compare_bitwise("switched off again", after, case.subject.output().logits)
    yield from_condition("switched off again", _describe_late_firing(case))


def _describe_late_firing(case: Case) -> str | None:
    """Whether a gated point fires although nothing turned it on."""
    gated = [name for name, info in activations.hook_points(case).items() if info.switch is not None]
    fired: list[str] = []
    try:
        with (
            torch.no_grad(),
            warnings.catch_warnings(action="ignore"),  # that nothing will come of it
            require(case.subject.wrapped().hooks).hooked({name: _note_firing(name, fired) for name in gated}, {}),
        ):
            case.subject.wrapped().forward(case.reference.inputs())
    except all_but_interrupts():  # to refuse a hook at a point that is off is as good as never to call it
        return None
    return f"{fired[0]} fires although its switch is off" if fired else None


def _note_firing(name: str, fired: list[str]) -> Edit:
    return lambda _value: fired.append(name)


@check("hooks.removed", needs=["hooks"], applies="pairwise")
def removed(case: Case) -> Finding:
    """A hook of gradients does not act on a backward that begins after it was removed.

    A failure means that an experiment acts on in what is differentiated after it.
    """
    case.subject.require_forward()
    fired: list[str] = []
    names = (point.name for point in activations.shared_points(case))
    point = next((name for name in names if activations.hook_points(case)[name].switch is None), None)
    if point is None:
        raise NotApplicable("every hook point has a switch")
    with torch.enable_grad():
        with activations.hooked(case, case.subject.wrapped(), backward={point: _note_firing(point, fired)}):
            logits = case.subject.wrapped().forward(case.reference.inputs()).logits
        logits.backward(case.reference.cotangent().to(logits))
    return from_condition(
        "gradients", "a hook is called in a backward that begins after it was removed" if fired else None
    )
