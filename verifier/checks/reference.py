"""Hugging Face against itself, and the family against Hugging Face: whether the reference can be relied on."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from verifier.canonical import Point
from verifier.cases.spec import Scenario
from verifier.checks import check
from verifier.checks.blame import through_hugging_face
from verifier.checks.configs import written_into
from verifier.checks.decoding import in_pieces
from verifier.errors import one_line
from verifier.judging.comparison import from_condition, summarize
from verifier.judging.numerics import compare_noise_floor, float64_judge
from verifier.judging.outcome import Blocked, Finding, NotApplicable, Verdict
from verifier.observing import activations
from verifier.observing.case import Case
from verifier.reference import models

STEPS = 4  # tokens that follow the prompt one by one


def _upstream(comparison: Finding) -> Finding:
    """HF's disagreement with itself is HF's, not the adapter's."""
    return replace(comparison, verdict=Verdict.UPSTREAM) if comparison.verdict is Verdict.FAIL else comparison


@check("reference.acceptance", applies="always", subject=False)
def acceptance(case: Case) -> Finding:
    """HF accepts the config, when it is built and in a forward, exactly if the family says so.

    A failure means that the family's `refusal` is wrong for this config, and no other verdict on it can be trusted.
    """
    refused = None
    try:
        model = case.reference.model() if case.spec.valid else case.reference.build()
        inputs = case.reference.inputs() if case.spec.valid else case.reference.any_tokens()
        with torch.no_grad():
            models.forward(model, inputs)
    except Exception as error:
        # What others are blocked by is reported here.
        cause = error.__cause__ if isinstance(error, Blocked) and error.__cause__ is not None else error
        if not through_hugging_face(cause):
            raise
        refused = one_line(cause)
    if case.spec.valid and refused:
        return Finding(verdict=Verdict.FAIL, where="accepted by the family", message=f"HF refuses it: {refused}")
    if not case.spec.valid and not refused:
        return Finding(
            verdict=Verdict.FAIL,
            where="refused by the family",
            message=f"HF accepts it, but the family says: {case.spec.reason}",
        )
    return Finding()


def _held_against(case: Case, where: str, scenario: Scenario, run: Callable[[], Tensor]) -> Finding:
    """Another path of HF's, judged; that it raises is a finding about HF too."""
    try:
        logits = run()
    except Exception as error:
        if not through_hugging_face(error):
            raise
        return replace(from_condition(where, f"it raises {one_line(error)}"), verdict=Verdict.UPSTREAM)
    return _upstream(case.compare_logits(where, logits, scenario))


@check("reference.attention", applies="pairwise", subject=False)
def attention(case: Case) -> Finding:
    """Every attention implementation of HF's gives the logits of the one that the family calls right.

    Upstream means that HF computes two different functions from one config and one set of weights, depending on
    `attn_implementation` alone; an adapter that follows the other path fails against this one.
    """
    others = [name for name in case.family.attentions if name != case.family.reference_attention]
    if not others:
        raise NotApplicable("HF has one attention implementation here")

    def run(name: str, scenario: Scenario) -> Callable[[], Tensor]:
        return lambda: case.reference.output(scenario, attention=name).logits

    return summarize(
        _held_against(case, f"attn_implementation={name}, {scenario}", scenario, run(name, scenario))
        for name in others
        for scenario in (Scenario.PLAIN, Scenario.PADDED)
    )


@check("reference.attentions_on_request", applies="pairwise", subject=False)
def attentions_on_request(case: Case) -> Finding:
    """Asking HF for its attention patterns changes nothing of the logits, and what it gives are its patterns.

    Upstream means that `output_attentions=True` makes HF compute another function, so that patterns taken this way
    are not those of the model that is used.
    """
    patterns = [point.name for point in case.reference.points if point.kind.template.endswith(".hook_pattern")]
    given: dict[str, tuple[Tensor, ...]] = {}

    def run(scenario: Scenario) -> Tensor:
        with torch.no_grad():
            output = models.forward(case.reference.model(), case.reference.inputs(scenario), output_attentions=True)
        given[scenario] = output.attentions or ()
        return output.logits

    def compare() -> Iterator[Finding]:
        for scenario in (Scenario.PLAIN, Scenario.PADDED):
            yield _held_against(case, f"output_attentions=True, {scenario}", scenario, functools.partial(run, scenario))
        real = case.reference.scenario(Scenario.PADDED).real[:, None, :, None]
        truth, noise = (
            activations.reference_trace(case, Scenario.PADDED).values,
            activations.noise(case, Scenario.PADDED).values,
        )
        shown = given.get(Scenario.PADDED, ())
        if shown and len(shown) != len(patterns):
            yield _upstream(from_condition("attentions", f"HF gives {len(shown)} patterns of {len(patterns)} layers"))
            return
        # Where HF gives none (it says so in its documents) there is nothing to mistake for a pattern.
        for name, pattern in zip(patterns, shown, strict=bool(shown)):
            yield _upstream(
                float64_judge(noise[name]).compare(f"attentions, {name}", pattern, truth[name], defined=real)
            )

    return summarize(compare())


@check("reference.cache", applies="pairwise", subject=False)
def cache(case: Case) -> Finding:
    """HF's decoding with its cache, a prompt at once and then token by token, gives the full forward's logits.

    Upstream means that what HF generates is not what it computes when it is given the whole text.
    """

    def run(scenario: Scenario) -> Callable[[], Tensor]:
        return lambda: _stepwise(case, scenario)

    return summarize(
        _held_against(case, f"cached, {scenario}", scenario, run(scenario))
        for scenario in (Scenario.PLAIN, Scenario.PADDED)
    )


