"""Check canonical weights: they are Hugging Face's, have the shapes of their names, and compute the same function."""

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
from verifier.checks.computed import attentions, other_components, weights_reported_elsewhere
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
    """The subject has every weight of HF's model under its canonical name, and no other weight but biases of zeros.

    A failure means that a parameter cannot be read by its canonical name, or that HF's model has no such weight.
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
    """Every canonical weight has the axes of its name: `W_Q` by query head, `W_K` and `W_V` by key/value head.

    A failure means that code written for canonical weights reads a wrong axis, or expanded key/value heads.
    """

    def compare() -> Iterator[Finding]:
        ours = readable_weights(case)
        for name, wanted in reference_weights(case).items():
            if unreadable(ours.get(name), wanted) is None:  # otherwise `weights.names` reports it
                yield from_condition(name, misshapen(ours[name], wanted, name))

    return _summarize_or_block(compare(), "weights.names")


def _summarize_or_block(comparisons: Iterator[Finding], reported: str) -> Finding:
    """Summarize the comparisons; `Blocked`, naming the check that reports the reason, where there is none."""
    findings = list(comparisons)
    if not findings:
        raise Blocked(reported)
    return summarize(findings)


@check("weights.attention", needs=["weights"])
def attention(case: Case) -> Finding:
    """Attention computed from the canonical weights alone, with HF's own positions and mask, is what HF computes.

    The finding names the first weight that makes a difference. A failure means that circuits read off these weights
    (QK, OV) belong to another model, whatever the activations show.
    """
    if not n_layers_of(case.family, case.reference.model()):
        raise NotApplicable("the model has no layers")
    findings = [one for in_layer in attentions(case).values() for one in in_layer]
    return _summarize_or_block(iter(findings), "weights.shapes or qkv.rows")


@check("weights.modules", needs=["weights"])
def modules(case: Case) -> Finding:
    """Embedding, norms, MLP and unembedding computed from the canonical weights alone give what HF's modules give.

    A failure means that a weight does not compute what the module of its name does: it is transposed, swapped, scaled,
    or without its bias.
    """
    return _summarize_or_block(iter(other_components(case)), "weights.shapes")


@check("weights.values", needs=["weights"])
def values(case: Case) -> Finding:
    """The canonical weights are HF's bit for bit, in HF's dtype.

    The pairwise cases also compare every working dtype. `weights.attention` and `weights.modules` report a weight that
    computes something else. A failure means that a weight computes almost the same and is not the model's: cast,
    scaled and scaled back, or out of date.
    """

    def compare() -> Iterator[Finding]:
        reported = weights_reported_elsewhere(case)
        for dtype in (SEMANTIC_DTYPE, *(case.spec.dtypes if case.spec.is_pairwise else ())):
            ours = subject_weights(case, dtype)
            for name, wanted in reference_weights(case, dtype).items():
                if name not in reported:
                    yield _named(dtype, compare_bitwise(name, ours.get(name), wanted))

    return _summarize_or_block(compare(), "weights.attention or weights.modules")


def _named(dtype: str, comparison: Finding) -> Finding:
    if comparison.verdict is Verdict.PASS or dtype == SEMANTIC_DTYPE:
        return comparison
    return from_condition(comparison.where or "", f"{comparison.message} in a {dtype} model")


@check("weights.restore", needs=["weights", "restore"])
def restore(case: Case) -> Finding:
    """`restore` turns canonical weights back into HF's names and shapes bit for bit: the subject's own and any others.

    A failure means that an edited model is saved with other weights than it had.
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
    """An edit of a canonical weight is read back and acts as in HF's model, or is not read back and has no effect.

    A failure means that an edit shows and has no effect, or does not show and has one, or acts otherwise than in HF's
    model.
    """
    rows = case.subject.agreeing_rows()
    defined = (case.reference.scenario().real & rows[:, None])[..., None]
    edited = _Edited(case)

    def compare() -> Iterator[Finding]:
        for name in reference_weights(case):
            if name not in usable_weights(case) or name in weights_reported_elsewhere(case):
                continue
            weight = require(case.subject.wrapped().weights).canonical()[name]
            before = weight.detach().clone()
            key = generator("written", case.spec.seed, name)
            draw = (torch.randn(before.shape, generator=key, dtype=torch.float64) * rms(before)).to(before)
            try:
                with torch.no_grad():
                    weight.add_(draw)
                    read = require(case.subject.wrapped().weights).canonical()[name]
                    is_read_back = not torch.equal(read.detach(), before)
                    logits = case.subject.wrapped().forward(case.reference.inputs()).logits
            finally:
                with torch.no_grad():
                    weight.copy_(before)
            truth = edited.logits(name, draw) if is_read_back else case.reference.output().logits
            found = case.noise.judge().compare(name, logits, truth, defined=defined)
            words = "is read back and does not act as it does in HF" if is_read_back else "acts and is not read back"
            failed = found.verdict is Verdict.FAIL
            yield replace(found, message=f"what is written into it {words}: {found.message}") if failed else found

    return _summarize_or_block(compare(), "weights.attention or weights.modules")


