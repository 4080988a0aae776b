"""Check the reference: Hugging Face against itself, and the family against Hugging Face."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from verifier.adapter import Inputs
from verifier.canonical import Point
from verifier.cases.spec import SINGLE, Scenario
from verifier.checks import check
from verifier.checks.configs import find_config_edits
from verifier.errors import all_but_interrupts, one_line
from verifier.family import predicate_of
from verifier.judging.comparison import from_condition
from verifier.judging.numerics import compare_noise_floor, float64_judge
from verifier.judging.outcome import Blocked, Finding, NotApplicable, Verdict, failure
from verifier.judging.raising import passed_hugging_face
from verifier.observing import activations
from verifier.observing.case import Case
from verifier.observing.stream_sums import stream_sums
from verifier.reference import models
from verifier.reference.kept_answers import answers_file, asked_by
from verifier.reference.process_state import preserve_random_states
from verifier.reference.weights import attention_layers, canonical_weights

STEPS = 4  # tokens that follow the prompt one by one


def _as_upstream(comparison: Finding) -> Finding:
    """Turn a failure into `upstream`: where HF disagrees with itself, the adapter is not at fault."""
    return replace(comparison, verdict=Verdict.UPSTREAM) if comparison.verdict is Verdict.FAIL else comparison


@check("reference.acceptance", applies="always", subject=False)
def acceptance(case: Case) -> Finding:
    """HF builds and runs a model of the config exactly if the case is called valid.

    A failure means that the family's `refusal` is wrong for this config or, where it has none, that an answer of HF's
    which was kept is not what HF does now. No other verdict on it can be trusted.
    """
    refused = None
    try:
        model = case.reference.model() if case.spec.valid else case.reference.build()
        inputs = case.reference.inputs() if case.spec.valid else case.reference.any_tokens()
        with torch.no_grad():
            models.forward(model, inputs)
    except all_but_interrupts() as error:
        # The error behind a `Blocked` of other checks is reported here.
        cause = error.__cause__ if isinstance(error, Blocked) and error.__cause__ is not None else error
        if not passed_hugging_face(cause):
            raise cause from None
        refused = one_line(cause)
    if bool(refused) is not case.spec.valid:
        return Finding()
    if predicate_of(case.family) is None:
        return _contradict_answer(case, refused)
    if refused:
        return failure("accepted by the family", f"HF refuses it: {refused}")
    return failure("refused by the family", f"HF accepts it, but the family says: {case.spec.reason}")


def _contradict_answer(case: Case, refused: str | None) -> Finding:
    """Say that HF does not do what it said as it was asked, and how it is asked again."""
    file = answers_file(asked_by(case.family))
    advice = "HF said so of a tiny float32 model on the CPU"
    if file is not None and file.exists():
        advice = f"the answer is kept in {file}: remove the file, and HF is asked again"
    if refused:
        return failure("accepted when asked", f"HF refuses it: {refused}; it was taken for accepted, and {advice}")
    return failure("refused when asked", f"HF accepts it, but it was refused: {case.spec.reason}; {advice}")


def _compare_path(case: Case, path: str, run: Callable[[Scenario], Tensor]) -> Iterator[Finding]:
    """Compare another path of HF's with the reference, without padding and with; where HF raises is `upstream` too."""
    for scenario in (Scenario.PLAIN, Scenario.PADDED):
        where = f"{path}, {scenario}"
        try:
            logits = run(scenario)
        except Exception as error:
            if not passed_hugging_face(error):
                raise
            yield _as_upstream(from_condition(where, f"it raises {one_line(error)}"))
        else:
            yield _as_upstream(case.compare_logits(where, logits, scenario))


@check("reference.attention", applies="pairwise", subject=False)
def attention(case: Case) -> Iterator[Finding]:
    """Every attention implementation of HF's gives the logits of the one that the family calls right.

    Upstream means that HF computes two functions from one config and one set of weights, depending on
    `attn_implementation` alone. An adapter that uses another implementation than the right one fails.
    """
    others = [name for name in case.family.attentions if name != case.family.reference_attention]
    if not others:
        raise NotApplicable("HF has one attention implementation here")

    def run(name: str, scenario: Scenario) -> Tensor:
        return case.reference.output(scenario, attention=name).logits

    for name in others:
        yield from _compare_path(case, f"attn_implementation={name}", functools.partial(run, name))


