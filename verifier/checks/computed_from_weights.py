"""Compute each component from the subject's canonical weights alone, and compare it with Hugging Face's module."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from verifier.adapter import Edit
from verifier.canonical import template_of
from verifier.checks.canonical_weights import reference_weights, usable_weights
from verifier.checks.qkv import split_agrees
from verifier.judging.numerics import float64_judge
from verifier.judging.outcome import Finding, Verdict
from verifier.observing import isolated_modules
from verifier.observing.case import Case
from verifier.observing.memo import memoized
from verifier.reference.weights import attention_layers

_HEADS = "bpm,hmd->bphd"  # a head's matrix: [batch, pos, d_model], [head, d_model, d_head]
_OUT = "bphd,hdm->bpm"  # what all heads write: [batch, pos, head, d_head], [head, d_head, d_model]


@memoized
def judge_attentions(case: Case) -> Mapping[int, list[Finding]]:
    """Compute the attention of each layer from canonical weights alone, and judge it.

    The computed queries, keys and values replace HF's, and HF's own positions and mask act on them. The output of each
    head then goes through `W_O`.

    Returns:
        By layer. A layer is left out where a weight cannot be used, or where the split of the fused weight is wrong,
        which `qkv.rows` reports.
    """
    weights = usable_weights(case)
    layers = []
    for layer in attention_layers(case.family, case.reference.model()):
        needed = [name for name in reference_weights(case) if name.startswith(f"blocks.{layer}.attn.")]
        if all(name in weights for name in needed) and split_agrees(case, layer):
            layers.append(layer)
    heads = {name: value for layer in layers for name, value in _heads(case, layer).items()}
    edits = {name: lambda _hf, value=value: value for name, value in heads.items()}
    mixed = {layer: f"blocks.{layer}.attn.hook_z" for layer in layers}
    seen = _run_alone(case, {f"blocks.{layer}.attn": z for layer, z in mixed.items()}, edits)
    return {layer: _judge_attention(case, layer, heads, seen[z]) for layer, z in mixed.items()}


def _run_alone(case: Case, points: Mapping[str, str], edits: Mapping[str, Edit] | None = None) -> Mapping[str, Tensor]:
    """Run HF's components alone, each with the arguments of HF's call, and read a hook point inside each.

    Args:
        case: of the reference.
        points: by component, the point that is read.
        edits: by point, what acts there.

    Returns:
        The values by point.
    """
    names = list(points.values())
    with torch.no_grad(), case.family.taps(case.reference.model(), names=names, edits=edits or {}) as taps:
        for component in points:
            call = isolated_modules.calls(case)[component].copy()
            isolated_modules.parts(case)[component](*call.args, **call.kwargs)
    return taps.values


def _heads(case: Case, layer: int) -> dict[str, Tensor]:
    """Compute queries, keys and values `[batch, pos, head, d_head]` of the input of HF's attention, by hook point."""
    here, weights = f"blocks.{layer}.attn", usable_weights(case)
    read = isolated_modules.calls(case)[here].main_input
    found = {}
    for letter in "qkv":
        value = torch.einsum(_HEADS, read, weights[f"{here}.W_{letter.upper()}"])
        bias = weights.get(f"{here}.b_{letter.upper()}")
        found[f"{here}.hook_{letter}"] = value if bias is None else value + bias
    return found


def _judge_attention(case: Case, layer: int, heads: Mapping[str, Tensor], z: Tensor) -> list[Finding]:
    """Judge the output of a layer's attention; where it differs, its queries, keys and values first."""
    here, weights = f"blocks.{layer}.attn", usable_weights(case)
    whole, bias = isolated_modules.module_reference(case, here), weights.get(f"{here}.b_O")
    out = torch.einsum(_OUT, z, weights[f"{here}.W_O"])
    out = out if bias is None else out + bias
    output = float64_judge(whole.noise).compare(f"{here}.W_O", out, whole.truth, defined=whole.defined)
    if output.verdict is Verdict.PASS:
        return [output]
    pieces, read = [], whole.call.main_input
    assert read is not None
    for letter in "qkv":
        piece = isolated_modules.measured(
            case, f"{here}.{letter}", isolated_modules.calls(case)[f"{here}.{letter}"].with_main_input(read)
        )
        value = heads[f"{here}.hook_{letter}"].flatten(-2)
        where = f"{here}.W_{letter.upper()}"
        pieces.append(float64_judge(piece.noise).compare(where, value, piece.truth, defined=piece.defined))
    located = any(one.verdict is Verdict.FAIL for one in pieces)
    return pieces if located else [*pieces, output]


