"""Check hook points: they exist, fire, and show Hugging Face's activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Set

from verifier.adapter import DeclaresPoints
from verifier.canonical import KINDS, template_of
from verifier.cases.spec import Scenario
from verifier.checks import check
from verifier.judging.comparison import from_condition
from verifier.judging.numerics import compare_bitwise
from verifier.judging.outcome import Finding, NotApplicable, failure
from verifier.observing import activations, dependencies, localization
from verifier.observing.capabilities import require
from verifier.observing.case import Case

NOT_DECLARED = "not offered: "
"""How the message begins of `hooks.present`, where the adapter says that it lacks points."""

_CANONICAL = frozenset(kind.template for kind in KINDS)


@check("hooks.present", needs=["hooks"])
def present(case: Case) -> Finding:
    """Every canonical hook point of the model is there, in every layer; of an adapter that says which it has, those.

    A point that the library lacks in a model, by the adapter's own word, is not offered, and the reason is told. A
    failure means that an activation which the model has cannot be read or edited by its name.
    """
    names, declared = activations.hook_points(case), _declared(case)
    lacking = _lacking(case)
    missing = [point.name for point in case.reference.points if point.name not in names.keys() | lacking.keys()]
    if declared is None:
        wanted = missing
    else:
        unknown = sorted(name for name in declared if template_of(name) not in _CANONICAL)
        if unknown:
            return failure(unknown[0], "hooks.points() declares it, and it is no canonical hook point")
        wanted = [name for name in missing if not declared.isdisjoint((name, template_of(name)))]
    if wanted:
        words = f"{len(wanted)} of {len(case.reference.points)} are missing: {activations.by_template(wanted)}"
        return failure(wanted[0], words)
    not_offered = [*missing, *lacking]
    if not not_offered:
        return Finding()
    words = f"{NOT_DECLARED}{activations.by_template(not_offered, len(not_offered))}"
    return Finding(message="; ".join([words, *dict.fromkeys(lacking.values())]))


def _lacking(case: Case) -> Mapping[str, str]:
    """Give by name the points that the library lacks in this model, with the adapter's reason; each under one name."""
    names, offered = require(case.subject.wrapped().hooks).names(), activations.hook_points(case)
    lacking = {name: info.not_offered or "" for name, info in names.items() if name not in offered}
    return {name: reason for name, reason in lacking.items() if names[name].alias_of not in lacking}


def _declared(case: Case) -> Set[str] | None:
    """List the canonical points that the adapter says it has; None if it has all."""
    hooks = require(case.subject.wrapped().hooks)
    return hooks.points() if isinstance(hooks, DeclaresPoints) else None


@check("hooks.absent", needs=["hooks"])
def absent(case: Case) -> Finding:
    """No canonical hook point is there that a model of this config does not have.

    A name that the adapter calls another one of a point of its library's own is none. A failure means that a name
    promises an activation that does not exist: a stream between attention and MLP in a parallel block, a second norm
    where there is one.
    """
    has = {point.name for point in case.reference.points}
    named = {name: info.alias_of or name for name, info in activations.hook_points(case).items()}
    canonical = [name for name, own in named.items() if {template_of(name), template_of(own)} <= _CANONICAL]
    wrong = [name for name in canonical if name not in has]
    if not wrong:
        return Finding()
    return failure(wrong[0], f"the model has no such activation: {activations.by_template(wrong)}")


def _all_firings(case: Case) -> Mapping[str, int]:
    """How often each point of the subject's own list fired in the one forward in which it was hooked."""
    fired: Counter[str] = Counter()
    for switch in activations.by_switch(case, activations.hook_points(case)):
        fired.update(activations.subject_activations(case, Scenario.PLAIN, switch).fired)
    return fired


@check("hooks.fires", needs=["hooks"])
def fires(case: Case) -> Finding:
    """Every point that takes a hook fires in a forward, gated ones with their switch on; canonical ones exactly once.

    The adapter's own points and its aliases are looked at too. A failure means that a hook is taken and nothing
    comes of it, or that it is called several times with what is not the whole activation.
    """
    fired, canonical = _all_firings(case), {point.name for point in case.reference.points}
    silent = [name for name in activations.hook_points(case) if not fired[name]]
    if silent:
        # The canonical ones first: those are what people hook.
        first = min(silent, key=lambda name: name not in canonical)
        words = f"it takes a hook and never fires; silent: {activations.by_template([first, *silent])}"
        return failure(first, words)
    several = [name for name in canonical if fired[name] > 1]
    if several:
        first = min(several)
        return failure(first, f"it fires {fired[first]} times in one forward")
    return Finding()


@check("hooks.order", needs=["hooks"])
def order(case: Case) -> Finding:
    """The canonical points fire in causal order: none before one that its value depends on in HF's model.

    A failure means that an edit comes too late to be seen at a point that it must reach.
    """
    before = dependencies.reference_dependencies(case)
    for switch in activations.by_switch(case, [point.name for point in activations.shared_points(case)]):
        fired = [name for name in activations.subject_activations(case, Scenario.PLAIN, switch).fired if name in before]
        early = dependencies.out_of_order(before, fired)
        if early:
            return failure(early[0], f"it fires before {early[1]}")
    return Finding()


@check("hooks.axes", needs=["hooks"])
def axes(case: Case) -> Iterator[Finding]:
    """Every canonical point has its canonical axes, or says in which order it has them; each as long as in HF's model.

    A failure means that what is read by head, position or dimension is another one.
    """
    values, infos = activations.all_values(case), activations.hook_points(case)
    truth = activations.reference_trace(case).values
    for point in activations.shared_points(case):
        given = infos[point.name].axes
        if given is not None and sorted(given) != sorted(point.axes):
            yield from_condition(point.name, f"its axes are {', '.join(given)}, not {', '.join(point.axes)}")
        elif point.name in values:
            found, wanted = list(values[point.name].shape), list(truth[point.name].shape)
            wrong = f"[{', '.join(point.axes)}] is {found}, not {wanted}" if found != wanted else None
            yield from_condition(point.name, wrong)


@check("hooks.values", needs=["hooks"])
def values(case: Case) -> Iterator[Finding]:
    """What every canonical point shows in a plain call is HF's activation there.

    Judged where the logits agree. A failure means plausible activations that are not the model's; the place is the
    first in causal order.
    """
    rows, shown = case.subject.agreeing_rows(), activations.all_values(case)
    compared = localization.compare_points(case, Scenario.PLAIN, shown, rows=rows)
    yield from localization.annotate_inputs(case, compared)


@check("hooks.aliases", needs=["hooks"])
def aliases(case: Case) -> Iterator[Finding]:
    """An alias of a hook point shows the same tensor as the point, bit for bit.

    A failure means that two activations go by the name of one.
    """
    infos = activations.hook_points(case)
    aliased = {name: info.alias_of for name, info in infos.items() if info.alias_of is not None}
    if not aliased:
        raise NotApplicable("no hook point has a second name")
    for name, target in aliased.items():
        if target not in infos:
            yield from_condition(name, f"it is said to be {target}, which is no hook point")
            continue
        at_alias = activations.subject_activations(case, Scenario.PLAIN, infos[name].switch).values
        at_point = activations.subject_activations(case, Scenario.PLAIN, infos[target].switch).values
        if name in at_alias and target in at_point:  # `hooks.fires` looks for silent ones
            yield compare_bitwise(name, at_alias[name], at_point[target])
