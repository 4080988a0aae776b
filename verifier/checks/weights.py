"""Canonical weights: whether they are Hugging Face's, in the shapes that their names promise, and compute the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from verifier.adapter import LOG_PROBABILITIES, LOGITS
from verifier.canonical import Point
from verifier.cases.spec import SEMANTIC_DTYPE
from verifier.checks import check, processings
from verifier.checks.canonical_weights import (
    misshapen,
    readable_weights,
    reference_weights,
    subject_weights,
    unreadable,
    usable_weights,
)
from verifier.checks.computed import attentions, elsewhere, told
from verifier.judging.comparison import from_condition, summarize
from verifier.judging.numerics import compare_bitwise, rms
from verifier.judging.outcome import Blocked, Finding, NotApplicable, Verdict
from verifier.observing import localization
from verifier.observing.capabilities import require
from verifier.observing.case import Case
from verifier.reference import models
from verifier.reference.random_weights import generator, randomise
from verifier.reference.weights import canonical_of, n_layers_of


@check("weights.names", needs=["weights"])
def names(case: Case) -> Finding:
    """Every weight that HF's model has is there under its canonical name, with values; one that it lacks is not there,
    unless it is a bias of zeros.

    A failure means that a parameter cannot be read by the name that everybody uses, or that a weight is made up.
    """

    def compare() -> Iterator[Finding]:
        wanted, ours = reference_weights(case), subject_weights(case)
        for name, weight in wanted.items():
            yield from_condition(name, unreadable(ours.get(name), weight))
        for name in sorted(ours.keys() - wanted.keys()):
            yield from_condition(name, _made_up(name, ours[name]))

    return summarize(compare())


def _made_up(name: str, weight: object) -> str | None:
    is_bias = name.rpartition(".")[2].startswith("b")
    if weight is None or (is_bias and isinstance(weight, Tensor) and not bool(weight.any())):
        return None
    return "there is one, and HF has none"


@check("weights.shapes", needs=["weights"])
def shapes(case: Case) -> Finding:
    """Every canonical weight has the axes of its name: `W_Q` a matrix for each query head, `W_K` and `W_V` one for
    each key/value head, unexpanded.

    A failure means that code written for canonical weights reads another axis, or heads that are not there.
    """

    def compare() -> Iterator[Finding]:
        ours = readable_weights(case)
        for name, wanted in reference_weights(case).items():
            if unreadable(ours.get(name), wanted) is None:  # otherwise `weights.names` says so
                yield from_condition(name, misshapen(ours[name], wanted, name))

    return _concluded(compare(), "weights.names")


def _concluded(comparisons: Iterator[Finding], reported: str) -> Finding:
    """The finding; where nothing could be compared because another check reports all of it, that one is named."""
    made = list(comparisons)
    if not made:
        raise Blocked(reported)
    return summarize(made)


@check("weights.attention", needs=["weights"])
def attention(case: Case) -> Finding:
    """Attention computed from the canonical weights alone, with HF's own positions and mask, is what HF computes.

    The first weight that makes a difference is named. A failure means that circuits read off these weights (QK, OV)
    are of another model, whatever the activations show.
    """
    if not n_layers_of(case.family, case.reference.model()):
        raise NotApplicable("the model has no layers")
    return _concluded((one for made in attentions(case).values() for one in made), "weights.shapes or qkv.rows")


@check("weights.modules", needs=["weights"])
def modules(case: Case) -> Finding:
    """Embedding, norms, the MLP's matrices and the unembedding, computed from the canonical weights alone, are what
    HF's modules give.

    A failure means that a weight does not stand for the module of its name: transposed, swapped, scaled, or without
    its bias.
    """
    return _concluded(iter(elsewhere(case)), "weights.shapes")


@check("weights.values", needs=["weights"])
def values(case: Case) -> Finding:
    """The canonical weights are HF's, bit for bit and in HF's dtype; in the pairwise cases in every working dtype too.

    Where a weight computes something else `weights.attention` or `weights.modules` says so. A failure means that one
    computes nearly the same and is not the model's: cast, scaled and scaled back, or out of date.
    """

    def compare() -> Iterator[Finding]:
        elsewhere_told = told(case)
        for dtype in (SEMANTIC_DTYPE, *(case.spec.dtypes if case.spec.is_pairwise else ())):
            ours = subject_weights(case, dtype)
            for name, wanted in reference_weights(case, dtype).items():
                if name not in elsewhere_told:
                    yield _named(dtype, compare_bitwise(name, ours.get(name), wanted))

    return _concluded(compare(), "weights.attention or weights.modules")


def _named(dtype: str, comparison: Finding) -> Finding:
    if comparison.verdict is Verdict.PASS or dtype == SEMANTIC_DTYPE:
        return comparison
    return from_condition(comparison.where or "", f"{comparison.message} in a {dtype} model")


@check("weights.restore", needs=["weights", "restore"])
def restore(case: Case) -> Finding:
    """Canonical weights go back into HF's names and shapes bit for bit: the subject's own, and any others of such a
    model.

    A failure means that an edited model is saved as another one.
    """

    readable_weights(case)

    def compare() -> Iterator[Finding]:
        other = case.reference.build()
        randomise(other, case.spec.seed + 1)
        # The adapter may take it apart.
        expected = {name: value.detach().clone() for name, value in other.state_dict().items()}
        back = require(case.subject.wrapped().restore)
        for words, wanted, weights in (
            ("", case.reference.model().state_dict(), require(case.subject.wrapped().weights).canonical()),
            (" (of other weights than its own)", expected, require(case.subject.wrap(other).weights).canonical()),
        ):
            restored = back(weights)
            for name, weight in wanted.items():
                if name not in restored:
                    yield from_condition(name, f"it is not there{words}")
                    continue
                found = compare_bitwise(name, restored[name], weight)
                yield found if found.message is None else replace(found, message=f"{found.message}{words}")
            for name in sorted(restored.keys() - wanted.keys()):
                yield from_condition(name, f"HF's state dict has nothing of that name{words}")

    return summarize(compare())


@check("weights.writing", needs=["weights"], applies="sampled")
def writing(case: Case) -> Finding:
    """Writing into a canonical weight that was handed out is read back and acts as the same edit of HF's weights does,
    or is neither read back nor acts.

    A failure means that an edit is shown and is without effect, or has one that is not shown, or has another one.
    """
    rows = case.subject.agreeing_rows()
    defined = (case.reference.scenario().real & rows[:, None])[..., None]
    edited = _Edited(case)

    def compare() -> Iterator[Finding]:
        for name in reference_weights(case):
            if name not in usable_weights(case) or name in told(case):
                continue
            weight = require(case.subject.wrapped().weights).canonical()[name]
            before = weight.detach().clone()
            key = generator("written", case.spec.seed, name)
            draw = (torch.randn(before.shape, generator=key, dtype=torch.float64) * rms(before)).to(before)
            try:
                with torch.no_grad():
                    weight.add_(draw)
                    read = require(case.subject.wrapped().weights).canonical()[name]
                    shown = not torch.equal(read.detach(), before)
                    logits = case.subject.wrapped().forward(case.reference.inputs()).logits
            finally:
                with torch.no_grad():
                    weight.copy_(before)
            truth = edited.logits(name, draw) if shown else case.reference.output().logits
            found = case.noise.judge().compare(name, logits, truth, defined=defined)
            words = "is read back and does not act as it does in HF" if shown else "acts and is not read back"
            failed = found.verdict is Verdict.FAIL
            yield replace(found, message=f"what is written into it {words}: {found.message}") if failed else found

    return _concluded(compare(), "weights.attention or weights.modules")


class _Edited:
    """HF's model with something added to one canonical weight, wherever in its parameters that is."""

    def __init__(self, case: Case) -> None:
        self._case, self._model = case, case.reference.build()
        places, start = {}, 0
        for parameter in self._model.parameters():
            places[parameter] = torch.arange(start, start + parameter.numel()).view(parameter.shape)
            start += parameter.numel()
        self._places: Mapping[nn.Parameter, Tensor] = places
        self._numbers = canonical_of(case.family, self._model, places.get)

    def logits(self, name: str, added: Tensor) -> Tensor:
        numbers = self._numbers[name].flatten()
        parameter, places = next(
            (parameter, places) for parameter, places in self._places.items() if bool((places == numbers[0]).any())
        )
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.view(-1)[numbers - places.flatten()[0]] += added.flatten().to(parameter)
            logits = models.forward(self._model, self._case.reference.inputs()).logits
            parameter.copy_(kept)
        return logits