Compute = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def _look_up(ids: Tensor, matrix: Tensor, _bias: Tensor | None) -> Tensor:
    return matrix[ids]


def _apply_linear(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    return x @ matrix if bias is None else x @ matrix + bias


def _scale(normalized: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return normalized * weight if bias is None else normalized * weight + bias


# How a component computes with its weight and its bias; `judge_attentions` computes attention as a whole.
_NORMS = ("embed_ln", *(f"blocks.{{i}}.{name}" for name in ("ln1", "ln1_post", "ln2", "ln2_post")), "ln_final")
_COMPUTES: Mapping[str, tuple[str, str | None, Compute]] = {
    "embed": ("embed.W_E", None, _look_up),
    **{norm: (f"{norm}.w", f"{norm}.b", _scale) for norm in _NORMS},
    **{
        f"{mlp}.{part}": (f"{mlp}.W_{part}", f"{mlp}.b_{part}", _apply_linear)
        for mlp in ("blocks.{i}.mlp", "blocks.{i}.mlp.shared_expert")
        for part in ("in", "gate", "out")
    },
    "unembed": ("unembed.W_U", "unembed.b_U", _apply_linear),
}


@memoized
def judge_other_components(case: Case) -> list[Finding]:
    """Compute every component but attention from its canonical weights, and judge it, in the order of HF's calls."""
    found = (_judge_component(case, name) for name in isolated_modules.calls(case))
    return [one for one in found if one is not None]


def _judge_component(case: Case, name: str) -> Finding | None:
    weights, layer = usable_weights(case), name.split(".")[1] if name.startswith("blocks.") else ""
    if template_of(name) not in _COMPUTES:
        return None
    weight, bias, compute = _COMPUTES[template_of(name)]
    weight, bias = weight.replace("{i}", layer), bias and bias.replace("{i}", layer)
    has_bias = bias in reference_weights(case)
    if weight not in weights or (has_bias and bias not in weights):
        return None  # `weights.names` or `weights.shapes` reports it
    lone = isolated_modules.module_reference(case, name)
    read = _normalized(case)[name] if compute is _scale else lone.call.main_input
    assert read is not None
    value = compute(read, weights[weight], weights[bias] if bias is not None and has_bias else None)
    return float64_judge(lone.noise).compare(weight, value, lone.truth, defined=lone.defined)


@memoized
def _normalized(case: Case) -> Mapping[str, Tensor]:
    """Compute by norm HF's normalized input, before the norm's weight and bias act."""
    norms = [name for name in isolated_modules.calls(case) if template_of(name) in _NORMS]
    points = {name: f"{name}.hook_normalized" for name in norms}
    seen = _run_alone(case, points)
    return {name: seen[point] for name, point in points.items()}


def weights_reported_elsewhere(case: Case) -> set[str]:
    """Collect the weights that another check reports: they cannot be used, or compute another function in float64."""
    reported = reference_weights(case).keys() - usable_weights(case).keys()
    for layer in attention_layers(case.family, case.reference.model()):
        findings = judge_attentions(case).get(layer, [])
        prefix = f"blocks.{layer}.attn."
        if not findings or any(one.verdict is Verdict.FAIL for one in findings):
            reported |= {name for name in reference_weights(case) if name.startswith(prefix)}
    for one in judge_other_components(case):
        if one.verdict is Verdict.FAIL:
            owner = (one.where or "").rpartition(".")[0]
            reported |= {name for name in reference_weights(case) if name.rpartition(".")[0] == owner}
    return reported
