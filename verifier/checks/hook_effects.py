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
from verifier.judging.comparison import from_condition, summarize
from verifier.judging.numerics import compare_bitwise
from verifier.judging.outcome import Finding, NotApplicable
from verifier.observing import activations
from verifier.observing.capabilities import require
from verifier.observing.case import Case


@check("hooks.identity", needs=["hooks"], applies="pairwise")
def identity(case: Case) -> Finding:
    """Hooks that only read, or return their tensor unchanged, change no bit of the logits.

    A failure means that the model that is looked at is not the one that is run.
    """
    before = case.subject.output().logits
    subject, inputs = case.subject.wrapped(), case.reference.inputs()
    ungated = [name for name, info in activations.hook_points(case).items() if info.switch is None]

    def run(edit: Edit) -> Tensor:
        with torch.no_grad(), activations.hooked(case, subject, forward=dict.fromkeys(ungated, edit)):
            return subject.forward(inputs).logits

    return summarize(
        [
            compare_bitwise("read", activations.subject_activations(case).logits, before),
            compare_bitwise("given back", run(lambda value: value), before),
            compare_bitwise("given back as a copy", run(lambda value: value.clone()), before),
        ]
    )


@check("hooks.switches", needs=["hooks"], applies="pairwise")
def switches(case: Case) -> Finding:
    """Switching gated points on changes the logits by rounding at most, and the switch is off again afterwards.

    A failure means that looking at a gated activation makes another model of it, or that the switch stays on.
    """
    gates = [switch for switch in activations.by_switch(case, activations.hook_points(case)) if switch is not None]
    if not gates:
        raise NotApplicable("no hook point has a switch")

    def compare() -> Iterator[Finding]:
        for switch in gates:
            # Held against the subject's own logits: whether those are right is told elsewhere.
            logits, before = (
                activations.subject_activations(case, Scenario.PLAIN, switch).logits,
                case.subject.output().logits,
            )
            yield case.compare_logits(f"{switch} on", logits, Scenario.PLAIN, truth=before)
        with torch.no_grad():
            after = case.subject.wrapped().forward(case.reference.inputs()).logits
        yield compare_bitwise("switched off again", after, case.subject.output().logits)
        yield from_condition("switched off again", _still_on(case))

    return summarize(compare())


def _still_on(case: Case) -> str | None:
    """Whether a gated point fires although nothing turned it on."""
    gated = [name for name, info in activations.hook_points(case).items() if info.switch is not None]
    fired: list[str] = []

    try:
        with (
            torch.no_grad(),
            warnings.catch_warnings(action="ignore"),  # that nothing will come of it
            require(case.subject.wrapped().hooks).hooked({name: _noting(name, fired) for name in gated}, {}),
        ):
            case.subject.wrapped().forward(case.reference.inputs())
    except Exception:  # to refuse a hook at a point that is off is as good as never to call it
        return None
    return f"{fired[0]} fires although its switch is off" if fired else None


def _noting(name: str, fired: list[str]) -> Edit:
    def note(value: Tensor) -> None:
        fired.append(name)

    return note


def _ungated(case: Case) -> list[str]:
    """The canonical points that the subject has and that need no switch.

    Raises:
        NotApplicable: there is none.
    """
    names = [point.name for point in activations.shared_points(case)]
    found = [name for name in names if activations.hook_points(case)[name].switch is None]
    if not found:
        raise NotApplicable("every hook point has a switch")
    return found


class _OnPurpose(Exception):
    """What a hook of these checks raises."""


@check("hooks.removed", needs=["hooks"], applies="pairwise")
def removed(case: Case) -> Finding:
    """After hooks are removed none fires and the logits are as before, bit for bit; those around them stay. Hooks of
    gradients do not act on a backward that comes after them.

    A failure means that an experiment acts on in the next one, or ends the one that it stands in.
    """
    case.subject.require_forward()
    subject, fired = case.subject.wrapped(), Counter[str]()
    ungated = _ungated(case)

    def note(what: str, change: bool) -> Edit:
        def edit(value: Tensor) -> Tensor | None:
            fired[what] += 1
            return value * 2 if change else None

        return edit

    def run() -> Tensor:
        with torch.no_grad():
            return subject.forward(case.reference.inputs()).logits

    before = case.subject.output().logits
    with activations.hooked(case, subject, forward=dict.fromkeys(ungated, note("outer", change=False))):
        with activations.hooked(case, subject, forward=dict.fromkeys(ungated, note("inner", change=True))):
            run()
        inner, outer = fired["inner"], fired["outer"]
        between = run()
        stayed = fired["outer"] > outer
    left = fired["outer"]
    after = run()
    return summarize(
        [
            from_condition("fires", None if inner else "no hook fired, so none can be seen to be removed"),
            from_condition("inner hooks", "they fire after they were removed" if fired["inner"] > inner else None),
            from_condition("outer hooks", None if stayed else "they are gone once hooks inside them were removed"),
            from_condition("all hooks", "they fire after they were removed" if fired["outer"] > left else None),
            compare_bitwise("logits after inner hooks", between, before),
            compare_bitwise("logits", after, before),
            from_condition("gradients", _outlives(case, ungated[0])),
        ]
    )


