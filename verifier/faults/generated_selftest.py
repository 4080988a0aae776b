"""The generated self-test: every mutant that is wrong for one value, or where two or three meet, must be called wrong.

All triggers are armed at once, and each effect is judged apart: a mutant is dead once a row in which its trigger was
met, as the mutant itself senses it, is called wrong for its effect.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch

from verifier import adapter as adapters
from verifier import family
from verifier.adapter import Adapter
from verifier.canonical import Point
from verifier.cases import matrix
from verifier.cases.circumstances import CLASSES, PLAIN, Meeting, complete, wanted_meetings
from verifier.cases.spec import CaseSpec
from verifier.family import Family
from verifier.faults.generated import EFFECTS, Armed, Effect, GeneratedAdapter
from verifier.faults.sensing import Sensed, combinations
from verifier.judging.outcome import Finding, Verdict
from verifier.observing.circumstances.judging import FEW_SEEDS, Named
from verifier.observing.circumstances.observables import Look, Observer
from verifier.observing.circumstances.preparing import Build
from verifier.observing.circumstances.row import Row, RowResult
from verifier.reference.acceptance import answered_by, ask_here
from verifier.reference.perturbation import SEEDS

_KINDS = {kind.name: kind for kind in CLASSES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """An effect that acted in a row.

    Attributes:
        effect: its name.
        sensed: the circumstance, as the mutant sensed it.
        killed: whether the row was called wrong for the effect.
    """

    effect: str
    sensed: Sensed
    killed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What became of the generated mutants.

    Attributes:
        rows: how many rows were run.
        mutants: how many mutants there are, by how many values their triggers have.
        survivors: the effect and the trigger of those that no row called wrong.
    """

    rows: int
    mutants: dict[int, int]
    survivors: tuple[tuple[str, Meeting], ...]

    @property
    def sentence(self) -> str:
        """What the run proves, in a sentence."""
        singles, pairs, triples = (self.mutants.get(size, 0) for size in (1, 2, 3))
        return (
            f"{len(EFFECTS)} effects, each wrong for one value ({singles:,} mutants), where two values meet "
            f"({pairs:,}) and where three do ({triples:,}), in {self.rows:,} rows"
        )


def triggers(effect: Effect) -> frozenset[Meeting]:
    """List the triggers of an effect: every value of its class alone, and every meeting that is wanted."""
    kind = _KINDS[effect.kind]
    single = (
        frozenset({(axis, value)})
        for axis in kind.axes or PLAIN
        for value in {value for meeting in wanted_meetings(kind) for name, value in meeting if name == axis}
    )
    alone = {one for one in single if complete(dict(one), kind.needs) is not None}
    return frozenset(one for one in alone | wanted_meetings(kind) if effect.unseen.isdisjoint(one))


class _WatchedRow(Row):
    """A row that notes after each function that observes which effects acted, and whether they were seen."""

    def __init__(self, spec: CaseSpec, family: Family, circumstance: dict[str, str], armed: Armed) -> None:
        # A result that is twice as large needs no more perturbations to be told from noise.
        super().__init__(spec, family, circumstance, seeds=SEEDS[:FEW_SEEDS])
        self._armed = armed
        self.acted: list[Acted] = []

    def _judge(self, observer: Observer, look: Look, result: RowResult) -> None:
        self._armed.acted.clear()
        own = RowResult(circumstance=self.circumstance)
        super()._judge(observer, look, own)
        wrong = set[str](own.errors)
        for observable, found in own.findings.items():
            wrong.update(*(_names(observable, one) for one in found if one.verdict is Verdict.FAIL))
        for name, sensed in self._armed.acted.items():
            self.acted.append(Acted(effect=name, sensed=sensed, killed=_is_seen(name, wrong)))

    def _judged(
        self, observer: Observer, look: Look, points: Sequence[Point], shown: Named, build: Build, seeds: Sequence[int]
    ) -> Iterator[tuple[str, Finding]]:
        """Judge until every effect that acted is seen: what else is wrong costs the most, and tells nothing more."""
        wrong: set[str] = set()
        for observable, finding in super()._judged(observer, look, points, shown, build, seeds):
            yield observable, finding
            if finding.verdict is Verdict.FAIL:
                wrong.update(_names(observable, finding))
                if all(_is_seen(name, wrong) for name in self._armed.acted):
                    return


