"""Run the circumstances that a case was dealt, and find the plainest one in which an observable is wrong."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from time import perf_counter  # held here: an adapter may patch `time`

from verifier.adapter import Adapter
from verifier.canonical import KINDS, template_of
from verifier.cases.circumstances import (
    AXES,
    PLAIN,
    Circumstance,
    complete,
    differences,
    has_one_of,
    is_allowed,
    needs_of,
    shorter,
    steps,
    with_plainer_step,
)
from verifier.cases.dealing import WITH_GRADIENTS
from verifier.errors import all_but_interrupts, type_name
from verifier.judging.outcome import Blocked, Finding, NotApplicable, Outcome, Verdict
from verifier.judging.row_summary import RowSummary
from verifier.judging.wording import circumstance_words
from verifier.observing import activations, localization
from verifier.observing.case import Case
from verifier.observing.circumstances.judging import FEW_SEEDS
from verifier.observing.circumstances.row import Row, RowResult, Shown, rests_on_failure
from verifier.observing.circumstances.summarizing import summarize_row
from verifier.observing.memo import memoized
from verifier.reference.perturbation import SEEDS


class RaisedIn(Exception):
    """A subject raised in a circumstance; the cause is what it raised.

    Attributes:
        circumstance: by axis, the values without which it does not raise.
    """

    def __init__(self, circumstance: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__(circumstance_words(circumstance))
        self.circumstance = circumstance


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """An observable that is wrong in a circumstance.

    Attributes:
        finding: the first place that differs; None where the subject raises.
        error: what the subject raised; None where it differs.
    """

    finding: Finding | None
    error: BaseException | None

    @property
    def way(self) -> tuple[str | None, str | None]:
        """In which way it is wrong: the place without its layer, or the exception."""
        if self.error is not None:
            return None, type_name(self.error)
        assert self.finding is not None
        return template_of(self.finding.where or ""), None


_RESULTS = "circumstances"  # the key of a case's results in its memo
_TRIED = "tried circumstances"  # of how many were run to find the plainest one
# An adapter that is wrong in everything must not take more time than a case may: the rest is told less plainly.
_MOST_TRIED = 100


_MINIMISES = ContextVar("minimises", default=True)


@contextlib.contextmanager
def told_as_met() -> Iterator[None]:
    """Tell failures in the circumstances in which they are met: for a run that asks only whether there is one."""
    token = _MINIMISES.set(False)
    try:
        yield
    finally:
        _MINIMISES.reset(token)


_TOLD: ContextVar[Mapping[str, Outcome]] = ContextVar("told", default={})  # noqa: B039 - nobody writes into it


@contextlib.contextmanager
def told_before(outcomes: Mapping[str, Outcome]) -> Iterator[None]:
    """Look first for failures where they were told before: what was minimised once need not be again.

    Args:
        outcomes: what was told, by the id of the check.
    """
    token = _TOLD.set(outcomes)
    try:
        yield
    finally:
        _TOLD.reset(token)


def results(case: Case) -> tuple[RowResult, ...]:
    """Run every circumstance of the case, once.

    Raises:
        Blocked: the subject is wrong or raises as it is called most plainly, which another check reports.
    """

    def run() -> tuple[RowResult, ...]:
        case.subject.agreeing_rows()
        return tuple(_run(case, {**PLAIN, **circumstance}) for circumstance in case.spec.circumstances)

    return case.memo.memoize(_RESULTS, run)


def summaries(case: Case) -> tuple[RowSummary, ...]:
    """Summarize the circumstances of the case that a check has run; none is run for this."""
    if not case.memo.holds(_RESULTS):
        return ()
    return tuple(summarize_row(case.spec.id, result) for result in results(case))


def _run(
    case: Case,
    circumstance: Circumstance,
    only: Sequence[str] = (),
    at: Sequence[str] = (),
    seeds: Sequence[int] = SEEDS,
) -> RowResult:
    shared = case.shared_reference

    def recall(key: Hashable, make: Callable[[], Shown]) -> Shown:
        return shared.memoize(("circumstance", key), make)

    # Every case is looked at in this one, and cases with equal models share what HF's model shows in it.
    row = Row(case.spec, case.family, circumstance, recall if circumstance == WITH_GRADIENTS else None, seeds)
    without, began = _wrong_plainly(case), perf_counter()
    result = row.run(case.subject.adapter, only, at, without)
    result.seconds = perf_counter() - began
    return result


@memoized
def _wrong_plainly(case: Case) -> frozenset[str]:
    """List the templates of points that show something else in a plain call, which `hooks.values` reports."""
    if case.subject.wrapped().hooks is None:
        return frozenset()
    try:
        agreeing = {point.name for point in localization.agreeing_points(case)}
        shared = activations.shared_points(case)
    except Blocked:
        return frozenset(point.kind.template for point in case.reference.points)
    except all_but_interrupts():  # hooks that raise show nothing; `hooks.fires` reports them
        return frozenset()
    return frozenset(point.kind.template for point in shared if point.name not in agreeing)


def judge(case: Case, observable: str) -> Iterator[Finding]:
    """Judge an observable in every circumstance of the case in which it can be looked at.

    Where it is wrong in one, gives that alone, with the plainest circumstance in which it is.

    Args:
        case: the case.
        observable: the id of the check.

    Raises:
        Blocked: in every circumstance it rests on something that another check reports.
        NotApplicable: no circumstance of the case shows it.
        RaisedIn: the subject raises.
    """
    looked: list[Finding] = []
    wrong: list[tuple[Circumstance, Wrong]] = []
    blocked = False
    for result in results(case):
        found = _wrong_in(result, observable)
        if found is not None:
            wrong.append((result.circumstance, found))
        elif observable in result.findings:
            rests = rests_on_failure(result, observable)
            blocked = blocked or rests
            looked += () if rests else result.findings[observable]
    if wrong:
        yield _told(case, observable, *min(wrong, key=lambda one: len(differences(one[0]))))
    elif looked:
        yield from looked
    elif blocked:
        raise Blocked("forward.outputs")
    else:
        raise NotApplicable("no circumstance of this case shows it")


def _told(case: Case, observable: str, circumstance: Circumstance, wrong: Wrong) -> Finding:
    """Tell of a failure in the plainest circumstance that has it.

    Raises:
        RaisedIn: the failure is an exception.
    """
    if not _MINIMISES.get():
        if wrong.error is not None:
            raise RaisedIn({}) from wrong.error
        assert wrong.finding is not None
        return wrong.finding
    minimal, wrong = _minimal(case, observable, circumstance, wrong)
    if observable in _EVERYWHERE_AT_ONCE and wrong.error is None:
        wrong = _at_one_point(case, observable, {**circumstance, **_at(minimal, observable)}, wrong)
    if wrong.error is not None:
        raise RaisedIn(minimal) from wrong.error
    finding = wrong.finding
    assert finding is not None
    if observable in _LOCATED:
        finding = _located(case, {**circumstance, **_at(minimal, observable)}, finding)
    when = circumstance_words(minimal)
    message = f"{when}: {finding.message}" if when else finding.message
    return replace(finding, message=message, circumstance=minimal or None)


def _at(minimal: Mapping[str, tuple[str, ...]], observable: str) -> Circumstance:
    """Give each axis its value in the plainest circumstance that has a failure; no axis if no circumstance has all."""
    plainest = {**_plainest(observable), **{axis: values[0] for axis, values in minimal.items()}}
    return plainest if is_allowed(plainest) else {}


_POINTS = frozenset(kind.template for kind in KINDS)

# Where what follows from every point differs, the first point says where that starts.
_LOCATED = ("forward.outputs", "forward.losses")


def _located(case: Case, circumstance: Circumstance, finding: Finding) -> Finding:
    """Say at which hook point a difference starts, as far as hooks show."""
    shown = _run(case, circumstance, ("hooks.shown",), seeds=SEEDS[:FEW_SEEDS]).findings.get("hooks.shown", ())
    at_points = [one for one in shown if template_of(one.where or "") in _POINTS]
    start = next((one for one in localization.annotate_inputs(case, at_points) if one.verdict is Verdict.FAIL), None)
    if start is None:
        return finding
    message = f"{finding.where}: {finding.message}; it starts at {start.where}: {start.message}"
    return replace(finding, where=start.where, message=message)


# In these every point is edited at once, and a difference shows first where the edit's effect arrives.
_EVERYWHERE_AT_ONCE = ("intervene.effects", "backward.effects")


def _at_one_point(case: Case, observable: str, circumstance: Circumstance, wrong: Wrong) -> Wrong:
    """Find a point whose edits alone are wrong in a circumstance, by halves of the points of a layer.

    What is wrong at points of both halves, or only together, stays where it is seen.
    """
    points = Row(case.spec, case.family, circumstance).points
    templates = list(dict.fromkeys(point.kind.template for point in points))

    def of(chosen: Sequence[str]) -> list[str]:
        return [point.name for point in points if point.kind.template in chosen]

    def alone(names: Sequence[str]) -> Wrong | None:
        row = _run(case, circumstance, (observable, "forward.outputs"), names, SEEDS[:FEW_SEEDS])
        found = _wrong_in(row, observable)
        return found if found is not None and found.finding is not None else None

    told = _TOLD.get().get(observable)
    if told is not None and told.where in of(templates) and (found := alone([told.where])) is not None:
        return _told_at(told.where, found)
    while len(templates) > 1:
        middle = len(templates) // 2
        halves = templates[:middle], templates[middle:]
        failing = [(half, found) for half in halves if (found := alone(of(half))) is not None]
        if len(failing) != 1:
            return wrong
        [(templates, wrong)] = failing
    names = of(templates)
    for name in names if len(names) > 1 else ():
        found = alone([name])
        if found is not None:
            return _told_at(name, found)
    return _told_at(names[0], wrong) if names else wrong


def _told_at(name: str, wrong: Wrong) -> Wrong:
    """Say that the edit at a point alone is wrong."""
    finding = wrong.finding
    if finding is None:
        return wrong
    seen = "" if finding.where == name else f"seen at {finding.where}: "
    return replace(
        wrong, finding=replace(finding, where=name, message=f"the edit there alone, {seen}{finding.message}")
    )


# What was found wrong in this process before, with its plainest circumstance: by family, adapter, observable and way.
# The adapter is held, because another one may get the identity of one that is gone.
_KNOWN: dict[tuple[object, ...], tuple[Adapter, list[dict[str, tuple[str, ...]]]]] = {}


def _minimal(
    case: Case, observable: str, circumstance: Circumstance, wrong: Wrong
) -> tuple[dict[str, tuple[str, ...]], Wrong]:
    """Set each axis back to its plainest value as long as the failure stays, then add the other values that have it.

    What was seen in the plainest of these circumstances is told, whichever circumstance the case was dealt and whatever
    was found wrong before: points and edits are chosen by the circumstance.

    Returns:
        By axis the values that the circumstance must have one of, and the failure in the plainest of them.
    """
    key = case.family.name, id(case.subject.adapter), observable, wrong.way
    _, before = _KNOWN.setdefault(key, (case.subject.adapter, []))
    needs = needs_of(observable)
    current = dict(circumstance)
    tried = case.memo.memoize(_TRIED, itertools.count)

    def fails(candidate: Circumstance) -> Wrong | None:
        if not is_allowed(candidate) or any(candidate[axis] not in values for axis, values in needs.items()):
            return None
        if next(tried) >= _MOST_TRIED:
            return None
        # Whether a failure is one in another circumstance too is settled by fewer perturbations than whether it is one.
        found = _wrong_in(_run(case, candidate, (observable, "forward.outputs"), seeds=SEEDS[:FEW_SEEDS]), observable)
        return found if found is not None and found.way[1] == wrong.way[1] else None

    told = _TOLD.get().get(observable)
    first = [] if told is None else [{axis: tuple(values) for axis, values in (told.circumstance or {}).items()}]
    for known in (*first, *before):
        if all(has_one_of(circumstance[axis], values) for axis, values in known.items()):
            found = fails({**circumstance, **_at(known, observable)})
            if found is not None:
                return known, found
    plainest = _plainest(observable)
    attempt = complete({}, needs)
    everything = fails(attempt) if attempt is not None else None
    if everything is not None and attempt is not None:
        current, wrong = dict(attempt), everything
    else:
        # One mistake is wrong in one circumstance at many observables.
        for known in _met_before(case, circumstance):
            candidate = {**plainest, **{axis: values[0] for axis, values in known.items()}}
            found = fails(candidate)
            if found is not None:
                before.append(known)
                return known, found
    kept: dict[str, str] | None = None
    while kept != current:  # what one value needed may go once that value is gone
        kept = dict(current)
        for axis in AXES:
            for plainer in (plainest[axis], *shorter(current[axis])) if current[axis] != plainest[axis] else ():
                found = fails({**current, axis: plainer})
                if found is not None:
                    current[axis], wrong = plainer, found
                    break
    # Whichever two calls a failure needs, it is told after the plainest two.
    for place in range(len(steps(current["history"]))):
        for other in with_plainer_step(current["history"], place):
            found = fails({**current, "history": other})
            if found is not None:
                current["history"], wrong = other, found
                break
    minimal: dict[str, tuple[str, ...]] = {axis: (value,) for axis, value in current.items() if value != plainest[axis]}
    for axis in minimal:
        value = current[axis]
        others = [one for one in AXES[axis] if one not in (value, PLAIN[axis])]
        failing = [one for one in others if fails({**current, axis: one}) is not None]
        minimal[axis] = tuple(one for one in dict.fromkeys([*AXES[axis], value]) if one == value or one in failing)
    representative = {**current, **_at(minimal, observable)}
    found = fails(representative) if representative != current else None
    before.append(minimal)
    return minimal, found or wrong


def _met_before(case: Case, circumstance: Circumstance) -> list[dict[str, tuple[str, ...]]]:
    """List what other observables of the adapter were wrong in, as far as this circumstance has it, the plainest first.

    Args:
        case: of the adapter.
        circumstance: in which another observable is wrong.
    """
    found: list[dict[str, tuple[str, ...]]] = []
    for (family, adapter, *_), (_, others) in _KNOWN.items():
        if (family, adapter) == (case.family.name, id(case.subject.adapter)):
            found += [one for one in others if one and all(has_one_of(circumstance[axis], one[axis]) for axis in one)]
    return sorted(found, key=len)


def _plainest(observable: str) -> Circumstance:
    """Give each axis the plainest value in which an observable can be looked at."""
    needs = needs_of(observable)
    return {axis: needs.get(axis, (value,))[0] for axis, value in PLAIN.items()}


def _wrong_in(result: RowResult, observable: str) -> Wrong | None:
    if observable in result.errors:
        return Wrong(finding=None, error=result.errors[observable])
    if rests_on_failure(result, observable):
        return None
    failed = next((one for one in result.findings.get(observable, ()) if one.verdict is Verdict.FAIL), None)
    return None if failed is None else Wrong(finding=failed, error=None)