def _outlives(case: Case, name: str) -> str | None:
    """Whether a hook of gradients is called in a backward that begins after it was removed."""
    fired: list[str] = []
    with torch.enable_grad():
        with activations.hooked(case, case.subject.wrapped(), backward={name: _noting(name, fired)}):
            logits = case.subject.wrapped().forward(case.reference.inputs()).logits
        logits.backward(case.reference.cotangent().to(logits))
    return "a hook is called in a backward that begins after it was removed" if fired else None


@check("hooks.nested", needs=["hooks"], applies="pairwise")
def nested(case: Case) -> Finding:
    """Edits of one point in contexts one inside the other both act, the second on what the first has made.

    A failure means that an ablation is undone by whatever else is hooked inside it.
    """
    case.subject.agreeing_rows()
    subject, ungated = case.subject.wrapped(), _ungated(case)

    def run(*divisors: int) -> Tensor:
        with contextlib.ExitStack() as stack:
            for divisor in divisors:  # powers of two: dividing by their product rounds nothing
                edits = dict.fromkeys(ungated, _divided(divisor))
                stack.enter_context(activations.hooked(case, subject, forward=edits))
            with torch.no_grad():
                return subject.forward(case.reference.inputs()).logits

    return summarize([compare_bitwise("logits", run(2, 4), run(8))])


def _divided(divisor: int) -> Edit:
    return lambda value: value / divisor


@check("hooks.given_back", needs=["hooks"], applies="pairwise")
def given_back(case: Case) -> Finding:
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

    edits = {name: giving(name) for name in _ungated(case)}
    with torch.no_grad(), activations.hooked(case, case.subject.wrapped(), forward=edits):
        case.subject.wrapped().forward(case.reference.inputs())
    if not given:
        raise NotApplicable("no hook fired")
    return summarize(compare_bitwise(name, made, before) for name, (made, before) in given.items())


@check("hooks.exception", needs=["hooks"], applies="pairwise")
def exception(case: Case) -> Finding:
    """An exception inside a hook reaches the caller, and leaves no hook, no switch and no change of the logits.

    A failure means that one mistake in a notebook makes every later result another model's.
    """
    before, subject = case.subject.output().logits, case.subject.wrapped()
    fired: list[str] = []

    def raising(value: Tensor) -> Tensor | None:
        raise _OnPurpose

    def compare() -> Iterator[Finding]:
        firing = activations.all_values(case)  # `hooks.fires` looks for silent ones
        for names in activations.by_switch(case, firing).values():
            edits: dict[str, Edit] = {name: _noting(name, fired) for name in names}
            edits[names[-1]] = raising
            with torch.no_grad(), _Caught() as caught, activations.hooked(case, subject, forward=edits):
                subject.forward(case.reference.inputs())
            yield from_condition(names[-1], None if caught.any else "an exception inside its hook does not come out")
            fired.clear()
            after = None
            with torch.no_grad(), _Caught() as again:
                after = subject.forward(case.reference.inputs()).logits
            still = names[-1] if again.any else next(iter(fired), None)
            yield from_condition(names[-1], f"after an exception {still} still fires" if still else None)
            if not again.any:
                yield compare_bitwise("logits after an exception", after, before)

    return summarize(compare())


class _Caught:
    """Catches what a hook raised on purpose, as it is or as the cause of an exception of the library's own."""

    any = False

    def __enter__(self) -> _Caught:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        while error is not None:
            if isinstance(error, _OnPurpose):
                self.any = True
                return True
            error = error.__cause__ or error.__context__
        return False