def _stepwise(case: Case, scenario: Scenario) -> Tensor:
    """HF's logits `[batch, pos, d_vocab]`, the last few of them one position at a time."""
    length = case.reference.scenario(scenario).real.shape[1]
    ends = [*range(max(1, length - STEPS), length + 1)]
    return in_pieces(
        lambda inputs: models.forward(case.reference.model(), inputs), case.reference.inputs(scenario), ends
    )


@check("reference.taps", subject=False)
def taps(case: Case) -> Finding:
    """Reading every canonical activation leaves HF's logits as they are, and every point is there with its axes.

    Some activations are recomputed, because HF never materialises them: this shows that the recomputation is the
    same function. A failure means that the family's taps are wrong, and no activation can be judged.
    """

    def compare() -> Iterator[Finding]:
        sizes = _sizes(case)
        for scenario in case.reference.traced_scenarios:
            seen = activations.reference_trace(case, scenario).values
            for point in case.reference.points:
                problem = _out_of_shape(point, seen.get(point.name), sizes)
                if problem:
                    yield Finding(
                        where=point.name, verdict=Verdict.FAIL, measured=float("inf"), bound=0.0, message=problem
                    )
            yield case.compare_logits(f"tapped, {scenario}", seen["logits"], scenario)

    return summarize(compare())


def _out_of_shape(point: Point, value: Tensor | None, sizes: Mapping[str, int]) -> str | None:
    if value is None:
        return "the taps never saw it"
    if value.ndim != len(point.axes):
        return f"it has {value.ndim} axes, not {', '.join(point.axes)}"
    found = dict(zip(point.axes, value.shape, strict=True))
    if ".hook_rot_" in point.name:
        found.pop("d_head", None)  # may be wider than its weights: HF broadcasts a head dim of one
    for axis, wanted in sizes.items():
        if found.get(axis, wanted) != wanted:
            return f"its {axis} axis is {found[axis]} long, not {wanted}"
    return None


def _sizes(case: Case) -> dict[str, int]:
    """How long each axis is, where the case and the split say so."""
    length, d_model = case.spec.length, case.reference.model().get_input_embeddings().weight.shape[1]
    sizes = {"pos": length, "query": length, "key": length, "d_model": d_model, "1": 1}
    if any(point.layer is not None for point in case.reference.points):
        rows = case.family.qkv_rows(case.reference.model(), 0)
        n_heads, d_head = rows.q.rows.shape
        sizes |= {"head": n_heads, "kv_head": rows.k.rows.shape[0], "d_head": d_head}
    return sizes


@check("reference.config", applies="pairwise", subject=False)
def config(case: Case) -> Finding:
    """Building a model leaves the config that the caller gave as it was.

    Upstream means that HF writes into it: two models built from one config object may differ from what was asked.
    """
    model = case.reference.model()
    given = type(model.config)(**copy.deepcopy(dict(case.spec.config)))
    given._attn_implementation = case.family.reference_attention
    before = given.to_dict()
    type(model)(given)
    after = given.to_dict()
    return written_into(before, after, verdict=Verdict.UPSTREAM) or Finding()


@check("reference.seeds", applies="pairwise", subject=False)
def seeds(case: Case) -> Finding:
    """The model that the adapter is given equals the reference and shares nothing with it; random weights are distinct.

    A failure means that the family's `build` lets the reference and the subject see each other, or gives weights
    that hide bugs (uniform ones, or two alike); nothing that is compared with it is proved.
    """
    second = case.reference.build() if case.subject.is_wrapped else case.subject.given
    theirs, ours = dict(case.reference.model().named_parameters()), dict(second.named_parameters())
    if theirs.keys() != ours.keys():
        return Finding(verdict=Verdict.FAIL, where="parameters", message="two models of one seed have other ones")
    for name, one in theirs.items():
        other = ours[name]
        if not torch.equal(one, other):
            return Finding(verdict=Verdict.FAIL, where=name, message="it differs between two models of one seed")
        if one.numel() and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr():
            return Finding(verdict=Verdict.FAIL, where=name, message="two models of one seed share its memory")
    return Finding() if case.spec.checkpoint is not None else _distinct(theirs)


def _distinct(parameters: Mapping[str, Tensor]) -> Finding:
    seen: dict[torch.Size, list[tuple[str, Tensor]]] = {}
    for name, one in parameters.items():
        if one.numel() < 2:
            continue
        if bool((one == one.flatten()[0]).all()):
            return Finding(verdict=Verdict.FAIL, where=name, message="all its values are the same")
        for other, value in seen.get(one.shape, []):
            if torch.equal(one, value):
                return Finding(verdict=Verdict.FAIL, where=name, message=f"it equals {other}")
        seen.setdefault(one.shape, []).append((name, one))
    return Finding()


@check("reference.noise", applies="pairwise", subject=False)
def noise(case: Case) -> Finding:
    """The float64 reference is as steady as float64 is: rounding moves its logits by less than float32 could.

    A failure means that the case is chaotic, its semantics cannot be judged in float64, and a green outcome of it
    would say nothing.
    """
    return summarize(
        [compare_noise_floor("logits", case.noise.float64_perturbation(), case.noise.logits(Scenario.PLAIN, "float32"))]
    )
