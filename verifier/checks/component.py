"""Check the components: each, run alone, gives the output of Hugging Face's module in its place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import torch
from torch import nn

from verifier.canonical import COMPONENTS, template_of
from verifier.checks import check
from verifier.checks.canonical_weights import readable_weights, reference_weights
from verifier.checks.qkv import split_agrees
from verifier.checks.subjects import require_findings
from verifier.errors import all_but_interrupts
from verifier.judging.comparison import from_condition, summarize
from verifier.judging.numerics import float64_judge, precision_judge
from verifier.judging.outcome import Blocked, Finding, NotApplicable, Verdict
from verifier.observing import isolated_modules
from verifier.observing.capabilities import component_modules, require
from verifier.observing.case import Case
from verifier.observing.memo import memoized
from verifier.reference.weights import attention_layers

_SPLIT = ("blocks.{i}.attn.q", "blocks.{i}.attn.k", "blocks.{i}.attn.v")


@memoized
def _offered_components(case: Case) -> Mapping[str, nn.Module]:
    """The adapter's modules with canonical component names, by name."""
    return {name: module for name, module in component_modules(case).items() if template_of(name) in COMPONENTS}


@check("component.names", needs=["components"])
def names(case: Case) -> list[Finding]:
    """Every module of HF's with parameters and a canonical name is a component under that name.

    `build.parameters` reports parameters in no component, and `weights.names` missing canonical weights. A failure
    means that users find a part of the model only inside another component.
    """
    offered, findings = _offered_components(case), []
    for name, module in case.family.components(case.reference.model()).items():
        if not any(True for _ in module.parameters()):
            continue
        owners = (name.rsplit(".", cut)[0] for cut in range(1, name.count(".") + 1))
        holder = next((owner for owner in owners if owner in offered), None)
        if name in offered or (holder is not None and not _lacks_weights(case, name)):
            wrong = f"there is no such component, and HF's module has parameters; they are inside {holder}"
            findings.append(from_condition(name, None if name in offered else wrong))
    return require_findings(findings, "build.parameters or weights.names")


def _lacks_weights(case: Case, name: str) -> bool:
    """Whether a component's weights are missing among the canonical weights too."""
    if case.subject.wrapped().weights is None:
        return False
    ours = readable_weights(case)
    return any(weight.startswith(f"{name}.") and ours.get(weight) is None for weight in reference_weights(case))


@memoized
def _judge_alone(case: Case, name: str) -> Finding:
    """Run the adapter's component alone as HF calls its module, and judge its output; raises what it raises."""
    lone = isolated_modules.module_reference(case, name)
    call = lone.call.copy()
    with torch.no_grad():
        output = require(case.subject.wrapped().components).run(name, call.args, call.kwargs)
    return float64_judge(lone.noise).compare(name, output, lone.truth, defined=lone.defined)


def _is_right(case: Case, name: str) -> bool:
    """Whether a component passes the check of its own kind."""
    try:
        return _judge_alone(case, name).verdict is not Verdict.FAIL
    except all_but_interrupts():  # the check of its kind reports it
        return False


def _reporting_check(case: Case, name: str) -> str | None:
    """Find the check that reports a failure inside a component; None where nothing inside fails."""
    template = template_of(name)
    calls = isolated_modules.calls(case)
    inside = [other for other in _offered_components(case) if other.startswith(f"{name}.") and other in calls]
    for kind, templates in _KINDS.items() if inside else ():
        for other in inside:
            if template_of(other) in templates and not _is_right(case, other):
                return _reporting_check(case, other) or f"component.{kind}"
    if template in (*_SPLIT, "blocks.{i}.attn", "blocks.{i}") and case.subject.wrapped().weights is not None:
        layer = int(name.split(".")[1])
        has_split = layer in attention_layers(case.family, case.reference.model())
        return "qkv.rows" if has_split and not split_agrees(case, layer) else None
    return None


# In causal order: what is inside first.
_KINDS: dict[str, tuple[str, ...]] = {
    "embeddings": ("embed", "pos_embed", "unembed"),
    "norms": (
        "embed_ln",
        "blocks.{i}.ln1",
        "blocks.{i}.attn.q_norm",
        "blocks.{i}.attn.k_norm",
        "blocks.{i}.ln1_post",
        "blocks.{i}.ln2",
        "blocks.{i}.ln2_post",
        "ln_final",
    ),
    "projections": (
        "blocks.{i}.attn.qkv",
        *_SPLIT,
        "blocks.{i}.attn.o",
        "blocks.{i}.mlp.router",
        "blocks.{i}.mlp.shared_expert.in",
        "blocks.{i}.mlp.shared_expert.gate",
        "blocks.{i}.mlp.shared_expert.out",
        "blocks.{i}.mlp.shared_expert_gate",
        "blocks.{i}.mlp.in",
        "blocks.{i}.mlp.gate",
        "blocks.{i}.mlp.out",
    ),
    "attention": ("blocks.{i}.attn",),
    "mlp": ("blocks.{i}.mlp.experts", "blocks.{i}.mlp.shared_expert", "blocks.{i}.mlp"),
    "blocks": ("blocks.{i}",),
}
# The rest of the vocabulary: components without parameters, which HF calls for positions only.
_KINDS["positions"] = tuple(
    template for template in COMPONENTS if not any(template in named for named in _KINDS.values())
)