@check("reference.attentions_on_request", applies="pairwise", subject=False)
def attentions_on_request(case: Case) -> Iterator[Finding]:
    """Asking HF for attention patterns does not change its logits, and the returned patterns are the model's.

    Upstream means that `output_attentions=True` makes HF compute another function: the patterns belong to a model that
    nobody uses.
    """
    patterns = [point.name for point in case.reference.points if point.kind.template.endswith(".hook_pattern")]
    given: dict[str, tuple[Tensor, ...]] = {}

    def run(scenario: Scenario) -> Tensor:
        with torch.no_grad():
            output = models.forward(case.reference.model(), case.reference.inputs(scenario), output_attentions=True)
        given[scenario] = output.attentions or ()
        return output.logits

    yield from _compare_path(case, "output_attentions=True", run)
    real = case.reference.scenario(Scenario.PADDED).real[:, None, :, None]
    truth, noise = activations.reference_trace(case, Scenario.PADDED), activations.noise(case, Scenario.PADDED)
    found = given.get(Scenario.PADDED, ())
    if found and len(found) != len(patterns):
        yield _as_upstream(from_condition("attentions", f"HF gives {len(found)} patterns of {len(patterns)} layers"))
        return
    # Where HF returns no patterns, as its documentation says, there is nothing to compare.
    for name, pattern in zip(patterns, found, strict=bool(found)):
        judge = float64_judge(noise.values[name])
        yield _as_upstream(judge.compare(f"attentions, {name}", pattern, truth.values[name], defined=real))


@check("reference.cache", applies="pairwise", subject=False)
def cache(case: Case) -> Iterator[Finding]:
    """HF's decoding with its cache, a prompt at once and then token by token, gives the logits of one forward.

    Upstream means that HF generates from other logits than it computes for the whole text.
    """
    return _compare_path(case, "cached", functools.partial(_decode_stepwise, case))


def _decode_stepwise(case: Case, scenario: Scenario) -> Tensor:
    """Decode with HF's cache: logits `[batch, pos, d_vocab]`, the last few positions one at a time."""
    inputs, length = case.reference.inputs(scenario), case.reference.scenario(scenario).real.shape[1]
    ids, mask = inputs.input_ids, inputs.attention_mask
    assert ids is not None
    pieces, cache, start = [], None, 0
    for end in range(max(1, length - STEPS), length + 1):
        until = None if mask is None else mask[:, :end]
        given = Inputs(input_ids=ids[:, start:end], attention_mask=until, cache=cache, use_cache=True)
        with torch.no_grad():
            output = models.forward(case.reference.model(), given)
        pieces.append(output.logits)
        cache, start = output.cache, end
    return torch.cat(pieces, dim=1)


@check("reference.taps", subject=False)
def taps(case: Case) -> Iterator[Finding]:
    """Reading every canonical activation does not change HF's logits, and every point has its canonical axes.

    HF never materialises some activations, so the taps recompute them; this check shows that the recomputed model is
    the same function. What is shown as added to the residual stream adds up to it. A failure means that the family's
    taps are wrong, and no activation can be judged.
    """
    weights = canonical_weights(case.family, case.reference.model())
    sizes = {point.layer: _axis_lengths(case, point.layer, weights) for point in case.reference.points}
    for scenario in case.reference.traced_scenarios:
        seen = activations.reference_trace(case, scenario).values
        for point in case.reference.points:
            problem = _describe_wrong_shape(point, seen.get(point.name), sizes[point.layer])
            if problem:
                yield replace(failure(point.name, problem), measured=float("inf"), bound=0.0)
        yield case.compare_logits(f"tapped, {scenario}", seen["logits"], scenario)
    seen, real = activations.reference_trace(case).values, case.reference.scenario().real[:, :, None]
    n_layers = 1 + max((point.layer for point in case.reference.points if point.layer is not None), default=-1)
    for name, addends, summed in stream_sums(seen, n_layers):
        judge = float64_judge(activations.noise(case).values[name])
        yield judge.compare(f"{name}, the sum of {' and '.join(addends)}", summed, seen[name], defined=real)