def _names(observable: str, finding: Finding) -> tuple[str, str]:
    return observable, f"{observable} at {finding.where}"


def _is_seen(effect: str, wrong: Collection[str]) -> bool:
    return not EFFECTS[effect].seen_by.isdisjoint(wrong)


def run_case(spec: CaseSpec, right_family: Family, right: Adapter) -> list[Acted]:
    """Run the rows of a case with every trigger armed.

    Args:
        spec: the case.
        right_family: of the case.
        right: the right adapter.
    """
    found: list[Acted] = []
    for circumstance in spec.circumstances:
        armed = Armed()
        row = _WatchedRow(spec, right_family, {**PLAIN, **circumstance}, armed)
        row.run(GeneratedAdapter(right, armed, right_family.reference_attention))
        found += row.acted
    return found


def _run_in_worker(spec: CaseSpec, family_reference: str, adapter_reference: str) -> list[Acted]:
    torch.set_num_threads(1)
    return run_case(spec, family.load(family_reference), adapters.load(adapter_reference))


def run(
    family_reference: str,
    adapter_reference: str,
    *,
    seed: int = 0,
    workers: int = 1,
    quick: bool = False,
    cases: Sequence[CaseSpec] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Generated:
    """Run the circumstances of a default run with every generated mutant armed.

    Args:
        family_reference: the family, as on the command line.
        adapter_reference: the right adapter, as on the command line.
        seed: of the cases.
        workers: how many processes.
        quick: whether the circumstances are those of a quick run, and the mutants those of one value.
        cases: those that are run; all of a default run if empty, or of a quick one.
        progress: is given after each case how many are done, and of how many.
    """
    with answered_by(ask_here):
        chosen = cases or matrix.cases(family.load(family_reference), family_reference, seed=seed, quick=quick)
    specs = [spec for spec in chosen if spec.valid]
    found: list[Acted] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        acted = pool.map(_run_in_worker, specs, itertools.repeat(family_reference), itertools.repeat(adapter_reference))
        for done, one in enumerate(acted, start=1):
            found += one
            if progress is not None:
                progress(done, len(specs))
    return count(found, rows=sum(len(spec.circumstances) for spec in specs), most=1 if quick else 3)


def count(acted: Iterable[Acted], *, rows: int, most: int = 3) -> Generated:
    """Count the mutants that died and those that survived.

    Args:
        acted: what happened.
        rows: how many rows were run.
        most: the most values that the trigger of a mutant has which counts.
    """
    dead: dict[str, set[Meeting]] = {name: set() for name in EFFECTS}
    for one in acted:
        if one.killed:
            dead[one.effect].update(_met(EFFECTS[one.effect], one.sensed))
    wanted = {name: {one for one in triggers(effect) if len(one) <= most} for name, effect in EFFECTS.items()}
    sizes = [len(trigger) for found in wanted.values() for trigger in found]
    survivors = [
        (name, trigger)
        for name, found in wanted.items()
        for trigger in sorted(found - dead[name], key=lambda one: (len(one), sorted(one)))
    ]
    return Generated(
        rows=rows, mutants={size: sizes.count(size) for size in sorted(set(sizes))}, survivors=tuple(survivors)
    )


def _met(effect: Effect, sensed: Sensed) -> Iterator[Meeting]:
    axes = _KINDS[effect.kind].axes or tuple(PLAIN)
    yield from combinations(sensed, axes, 1)
    yield from combinations(sensed, axes, 2)
    for triples in _KINDS[effect.kind].triples:
        yield from combinations(sensed, triples, 3)