def _judge_kind(case: Case, kind: str, what: str) -> Finding:
    """Judge every component of a kind; `what` is the kind in words."""
    case.subject.require_forward()
    found = _called_components(case, _KINDS[kind])
    if not found:
        raise NotApplicable(f"the adapter has no {what} that HF's model calls")
    reported = {name: _reporting_check(case, name) for name in found}
    lone = [name for name in found if reported[name] is None]
    if not lone:
        raise Blocked(next(other for other in reported.values() if other is not None))
    finding = summarize(_judge_alone(case, name) for name in lone)
    if finding.verdict is Verdict.FAIL:
        case.subject.agreeing_rows()  # raises `Blocked` where the whole model is wrong, which other checks locate
    return finding


@check("component.embeddings", needs=["components"])
def embeddings(case: Case) -> Finding:
    """Each embedding or unembedding, run alone with the arguments of HF's call, gives the output of HF's module.

    Hidden states are random; masks and positions are those of padded rows. A failure means that tokens are embedded,
    or a residual stream unembedded, with another matrix.
    """
    return _judge_kind(case, "embeddings", "embedding or unembedding")


@check("component.norms", needs=["components"])
def norms(case: Case) -> Finding:
    """Each norm, run alone with the arguments of HF's call, gives the output of HF's module.

    Hidden states are random; masks and positions are those of padded rows. A failure means that a residual stream is
    normalised wrongly where a norm is run by itself, as in a logit lens.
    """
    return _judge_kind(case, "norms", "norm")


@check("component.projections", needs=["components"])
def projections(case: Case) -> Finding:
    """Each linear map, run alone with the arguments of HF's call, gives the output of HF's module.

    Hidden states are random; masks and positions are those of padded rows. A failure means that queries, keys, values,
    hidden units or outputs are computed with other weights.
    """
    return _judge_kind(case, "projections", "linear map")


@check("component.attention", needs=["components"])
def attention(case: Case) -> Finding:
    """Each attention, run alone with the arguments of HF's call, gives the output of HF's module.

    Hidden states are random; masks and positions are those of padded rows. A failure means that an attention that is
    run by itself, as in path patching, computes something else.
    """
    return _judge_kind(case, "attention", "attention")


@check("component.mlp", needs=["components"])
def mlp(case: Case) -> Finding:
    """Each MLP, run alone with the arguments of HF's call, gives the output of HF's module.

    Hidden states are random; masks and positions are those of padded rows. A failure means that an MLP that is run by
    itself, as for a transcoder, computes something else.
    """
    return _judge_kind(case, "mlp", "MLP")


@check("component.blocks", needs=["components"])
def blocks(case: Case) -> Finding:
    """Each block, run alone with the arguments of HF's call, gives the output of HF's module.

    Hidden states are random; masks and positions are those of padded rows. A failure where everything inside passes
    means that the block combines its parts wrongly.
    """
    return _judge_kind(case, "blocks", "block")


@check("component.positions", needs=["components"])
def positions(case: Case) -> Finding:
    """Each table of positions, run alone with the arguments of HF's call, gives the output of HF's module.

    Hidden states are random; masks and positions are those of padded rows. A failure means that queries and keys are
    rotated by other angles.
    """
    return _judge_kind(case, "positions", "table of positions")


@check("component.dtypes", needs=["components"], applies="sampled")
def dtypes(case: Case) -> Finding:
    """Each component, run alone in a working dtype, is as exact as HF's module and returns a tensor of the same dtype.

    A component that is wrong in float64 already, or inside, is reported elsewhere. A failure means that a component
    rounds where HF does not.
    """
    case.subject.require_forward()
    inside_first = [name for templates in _KINDS.values() for name in _called_components(case, templates)]

    def compare() -> Iterator[Finding]:
        for dtype in case.spec.dtypes:
            wrong: set[str] = set()
            for name in inside_first:
                if not _is_right(case, name) or _reporting_check(case, name):
                    continue
                if any(inner.startswith(f"{name}.") for inner in wrong):
                    continue
                for one in _judge_in_dtype(case, name, dtype):
                    wrong |= {name} if one.verdict is Verdict.FAIL else set()
                    yield one

    finding = summarize(compare())
    if finding.verdict is Verdict.FAIL:
        agreeing = case.subject.agreeing_dtypes()
        for dtype in case.spec.dtypes:
            if dtype not in agreeing:
                raise Blocked("forward.outputs")
    return finding


def _called_components(case: Case, templates: Collection[str]) -> list[str]:
    """List the adapter's components with these templates that HF's model calls, in the order of the calls."""
    offered = _offered_components(case)
    return [name for name in isolated_modules.calls(case) if template_of(name) in templates and name in offered]


def _judge_in_dtype(case: Case, name: str, dtype: str) -> Iterator[Finding]:
    lone = isolated_modules.each_in(case, dtype)[name]
    call = lone.call.copy()
    with torch.no_grad():
        output = require(case.subject.wrapped(dtype).components).run(name, call.args, call.kwargs)
    judged = precision_judge(lone.noise).compare(name, output, lone.truth, defined=lone.defined)
    words = f"{judged.message} in a {dtype} model"
    yield judged if judged.message is None else replace(judged, message=words)
    if judged.verdict is not Verdict.FAIL:
        other = f"it gives {output.dtype} in a {dtype} model, where HF's module gives {lone.dtype}"
        yield from_condition(name, None if output.dtype == lone.dtype else other)
