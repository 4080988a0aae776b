"""Check canonical weights: they are Hugging Face's, have the shapes of their names, and compute the same function."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
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
from verifier.checks.computed_from_weights import judge_attentions, judge_other_components, weights_reported_elsewhere
from verifier.checks.subjects import real_logits, require_findings
from verifier.judging.comparison import from_condition
from verifier.judging.numerics import compare_bitwise, rms
from verifier.judging.outcome import Blocked, Finding, NotApplicable, Verdict
from verifier.observing import localization
from verifier.observing.capabilities import require
from verifier.observing.case import Case
from verifier.reference import models
from verifier.reference.random_weights import generator, randomise
from verifier.reference.weights import attention_layers, canonical_of


@check("weights.names", needs=["weights"])
def names(case: Case) -> Iterator[Finding]:
    """The subject has every weight of HF's model under its canonical name, and no other weight but biases of zeros.

    A failure means that a parameter cannot be read by its canonical name, or that HF's model has no such weight.
    """

    wanted, ours = reference_weights(case), subject_weights(case)
    for name, weight in wanted.items():
        yield from_condition(name, unreadable(ours.get(name), weight))
    for name in sorted(ours.keys() - wanted.keys()):
        yield from_condition(name, _describe_made_up(name, ours[name]))


def _describe_made_up(name: str, weight: object) -> str | None:
    is_bias = name.rpartition(".")[2].startswith("b")
    if weight is None or (is_bias and isinstance(weight, Tensor) and not bool(weight.any())):
        return None
    return "there is one, and HF has none"


@check("weights.shapes", needs=["weights"])
def shapes(case: Case) -> list[Finding]:
    """Every canonical weight has the axes of its name: `W_Q` by query head, `W_K` and `W_V` by key/value head.

    A failure means that code written for canonical weights reads a wrong axis, or expanded key/value heads.
    """
    ours, wanted = readable_weights(case), reference_weights(case)
    shaped = [name for name in wanted if unreadable(ours.get(name), wanted[name]) is None]
    findings = [from_condition(name, misshapen(ours[name], wanted[name], name)) for name in shaped]
    return require_findings(findings, "weights.names")


@check("weights.attention", needs=["weights"])
def attention(case: Case) -> list[Finding]:
    """Attention computed from the canonical weights alone, with HF's own positions and mask, is what HF computes.

    The finding names the first weight that makes a difference. A failure means that circuits read off these weights
    (QK, OV) belong to another model, whatever the activations show.
    """
    if not attention_layers(case.family, case.reference.model()):
        raise NotApplicable("the model has no attention")
    return require_findings(itertools.chain(*judge_attentions(case).values()), "weights.shapes or qkv.rows")


@check("weights.modules", needs=["weights"])
def modules(case: Case) -> list[Finding]:
    """Embedding, norms, MLP and unembedding computed from the canonical weights alone give what HF's modules give.

    A failure means that a weight does not compute what the module of its name does: it is transposed, swapped, scaled,
    or without its bias.
    """
    return require_findings(judge_other_components(case), "weights.shapes")


@check("weights.values", needs=["weights"])
def values(case: Case) -> list[Finding]:
    """The canonical weights are HF's bit for bit, in HF's dtype.

    The pairwise cases also compare every working dtype. `weights.attention` and `weights.modules` report a weight that
    computes something else. A failure means that a weight computes almost the same and is not the model's: cast,
    scaled and scaled back, or out of date.
    """
    reported, findings = weights_reported_elsewhere(case), []
    for dtype in (SEMANTIC_DTYPE, *(case.spec.dtypes if case.spec.is_pairwise else ())):
        ours = subject_weights(case, dtype)
        for name, wanted in reference_weights(case, dtype).items():
            if name in reported:
                continue
            found = compare_bitwise(name, ours.get(name), wanted)
            if found.verdict is not Verdict.PASS and dtype != SEMANTIC_DTYPE:
                found = from_condition(name, f"{found.message} in a {dtype} model")
            findings.append(found)
    return require_findings(findings, "weights.attention or weights.modules")


@check("weights.restore", needs=["weights", "restore"])
def restore(case: Case) -> Iterator[Finding]:
    """`restore` turns canonical weights back into HF's names and shapes bit for bit: the subject's own and any others.

    A failure means that an edited model is saved with other weights than it had.
    """
    readable_weights(case)
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


@check("weights.writing", needs=["weights"], applies="sampled")
def writing(case: Case) -> list[Finding]:
    """An edit of a canonical weight is read back and acts as in HF's model, or is not read back and has no effect.

    A failure means that an edit shows and has no effect, or does not show and has one, or acts otherwise than in HF's
    model.
    """
    defined, logits_with = real_logits(case), _logits_with(case)
    names = [name for name in usable_weights(case) if name not in weights_reported_elsewhere(case)]
    subject, findings = case.subject.wrapped(), []
    for name in names:
        weight = require(subject.weights).canonical()[name]
        before = weight.detach().clone()
        key = generator("written", case.spec.seed, name)
        draw = (torch.randn(before.shape, generator=key, dtype=torch.float64) * rms(before)).to(before)
        try:
            with torch.no_grad():
                weight.add_(draw)
                read = require(subject.weights).canonical()[name]
                is_read_back = not torch.equal(read.detach(), before)
                logits = subject.forward(case.reference.inputs()).logits
        finally:
            with torch.no_grad():
                weight.copy_(before)
        truth = logits_with(name, draw) if is_read_back else case.reference.output().logits
        found = case.noise.judge().compare(name, logits, truth, defined=defined)
        if found.verdict is Verdict.FAIL:
            words = "is read back and does not act as it does in HF" if is_read_back else "acts and is not read back"
            found = replace(found, message=f"what is written into it {words}: {found.message}")
        findings.append(found)
    return require_findings(findings, "weights.attention or weights.modules")


def _logits_with(case: Case) -> Callable[[str, Tensor], Tensor]:
    """Build a further HF model, and give a function that runs it with a tensor added to one canonical weight."""
    model = case.reference.build()
    places: dict[nn.Parameter, Tensor] = {}  # by parameter, a number for each of its values
    start = 0
    for parameter in model.parameters():
        places[parameter] = torch.arange(start, start + parameter.numel()).view(parameter.shape)
        start += parameter.numel()
    canonical = canonical_of(case.family, model, places.get)

    def logits(name: str, added: Tensor) -> Tensor:
        numbers = canonical[name].flatten()
        parameter = next(parameter for parameter in places if bool((places[parameter] == numbers[0]).any()))
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.view(-1)[numbers - places[parameter].flatten()[0]] += added.flatten().to(parameter)
            logits = models.forward(model, case.reference.inputs()).logits
            parameter.copy_(kept)
        return logits

    return logits


# --- weight processings ------------------------------------------------------------------------------------------


@check("weights.processings", needs=["processings"])
def processed(case: Case) -> Finding:
    """Each weight processing alone keeps the logits or log-probabilities that the library promises to keep.

    A failure means that a processed model (folded norms, centred weights) is not the same function as before.
    """
    return processings.summarize_each(case)


@check("weights.processed_points", needs=["processings", "hooks"], applies="sampled")
def processed_points(case: Case) -> list[Finding]:
    """Each weight processing alone keeps the activations that the library promises to keep, at every hook point.

    A failure means that activations read from the processed model are not those of the original.
    """
    kept = [name for name, one in processings.judge_each(case).items() if one.kept]
    agreeing = localization.agreeing_points(case)
    findings = []
    for name in kept:
        promised = processings.read_promises(case)[name]
        wanted = [point for point in agreeing if point.kind.template in promised]
        if wanted:
            points_alone = promised - {LOGITS, LOG_PROBABILITIES}
            findings += processings.judge_processed(case, frozenset({name}), points_alone, wanted)
    if not findings and not kept:
        raise Blocked("weights.processings")
    return findings


@check("weights.processings_together", needs=["processings"])
def together(case: Case) -> list[Finding]:
    """All weight processings together keep what each of them promises to keep.

    The sampled cases also compare the activations, and the output with padding. A failure where each processing alone
    passes means that one undoes what another one needs.
    """
    names = frozenset(name for name, one in processings.judge_each(case).items() if one.kept)
    if len(names) < 2:
        if len(processings.judge_each(case)) >= 2:
            raise Blocked("weights.processings")
        raise NotApplicable("the adapter has one weight processing for this model")
    promised = frozenset.intersection(*(processings.read_promises(case)[name] for name in names))
    points: list[Point] = []
    if case.spec.is_sampled and case.subject.wrapped().hooks is not None and any("hook" in kept for kept in promised):
        points = [point for point in localization.agreeing_points(case) if point.kind.template in promised]
    padded = case.spec.is_sampled and case.subject.agrees(processings.PADDED)
    return processings.judge_processed(case, names, promised, points, padded=padded)


@check("weights.unprocessed", needs=["processings"], applies="sampled")
def untouched(case: Case) -> Iterator[Finding]:
    """Processing the weights makes a new subject; the original keeps every weight and its logits.

    A failure means that processing changes the model that somebody else still uses.
    """
    processings.judge_each(case)
    before, after = processings.read_before(case), processings.read_unprocessed(case)
    for name, value in before.items():
        if name == LOGITS:
            yield case.compare_logits(name, after.get(name), truth=value)
        else:
            yield compare_bitwise(name, after.get(name), value)
