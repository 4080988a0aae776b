"""Run one circumstance on both sides and judge what the subject shows."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from verifier.adapter import Adapter, AdapterRefusal
from verifier.canonical import Point, layers_with, templates_by_layer
from verifier.cases.circumstances import Circumstance, differences
from verifier.cases.lengths import choose_lengths, lack_of_positions, most_positions
from verifier.cases.spec import CaseSpec
from verifier.errors import all_but_interrupts, one_line, text_of
from verifier.family import Family, longest_text_of
from verifier.judging.comparison import from_condition
from verifier.judging.outcome import Finding, NotApplicable, Verdict, area_of
from verifier.judging.raising import is_raised_by_harness
from verifier.observing.circumstances import untouched
from verifier.observing.circumstances.calls import Calls
from verifier.observing.circumstances.judging import FEW_SEEDS, Named, Noise, by_name, judge
from verifier.observing.circumstances.observables import WITH_HOOKS, Look, Observer, observers, plain
from verifier.observing.circumstances.preparing import Build, Models, Prepared, call_before, prepare
from verifier.observing.circumstances.sides import EMBEDDING, ReferenceSide, Side, SubjectSide
from verifier.observing.circumstances.texts import Texts, make_texts
from verifier.reference.perturbation import SEEDS, Perturbation
from verifier.reference.process_state import preserve_random_states

# By area or id what an observable rests on: where that fails in a row, the observable is not told again.
_RESTS_ON: Mapping[str, tuple[str, ...]] = {
    "backward": ("backward.weights",),
    "hooks.graph": ("backward.weights",),
    "hooks.collected": ("hooks.shown", "intervene.effects"),
    "backward.repeated": ("hooks.graph",),
    "intervene": ("hooks.shown",),
}
_FIRST = "forward.outputs"
# A model with more layers is looked at in so many of them, others in each circumstance: it is there for its depth.
_MOST_LAYERS = 4

_FIRST_BUILD = Build()

Shown = tuple[Named, Named]
Recall = Callable[[Hashable, Callable[[], Shown]], Shown]


@dataclass(slots=True)
class RowResult:
    """What came of a circumstance.

    Attributes:
        circumstance: a value for each axis.
        findings: by observable, those of one in the order in which a difference shows first.
        errors: by observable, what the subject raised.
        not_offered: what the adapter lacks for this circumstance; None where it lacks nothing.
        refused: what Hugging Face's own model raised; None where it ran.
        seconds: how long both models took.
    """

    circumstance: Circumstance
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    errors: dict[str, BaseException] = field(default_factory=dict)
    not_offered: str | None = None
    refused: str | None = None
    seconds: float = 0.0

    def add(self, observable: str, finding: Finding) -> None:
        """Add a finding on an observable."""
        self.findings.setdefault(observable, []).append(finding)

    def is_wrong(self, observable: str) -> bool:
        """Whether an observable fails, or raises."""
        failed = any(one.verdict is Verdict.FAIL for one in self.findings.get(observable, ()))
        return failed or observable in self.errors


class Row:
    """One circumstance of a case.

    Args:
        spec: the case.
        family: of the case.
        circumstance: a value for each axis.
        shared: recalls what Hugging Face's model showed for an earlier case with an equal model, by a key; nothing is
            recalled if not given.
        seeds: of the perturbations by which noise in a working dtype is measured.
    """

    def __init__(
        self,
        spec: CaseSpec,
        family: Family,
        circumstance: Circumstance,
        shared: Recall | None = None,
        seeds: Sequence[int] = SEEDS,
    ) -> None:
        self.models = Models(spec=spec, family=family, circumstance=circumstance)
        self.circumstance = circumstance
        # The number chooses points and kinds of edits, alike in each process.
        self.number = (
            sum((place + 1) * sum(map(ord, value)) for place, value in enumerate(circumstance.values())) + spec.seed
        )
        self._shown: dict[Any, Shown] = {}
        self._texts: dict[torch.dtype, Texts] = {}
        self._built: dict[tuple[Build, torch.dtype | None], Any] = {}
        self._moved: dict[tuple[Observer, int, Build], Named] = {}
        # What fails by few perturbations, until everything was observed.
        self._doubtful: dict[Observer, tuple[Sequence[Point], Named, Sequence[tuple[str, Finding]]]] = {}
        self._recall = shared
        self._seeds = seeds

    @functools.cached_property
    def points(self) -> Sequence[Point]:
        """The canonical points of the model at which hooks may read gradients and edit.

        Of many layers they are those of the first two, of the last, of one between, and of the first layer of each
        further kind of block.
        """
        found = [point for point in self.models.family.points(self.models.config) if not point.kind.is_discrete]
        last = max((point.layer for point in found if point.layer is not None), default=0)
        if last >= _MOST_LAYERS:
            # The name of the second layer is how those of later ones begin: `blocks.1`, `blocks.10`.
            layers = {0, 1, 2 + self.number % (last - 2), last}
            kinds = templates_by_layer(found)
            for layer, kind in kinds.items():
                if all(kinds.get(other) != kind for other in layers):
                    layers.add(layer)
            found = [point for point in found if point.layer is None or point.layer in layers]
        if self.circumstance["tokens"] != "embeddings":
            return found
        # Given embeddings do not pass what makes them of tokens: whether a hook there sees them is a convention.
        return [point for point in found if point.name != EMBEDDING]

    @functools.cached_property
    def reference(self) -> Any:
        """Hugging Face's model, in the working dtype."""
        return self._model(_FIRST_BUILD)

    def _model(self, build: Build, dtype: torch.dtype | None = None) -> Any:
        """Make Hugging Face's model once, in the working dtype or cast to another at the end."""
        key = build, None if dtype == torch.float64 and self.circumstance["dtype"] == "float64" else dtype
        if key not in self._built:
            self._built[key] = self.models.reference(key[1], build)
        return self._built[key]

    def texts(self, dtype: torch.dtype | None = None) -> Texts:
        """Make what the model is given, as new tensors.

        Args:
            dtype: of a mask that is added to the scores; the model's if not given.
        """
        config, weight = self.models.config, self.reference.get_input_embeddings().weight
        longest = longest_text_of(self.models.family, config)
        lengths = choose_lengths(self.circumstance, most=most_positions(config), longest=longest)
        assert lengths is not None, "a circumstance without room is refused"
        return make_texts(
            self.circumstance,
            seed=self.models.spec.seed,
            vocab=weight.shape[0],
            d_model=weight.shape[1],
            lengths=lengths,
            dtype=dtype or self.models.dtype,
            device=self.models.spec.device,
        )

    def calls(self, side: Side, texts: Texts) -> Calls:
        """Make the calls of a side with these texts."""
        return Calls(side, self.circumstance, texts, self.number)

    def _observe_reference(
        self, model: Any, observer: Observer, points: Sequence[Point], *, own_kernels: bool = False
    ) -> Named:
        side = ReferenceSide(self.models.family, model, points, own_kernels=own_kernels)
        texts = self._reference_texts(side.dtype)
        return by_name(observer(self._look_at(self.calls(side, texts), points)))

    def _reference_texts(self, dtype: torch.dtype) -> Texts:
        """Make the texts of Hugging Face's models once for each dtype: these write into no input."""
        if dtype not in self._texts:
            self._texts[dtype] = self.texts(dtype)
        return self._texts[dtype]

    def _reference_shows(self, observer: Observer, points: Sequence[Point], build: Build) -> Shown:
        """Observe Hugging Face's model in float64 and in the working dtype, once."""
        key = observer, tuple(point.name for point in points), build
        if key not in self._shown:

            def observe() -> Shown:
                true, working = self._model(build, torch.float64), self._model(build)
                truth = self._observe_reference(true, observer, points)
                return truth, truth if true is working else self._observe_reference(working, observer, points)

            self._shown[key] = observe() if self._recall is None else self._recall(key, observe)
        return self._shown[key]

    @preserve_random_states()  # a circumstance seeds
    def run(
        self,
        adapter: Adapter,
        only: Collection[str] = (),
        at: Collection[str] = (),
        without: Collection[str] = (),
    ) -> RowResult:
        """Wrap a model, look at it, and judge what is seen.

        Args:
            adapter: wraps the model.
            only: the observables that are wanted; all if empty.
            at: the points at which hooks are put; all that the adapter offers if empty.
            without: the templates of points at which none are put, whatever else is said.
        """
        result = RowResult(circumstance=self.circumstance)
        attention = self._attention()
        if attention is None:
            result.refused = "the family names one attention implementation"
            return result
        result.refused = lack_of_positions(self.models.family, self.models.spec.config, self.circumstance)
        if result.refused is not None:
            return result
        try:
            self._reference_shows(observers(self.circumstance, with_hooks=False)[0], (), _FIRST_BUILD)
        except Exception as error:  # nothing is asked of a subject that Hugging Face's own model does not do
            result.refused = one_line(error)
            return result
        before = untouched.settings()
        prepared: Prepared | None = None
        try:
            points = [
                point for point in self.points if (not at or point.name in at) and point.kind.template not in without
            ]
            prepared = prepare(self.models, adapter, points, attention)
            self._look(adapter, prepared, result, only)
        except all_but_interrupts() as error:
            if _is_not_offered(error):
                result.not_offered = text_of(error)
            else:  # the subject's, which becomes the outcome of the first observable
                result.errors[_FIRST] = error
        finally:
            if prepared is not None:
                prepared.close()
        for observable, finding in untouched.changed_settings(before, "a subject's life"):
            result.add(observable, finding)
        return result

    def _attention(self) -> str | None:
        """Choose the attention implementation of the model that the adapter is given; None if there is no other."""
        family = self.models.family
        if self.circumstance["attention"] == "reference":
            return family.reference_attention
        return next((one for one in family.attentions if one != family.reference_attention), None)

    def _look_at(self, calls: Calls, points: Sequence[Point]) -> Look:
        attention = next(iter(layers_with(self.points, "attn")), None)
        return Look(calls=calls, points=points, number=self.number, attention=attention)

    def _look(self, adapter: Adapter, prepared: Prepared, result: RowResult, only: Collection[str]) -> None:
        side = prepared.side
        calls = self.calls(side, self.texts())
        call_before(self.models, adapter, prepared, calls)
        around = untouched.Before(calls)
        look = self._look_at(calls, side.points)
        calling = only if untouched.OF_ALL_CALLS.isdisjoint(only) else ()
        chosen = observers(
            self.circumstance,
            with_hooks=bool(side.points),
            collects=side.runs_with_cache,
            only=calling,
            # With one value that is not plain, a call without hooks is the first: what is wrong later is told as such.
            first=self.number if len(differences(self.circumstance)) > 1 else 0,
        )
        for observer in chosen:
            self._judge(observer, look, result)
        self._judge_again(look, result)
        if only and untouched.OBSERVABLES.isdisjoint(only):
            return
        for observable, finding in itertools.chain(around.judge(), untouched.released(calls), untouched.misspelt(side)):
            result.add(observable, finding)
        for observable, place, wrong in prepared.seen:
            result.add(observable, from_condition(place, wrong))

    def _judge(self, observer: Observer, look: Look, result: RowResult) -> None:
        points = () if observer is plain else look.points
        try:
            truth, _ = self._reference_shows(observer, points, _FIRST_BUILD)
        except Exception as error:
            result.refused = f"{observer.__name__}: {one_line(error)}"
            return
        side = look.calls.side
        assert isinstance(side, SubjectSide)
        first = next((name for name in truth if side.shows(*name)), None)
        if first is None:
            return
        try:
            shown = by_name(observer(look))
        except all_but_interrupts() as error:
            if _is_not_offered(error):
                result.not_offered = text_of(error) if observer is plain else result.not_offered
                return
            look.calls.clear_gradients()
            if not self._own_kernels_raise(observer, points, error):
                result.errors[first[0]] = error
            return
        # In float64 nothing is perturbed, so that judging again would tell the same.
        few = self._seeds if self._judged_dtype == torch.float64 else self._seeds[:FEW_SEEDS]
        findings = self._compare(observer, look, points, shown, few)
        if _any_fails(findings) and len(few) < len(self._seeds):
            self._doubtful[observer] = points, shown, findings
            return
        for observable, finding in findings:
            result.add(observable, finding)

    def _judge_again(self, look: Look, result: RowResult) -> None:
        """Judge what fails by few perturbations by all of them, unless it follows from what fails by all."""
        order = plain, *WITH_HOOKS, *self._doubtful
        for observer in dict.fromkeys(one for one in order if one in self._doubtful):
            points, shown, findings = self._doubtful.pop(observer)
            failing = {observable for observable, finding in findings if finding.verdict is Verdict.FAIL}
            if not all(rests_on_failure(result, observable) for observable in failing):
                findings = self._compare(observer, look, points, shown, self._seeds)
            for observable, finding in findings:
                result.add(observable, finding)

    def _own_kernels_raise(self, observer: Observer, points: Sequence[Point], error: BaseException) -> bool:
        """Whether Hugging Face's model raises the same where the taps do not compute its attention themselves."""
        try:
            self._observe_reference(self.reference, observer, points, own_kernels=True)
        except all_but_interrupts() as own:
            return type(own) is type(error) and text_of(own) == text_of(error)
        return False

    def _compare(
        self, observer: Observer, look: Look, points: Sequence[Point], shown: Named, seeds: Sequence[int]
    ) -> Sequence[tuple[str, Finding]]:
        """Judge what a subject showed against Hugging Face's model, however that is built if there are several ways.

        One of them must agree in everything; where none does, the subject differs from the first.
        """
        attention = self._attention()
        assert attention is not None
        findings = list(self._judged(observer, look, points, shown, _FIRST_BUILD, seeds))
        if not _any_fails(findings):
            return findings
        for build in self.models.other_builds(attention):
            try:
                self._reference_shows(observer, points, build)
            except Exception:  # built so, Hugging Face's model does not run here, and nobody can follow it
                continue
            others = list(self._judged(observer, look, points, shown, build, seeds))
            if not _any_fails(others):
                return others
        return findings

    def _judged(
        self,
        observer: Observer,
        look: Look,
        points: Sequence[Point],
        shown: Named,
        build: Build,
        seeds: Sequence[int],
    ) -> Iterator[tuple[str, Finding]]:
        side = look.calls.side
        assert isinstance(side, SubjectSide)
        truth, own = self._reference_shows(observer, points, build)
        single = functools.cache(lambda: self._observe_reference(self._model(build, torch.float32), observer, points))
        noise = Noise(
            dtype=self._judged_dtype,
            single=single,
            moved=lambda seed: self._perturbed(observer, points, seed, build),
            seeds=seeds,
        )
        truth = {name: one for name, one in truth.items() if side.shows(*name)}
        yield from judge(shown, truth, own, look.calls.texts, noise)

    @property
    def _judged_dtype(self) -> torch.dtype:
        """The dtype whose noise counts; float64 is left alone by autocast."""
        lowered = self.circumstance["grad"] == "autocast" and self.models.dtype != torch.float64
        return torch.bfloat16 if lowered else self.models.dtype

    def _perturbed(self, observer: Observer, points: Sequence[Point], seed: int, build: Build) -> Named:
        key = observer, seed, build
        if key not in self._moved:
            with Perturbation(self._judged_dtype, seed):
                self._moved[key] = self._observe_reference(self._model(build), observer, points)
        return self._moved[key]


def _is_not_offered(error: BaseException) -> bool:
    """Whether an exception says that the adapter lacks something; NotApplicable is the harness's to raise alone."""
    if issubclass(type(error), NotApplicable):
        return is_raised_by_harness(error)
    return issubclass(type(error), AdapterRefusal)


def _any_fails(findings: Sequence[tuple[str, Finding]]) -> bool:
    return any(finding.verdict is Verdict.FAIL for _, finding in findings)


def rests_on_failure(result: RowResult, observable: str) -> bool:
    """Whether an observable of a row follows from a failing one of the same row.

    What a call spoils is nothing that follows: wrong logits may follow from it.

    Args:
        result: of the row.
        observable: the id.
    """
    if observable in untouched.OBSERVABLES:
        return False
    bases = (_FIRST, *_RESTS_ON.get(area_of(observable), ()), *_RESTS_ON.get(observable, ()))
    return any(base != observable and result.is_wrong(base) for base in bases)


def not_resting_on_failures(result: RowResult) -> dict[str, list[Finding]]:
    """Select the observables of a row that do not follow from a failing one of the same row."""
    return {name: found for name, found in result.findings.items() if not rests_on_failure(result, name)}
