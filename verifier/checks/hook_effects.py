"""Check the effects of hooks: they change only what they are told to, and leave nothing behind."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

from verifier.adapter import Edit
from verifier.cases.spec import Scenario
from verifier.checks import check
from verifier.checks.subjects import compute_logits
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
    except Exception:  # to refuse a hook at a point that is off is as good as never to call it
        return None
    return f"{fired[0]} fires although its switch is off" if fired else None


def _note_firing(name: str, fired: list[str]) -> Edit:
    return lambda _value: fired.append(name)


def _ungated_names(case: Case) -> list[str]:
    """The canonical points that the subject has and that need no switch.

    Raises:
        NotApplicable: there is none.
    """
    names = [point.name for point in activations.shared_points(case)]
    found = [name for name in names if activations.hook_points(case)[name].switch is None]
    if not found:
        raise NotApplicable("every hook point has a switch")
    return found


class _RaisedOnPurpose(Exception):
    """What a hook of these checks raises."""


@check("hooks.removed", needs=["hooks"], applies="pairwise")
def removed(case: Case) -> list[Finding]:
    """After hooks are removed none fires and the logits are as before, bit for bit; those around them stay. Hooks of
    gradients do not act on a backward that comes after them.

    A failure means that an experiment acts on in the next one, or ends the one that it stands in.
    """
    case.subject.require_forward()
    subject, fired = case.subject.wrapped(), Counter[str]()
    ungated = _ungated_names(case)

    def note(what: str, change: bool) -> Edit:
        def edit(value: Tensor) -> Tensor | None:
            fired[what] += 1
            return value * 2 if change else None

        return edit

    before = case.subject.output().logits
    with activations.hooked(case, subject, forward=dict.fromkeys(ungated, note("outer", change=False))):
        with activations.hooked(case, subject, forward=dict.fromkeys(ungated, note("inner", change=True))):
            compute_logits(case, subject)
        inner, outer = fired["inner"], fired["outer"]
        between = compute_logits(case, subject)
        stayed = fired["outer"] > outer
    left = fired["outer"]
    after = compute_logits(case, subject)
    return [
        from_condition("fires", None if inner else "no hook fired, so none can be seen to be removed"),
        from_condition("inner hooks", "they fire after they were removed" if fired["inner"] > inner else None),
        from_condition("outer hooks", None if stayed else "they are gone once hooks inside them were removed"),
        from_condition("all hooks", "they fire after they were removed" if fired["outer"] > left else None),
        compare_bitwise("logits after inner hooks", between, before),
        compare_bitwise("logits", after, before),
        from_condition("gradients", _describe_late_gradient_hook(case, ungated[0])),
    ]


def _describe_late_gradient_hook(case: Case, name: str) -> str | None:
    """Whether a hook of gradients is called in a backward that begins after it was removed."""
    fired: list[str] = []
    with torch.enable_grad():
        with activations.hooked(case, case.subject.wrapped(), backward={name: _note_firing(name, fired)}):
            logits = case.subject.wrapped().forward(case.reference.inputs()).logits
        logits.backward(case.reference.cotangent().to(logits))
    return "a hook is called in a backward that begins after it was removed" if fired else None


@check("hooks.nested", needs=["hooks"], applies="pairwise")
def nested(case: Case) -> list[Finding]:
    """Edits of one point in contexts one inside the other both act, the second on what the first has made.

    A failure means that an ablation is undone by whatever else is hooked inside it.
    """
    case.subject.agreeing_rows()
    subject, ungated = case.subject.wrapped(), _ungated_names(case)

    def run(*divisors: int) -> Tensor:
        with contextlib.ExitStack() as stack:
            for divisor in divisors:  # powers of two: dividing by their product rounds nothing
                edits = dict.fromkeys(ungated, _divide_by(divisor))
                stack.enter_context(activations.hooked(case, subject, forward=edits))
            return compute_logits(case, subject)

    return [compare_bitwise("logits", run(2, 4), run(8))]


def _divide_by(divisor: int) -> Edit:
    return lambda value: value / divisor


@check("hooks.given_back", needs=["hooks"], applies="pairwise")
def given_back(case: Case) -> list[Finding]:
    """A tensor that a hook gives back is not written into afterwards.

    A failure means that a cached activation that is patched in is another one in the next run.
    """
    case.subject.require_forward()
    given: dict[str, tuple[Tensor, Tensor]] = {}

    def giving(name: str) -> Edit:
        def give(value: Tensor) -> Tensor:
            made = value.detach().clone()
            given[name] = made, made.clone()
            return made

        return give

    edits = {name: giving(name) for name in _ungated_names(case)}
    with activations.hooked(case, case.subject.wrapped(), forward=edits):
        compute_logits(case, case.subject.wrapped())
    if not given:
        raise NotApplicable("no hook fired")
    return [compare_bitwise(name, made, before) for name, (made, before) in given.items()]


@check("hooks.exception", needs=["hooks"], applies="pairwise")
def exception(case: Case) -> Iterator[Finding]:
    """An exception inside a hook reaches the caller, and leaves no hook, no switch and no change of the logits.

    A failure means that one mistake in a notebook makes every later result another model's.
    """
    before, subject = case.subject.output().logits, case.subject.wrapped()
    fired: list[str] = []

    def raising(_value: Tensor) -> Tensor | None:
        raise _RaisedOnPurpose

    firing = activations.all_values(case)  # `hooks.fires` looks for silent ones
    for names in activations.by_switch(case, firing).values():
        edits: dict[str, Edit] = {name: _note_firing(name, fired) for name in names}
        edits[names[-1]] = raising
        with _Caught() as caught, activations.hooked(case, subject, forward=edits):
            compute_logits(case, subject)
        yield from_condition(names[-1], None if caught.any else "an exception inside its hook does not come out")
        fired.clear()
        after = None
        with _Caught() as again:
            after = compute_logits(case, subject)
        still = names[-1] if again.any else next(iter(fired), None)
        yield from_condition(names[-1], f"after an exception {still} still fires" if still else None)
        if not again.any:
            yield compare_bitwise("logits after an exception", after, before)


class _Caught:
    """Catches what a hook raised on purpose, as it is or as the cause of an exception of the library's own."""

    any = False

    def __enter__(self) -> _Caught:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        while error is not None:
            if isinstance(error, _RaisedOnPurpose):
                self.any = True
                return True
            error = error.__cause__ or error.__context__
        return False
