"""Run one circumstance on both sides and judge what the subject shows."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from verifier.adapter import Adapter, AdapterRefusal
from verifier.canonical import Point
from verifier.cases.circumstances import Circumstance
from verifier.cases.spec import CaseSpec
from verifier.errors import one_line
from verifier.family import Family
from verifier.judging.comparison import from_condition
from verifier.judging.outcome import Finding, NotApplicable, Verdict
from verifier.observing.circumstances import untouched
from verifier.observing.circumstances.calls import Calls
from verifier.observing.circumstances.judging import Named, Noise, by_name, judge
from verifier.observing.circumstances.observables import Look, Observer, observers, plain
from verifier.observing.circumstances.preparing import Models, Prepared, call_before, prepare
from verifier.observing.circumstances.sides import ReferenceSide, Side
from verifier.observing.circumstances.texts import Texts, make_texts
from verifier.reference.perturbation import SEEDS, Perturbation

# What an observable rests on: where that fails in a row, the observable is not told again.
_RESTS_ON: Mapping[str, tuple[str, ...]] = {
    "backward": ("backward.weights",),
    "intervene": ("hooks.shown",),
    "cache": (),
}
_FIRST = "forward.outputs"

# Fewer than where a case's plain run is judged: there are a thousand circumstances, and each has hundreds of tensors.
_SEEDS = SEEDS[:8]

Shown = tuple[Named, Named]
Recall = Callable[[Hashable, Callable[[], Shown]], Shown]


@dataclass(slots=True)
class RowResult:
    """What came of a circumstance.

    Attributes:
        circumstance: a value for each axis.
        findings: by observable, in the order in which a difference shows first.
        errors: by observable, what the subject raised.
        not_offered: what the adapter lacks for this circumstance; None where it lacks nothing.
        refused: what Hugging Face's own model raised; None where it ran.
    """

    circumstance: Circumstance
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    not_offered: str | None = None
    refused: str | None = None

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
    """

    def __init__(
        self, spec: CaseSpec, family: Family, circumstance: Circumstance, shared: Recall | None = None
    ) -> None:
        self.models = Models(spec=spec, family=family, circumstance=circumstance)
        self.circumstance = circumstance
        # The number chooses points and kinds of edits, alike in each process.
        self.number = (
            sum((place + 1) * sum(map(ord, value)) for place, value in enumerate(circumstance.values())) + spec.seed
        )
        self._shown: dict[Any, Shown] = {}
        self._texts: dict[torch.dtype, Texts] = {}
        self._recall = shared

    @functools.cached_property
    def points(self) -> Sequence[Point]:
        """The canonical points of the model."""
        return self.models.family.points(self.models.config)

    @functools.cached_property
    def reference(self) -> Any:
        """Hugging Face's model, in the working dtype."""
        return self.models.reference()

    @functools.cached_property
    def _truth(self) -> Any:
        if self.models.dtype == torch.float64 and self.circumstance["dtype"] == "float64":
            return self.reference
        return self.models.reference(torch.float64)

    @functools.cached_property
    def _single(self) -> Any:
        return self.models.reference(torch.float32)

    def texts(self, dtype: torch.dtype | None = None) -> Texts:
        """Make what the model is given, as new tensors.

        Args:
            dtype: of a mask that is added to the scores; the model's if not given.
        """
        config, weight = self.models.config, self.reference.get_input_embeddings().weight
        most = config.get("max_position_embeddings")
        return make_texts(
            self.circumstance,
            seed=self.models.spec.seed,
            vocab=weight.shape[0],
            d_model=weight.shape[1],
            most=most if isinstance(most, int) else None,
            dtype=dtype or self.models.dtype,
            device=self.models.spec.device,
        )

    def calls(self, side: Side, texts: Texts) -> Calls:
        """Make the calls of a side with these texts."""
        return Calls(side, self.circumstance, texts, self.number)

    def _observe_reference(self, model: Any, observer: Observer, points: Sequence[Point]) -> Named:
        side = ReferenceSide(self.models.family, model, points)
        texts = self._reference_texts(side.dtype)
        return by_name(observer(Look(calls=self.calls(side, texts), points=points, number=self.number)))

    def _reference_texts(self, dtype: torch.dtype) -> Texts:
        """Make the texts of Hugging Face's models once for each dtype: these write into no input."""
        if dtype not in self._texts:
            self._texts[dtype] = self.texts(dtype)
        return self._texts[dtype]

    def _reference_shows(self, observer: Observer, points: Sequence[Point]) -> Shown:
        """Observe Hugging Face's model in float64 and in the working dtype, once."""
        key = observer, tuple(point.name for point in points)
        if key not in self._shown:

            def observe() -> Shown:
                truth = self._observe_reference(self._truth, observer, points)
                same = self._truth is self.reference
                return truth, truth if same else self._observe_reference(self.reference, observer, points)

            self._shown[key] = observe() if self._recall is None else self._recall((observer, key[1]), observe)
        return self._shown[key]

    def run(self, adapter: Adapter, only: Collection[str] = (), at: Collection[str] = ()) -> RowResult:
        """Wrap a model, look at it, and judge what is seen.

        Args:
            adapter: wraps the model.
            only: the observables that are wanted; all if empty.
            at: the points at which hooks are put; all that the adapter offers if empty.
        """
        result = RowResult(circumstance=self.circumstance)
        attention = self._attention()
        if attention is None:
            result.refused = "the family names one attention implementation"
            return result
        try:
            self._reference_shows(observers(self.circumstance, with_hooks=False)[0], ())
        except Exception as error:  # nothing is asked of a subject that Hugging Face's own model does not do
            result.refused = one_line(error)
            return result
        before = untouched.settings()
        prepared: Prepared | None = None
        try:
            points = [point for point in self.points if not at or point.name in at]
            prepared = prepare(self.models, adapter, points, attention)
            self._look(adapter, prepared, result, only)
        except (NotApplicable, AdapterRefusal) as reason:
            result.not_offered = str(reason)
        except Exception as error:  # the subject's, which becomes the outcome of the first observable
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

    def _look(self, adapter: Adapter, prepared: Prepared, result: RowResult, only: Collection[str]) -> None:
        side = prepared.side
        calls = self.calls(side, self.texts())
        call_before(self.models, adapter, prepared, calls)
        around = untouched.Before(calls)
        look = Look(calls=calls, points=side.points, number=self.number)
        calling = only if untouched.OF_ALL_CALLS.isdisjoint(only) else ()
        for observer in observers(self.circumstance, with_hooks=bool(side.points), only=calling, first=self.number):
            self._judge(observer, look, result)
        if only and untouched.OBSERVABLES.isdisjoint(only):
            return
        for observable, finding in itertools.chain(
            around.judge(), untouched.released(calls, side.gated), untouched.misspelt(side)
        ):
            result.add(observable, finding)
        for observable, place, wrong in prepared.seen:
            result.add(observable, from_condition(place, wrong))

    def _judge(self, observer: Observer, look: Look, result: RowResult) -> None:
        points = () if observer is plain else look.points
        try:
            truth, own = self._reference_shows(observer, points)
        except Exception as error:
            result.refused = f"{observer.__name__}: {one_line(error)}"
            return
        first = next(iter(truth), None)
        if first is None:
            return
        try:
            shown = by_name(observer(look))
        except NotApplicable:
            return
        except Exception as error:
            look.calls.clear_gradients()
            result.errors[first[0]] = error
            return
        noise = Noise(
            dtype=self._judged_dtype,
            single=functools.cache(lambda: self._observe_reference(self._single, observer, points)),
            moved=functools.cache(lambda seed: self._perturbed(observer, points, seed)),
            seeds=_SEEDS,
        )
        for observable, finding in judge(shown, truth, own, look.calls.texts, noise):
            result.add(observable, finding)

    @property
    def _judged_dtype(self) -> torch.dtype:
        """The dtype whose noise counts; float64 is left alone by autocast."""
        lowered = self.circumstance["grad"] == "autocast" and self.models.dtype != torch.float64
        return torch.bfloat16 if lowered else self.models.dtype

    def _perturbed(self, observer: Observer, points: Sequence[Point], seed: int) -> Named:
        with Perturbation(self._judged_dtype, seed):
            return self._observe_reference(self.reference, observer, points)


def not_resting_on_failures(result: RowResult) -> dict[str, list[Finding]]:
    """Select the observables of a row that do not follow from a failing one of the same row.

    What a call spoils is nothing that follows: wrong logits may follow from it.
    """
    kept: dict[str, list[Finding]] = {}
    for observable, findings in result.findings.items():
        area = observable.partition(".")[0]
        bases = [one for one in (_FIRST, *_RESTS_ON.get(area, ())) if one != observable]
        if observable in untouched.OBSERVABLES or not any(result.is_wrong(base) for base in bases):
            kept[observable] = findings
    return kept