def _describe_wrong_shape(point: Point, value: Tensor | None, sizes: Mapping[str, int]) -> str | None:
    if value is None:
        return "the taps never saw it"
    if value.ndim != len(point.axes):
        return f"it has {value.ndim} axes, not {', '.join(point.axes)}"
    found = dict(zip(point.axes, value.shape, strict=True))
    if ".hook_rot_" in point.name:
        found.pop("d_head", None)  # may be wider than the weights: HF broadcasts a head dim of one
    if point.kind.is_scale and found.get("head", found.get("kv_head")) == 1:
        found = {axis: size for axis, size in found.items() if axis not in ("head", "kv_head")}  # of all heads at once
    if point.expert is not None:
        found.pop("d_mlp", None)
    for axis, wanted in sizes.items():
        if found.get(axis, wanted) != wanted:
            return f"its {axis} axis is {found[axis]} long, not {wanted}"
    return None


def _axis_lengths(case: Case, layer: int | None, weights: Mapping[str, Tensor]) -> dict[str, int]:
    """The lengths of the axes that the case, the family's rows and the weights fix in a layer, or outside (None)."""
    length, d_model = case.spec.length, case.reference.model().get_input_embeddings().weight.shape[1]
    sizes = {"pos": length, "query": length, "key": length, "d_model": d_model, "1": 1}
    if layer is not None and layer in attention_layers(case.family, case.reference.model()):
        rows = case.family.qkv_rows(case.reference.model(), layer)
        n_heads, d_head = rows.q.rows.shape
        sizes |= {"head": n_heads, "kv_head": rows.k.rows.shape[0], "d_head": d_head}
    hidden = weights.get(f"blocks.{layer}.mlp.W_out")  # [d_mlp, d_model]
    if hidden is not None:
        sizes["d_mlp"] = hidden.shape[0]
    return sizes


@check("reference.config", applies="pairwise", subject=False)
def config(case: Case) -> Finding:
    """Building a model does not change the config object that the caller passed.

    Upstream means that HF writes into it: a second model built from the same object may differ from the first.
    """
    model = case.reference.model()
    given = type(model.config)(**copy.deepcopy(dict(case.spec.config)))
    given._attn_implementation = case.family.reference_attention
    before = given.to_dict()
    with preserve_random_states():  # the weights are HF's own, random and thrown away
        type(model)(given)
    after = given.to_dict()
    return find_config_edits(before, after, verdict=Verdict.UPSTREAM) or Finding()


@check("reference.seeds", applies="pairwise", subject=False)
def seeds(case: Case) -> Finding:
    """The adapter's model equals the reference and shares no memory with it; its random weights are distinct.

    A failure means that the family's `build` shares memory between reference and subject, or makes weights that hide
    bugs (constant ones, or two alike). No comparison proves anything then.
    """
    second = case.reference.build() if case.subject.is_wrapped else case.subject.given
    theirs, ours = dict(case.reference.model().named_parameters()), dict(second.named_parameters())
    if theirs.keys() != ours.keys():
        return failure("parameters", "two models of one seed have different parameters")
    for name, one in theirs.items():
        other = ours[name]
        if not torch.equal(one, other):
            return failure(name, "it differs between two models of one seed")
        if one.numel() and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr():
            return failure(name, "two models of one seed share its memory")
    return Finding() if case.spec.checkpoint is not None else _judge_distinct(theirs)


def _judge_distinct(parameters: Mapping[str, Tensor]) -> Finding:
    seen: dict[torch.Size, list[tuple[str, Tensor]]] = {}
    for name, one in parameters.items():
        if one.numel() < 2:
            continue
        if bool((one == one.flatten()[0]).all()):
            return failure(name, "all its values are the same")
        for other, value in seen.get(one.shape, []):
            if torch.equal(one, value):
                return failure(name, f"it equals {other}")
        seen.setdefault(one.shape, []).append((name, one))
    return Finding()


@check("reference.noise", applies="pairwise", subject=False)
def noise(case: Case) -> list[Finding]:
    """Rounding in float64 moves the reference's logits by less than float32 would.

    A failure means that the case is chaotic: it cannot be judged in float64, and a pass would prove nothing.
    """
    float32 = case.noise.logits(Scenario.PLAIN, SINGLE)
    return [compare_noise_floor("logits", case.noise.float64_perturbation(), float32)]