# --- what is done to them ------------------------------------------------------------------------------------------


@check("weights.processings", needs=["processings"])
def processed(case: Case) -> Finding:
    """Each weight processing alone keeps the logits, or the log-probabilities, that the library promises to keep.

    A failure means that a model is looked at in a form that is said to be the same, and is another one.
    """
    return processings.conclude_each(case)


@check("weights.processed_points", needs=["processings", "hooks"], applies="sampled")
def processed_points(case: Case) -> Finding:
    """Each weight processing alone keeps the activations that the library promises to keep, at every hook point.

    A failure means that activations read from the processed model are not those of the model.
    """
    kept = [name for name, one in processings.each(case).items() if one.kept]
    agreeing = localization.agreeing_points(case)
    made = []
    for name in kept:
        promised = processings.promises(case)[name]
        wanted = [point for point in agreeing if point.kind.template in promised]
        if wanted:
            made += processings.judged(case, frozenset({name}), promised - {LOGITS, LOG_PROBABILITIES}, wanted)
    if not made and not kept:
        raise Blocked("weights.processings")
    return summarize(made)


@check("weights.processings_together", needs=["processings"])
def together(case: Case) -> Finding:
    """All weight processings together keep what each of them promises to keep.

    Of some cases, those that are looked at thoroughly, the activations too, and what comes out beside padding.
    A failure where each alone passes means that one undoes what another rests on.
    """
    names = frozenset(name for name, one in processings.each(case).items() if one.kept)
    if len(names) < 2:
        if len(processings.each(case)) >= 2:
            raise Blocked("weights.processings")
        raise NotApplicable("the adapter has one weight processing for this model")
    promised = frozenset.intersection(*(processings.promises(case)[name] for name in names))
    looked_at: list[Point] = []
    if case.spec.is_sampled and case.subject.wrapped().hooks is not None and any("hook" in kept for kept in promised):
        looked_at = [point for point in localization.agreeing_points(case) if point.kind.template in promised]
    return summarize(
        processings.judged(
            case, names, promised, looked_at, padded=case.spec.is_sampled and case.subject.agrees(processings.PADDED)
        )
    )


@check("weights.unprocessed", needs=["processings"], applies="sampled")
def untouched(case: Case) -> Finding:
    """Processing the weights gives a new subject: the one that was asked for it keeps every weight and its logits.

    A failure means that somebody else's model is changed under their hands.
    """
    processings.each(case)
    before, after = processings.before(case), processings.as_it_is(case)
    return summarize(
        case.compare_logits(name, after.get(name), processings.SCENARIO, truth=value)
        if name == LOGITS
        else compare_bitwise(name, after.get(name), value)
        for name, value in before.items()
    )