class _Edited:
    """A further HF model, run with a tensor added to one canonical weight, wherever its parameters hold it."""

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


# --- weight processings ------------------------------------------------------------------------------------------


@check("weights.processings", needs=["processings"])
def processed(case: Case) -> Finding:
    """Each weight processing alone keeps the logits or log-probabilities that the library promises to keep.

    A failure means that a processed model (folded norms, centred weights) is not the same function as before.
    """
    return processings.summarize_each(case)


@check("weights.processed_points", needs=["processings", "hooks"], applies="sampled")
def processed_points(case: Case) -> Finding:
    """Each weight processing alone keeps the activations that the library promises to keep, at every hook point.

    A failure means that activations read from the processed model are not those of the original.
    """
    kept = [name for name, one in processings.each(case).items() if one.kept]
    agreeing = localization.agreeing_points(case)
    findings = []
    for name in kept:
        promised = processings.promises(case)[name]
        wanted = [point for point in agreeing if point.kind.template in promised]
        if wanted:
            findings += processings.judge_processed(
                case, frozenset({name}), promised - {LOGITS, LOG_PROBABILITIES}, wanted
            )
    if not findings and not kept:
        raise Blocked("weights.processings")
    return summarize(findings)


@check("weights.processings_together", needs=["processings"])
def together(case: Case) -> Finding:
    """All weight processings together keep what each of them promises to keep.

    The sampled cases also compare the activations, and the output with padding. A failure where each processing alone
    passes means that one undoes what another one needs.
    """
    names = frozenset(name for name, one in processings.each(case).items() if one.kept)
    if len(names) < 2:
        if len(processings.each(case)) >= 2:
            raise Blocked("weights.processings")
        raise NotApplicable("the adapter has one weight processing for this model")
    promised = frozenset.intersection(*(processings.promises(case)[name] for name in names))
    points: list[Point] = []
    if case.spec.is_sampled and case.subject.wrapped().hooks is not None and any("hook" in kept for kept in promised):
        points = [point for point in localization.agreeing_points(case) if point.kind.template in promised]
    return summarize(
        processings.judge_processed(
            case, names, promised, points, padded=case.spec.is_sampled and case.subject.agrees(processings.PADDED)
        )
    )


@check("weights.unprocessed", needs=["processings"], applies="sampled")
def untouched(case: Case) -> Finding:
    """Processing the weights makes a new subject; the original keeps every weight and its logits.

    A failure means that processing changes the model that somebody else still uses.
    """
    processings.each(case)
    before, after = processings.before(case), processings.read_unprocessed(case)
    return summarize(
        case.compare_logits(name, after.get(name), processings.SCENARIO, truth=value)
        if name == LOGITS
        else compare_bitwise(name, after.get(name), value)
        for name, value in before.items()
    )
