"""Faults of weights: adapters whose canonical weights or weight processings are wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from verifier.adapter import Adapter, Processings, Restore, Subject, Weights
from verifier.family import Family
from verifier.faults.altered_hooks import showing
from verifier.faults.mutants import (
    SLIGHTLY,
    MutantAdapter,
    MutantSubject,
    Mutation,
    Plant,
    fault,
    in_adapter,
    in_method,
    with_methods,
)
from verifier.judging.outcome import NotApplicable
from verifier.reference.weights import attention_layers, canonical_weights

Canonical = Mapping[str, Tensor]


def _in_weights(change: Callable[[dict[str, Tensor]], Canonical]) -> Plant:
    """Plant a change of the canonical weights that the subject shows; its forward keeps the right ones."""
    return in_method("weights", "canonical")(lambda right: change(dict(right.canonical())))


def _in_weight(*ends: str) -> Callable[[Callable[[Tensor], Tensor | None]], Plant]:
    """Plant a change of each canonical weight that the subject shows under a name with one of these ends.

    The function gives None for a weight that is not shown. Where the model has no such weight, reading raises
    `NotApplicable`.
    """

    def plant(change: Callable[[Tensor], Tensor | None]) -> Plant:
        def changed(weights: dict[str, Tensor]) -> Canonical:
            if not any(name.endswith(ends) for name in weights):
                raise NotApplicable(f"there is no {' or '.join(ends)}")
            shown = {name: change(one) if name.endswith(ends) else one for name, one in weights.items()}
            return {name: one for name, one in shown.items() if one is not None}

        return _in_weights(changed)

    return plant


def _in_restore(change: Callable[[Canonical, Canonical], Canonical]) -> Plant:
    """Plant a restoring of other canonical weights, made of the given ones and of the subject's own."""

    def wrong(subject: Any, right: Restore) -> Restore:
        return lambda given: right(change(given, subject.weights.canonical()))

    return in_adapter(Mutation(parts={"restore": wrong}))


Process = Callable[[Family, nn.Module], None]
"""Processes the weights of a model of HF's in place, wrongly."""


def _in_processing(*, when: Callable[[Set[str]], bool] = bool) -> Callable[[Process], Plant]:
    """Plant a processing that is done whatever is asked for, if `when` is true of the names; else the right one is."""

    def plant_process(process: Process) -> Plant:
        def plant(family: Family, adapter: Adapter) -> tuple[Family, Adapter]:
            def mutate(model: nn.Module) -> Mutation:
                source = copy.deepcopy(model)  # the adapter may take it apart

                def apply(right: Processings, names: Set[str]) -> Subject:
                    if not when(names):
                        return right.apply(names)
                    twin = copy.deepcopy(source)
                    with torch.no_grad():
                        process(family, twin)
                    return adapter.wrap(twin)

                return with_methods("processings", apply=apply)

            return family, MutantAdapter(adapter, mutate)

        return plant

    return plant_process


def _in_processed(mutation: Callable[[], Mutation]) -> Plant:
    """Plant a mutation in the subjects that a processing makes."""
    return in_method("processings", "apply")(lambda right, names: MutantSubject(right.apply(names), mutation()))


def _forget_bias(family: Family, model: nn.Module) -> None:
    """Set the final norm's bias to zero."""
    shift = canonical_weights(family, model).get("ln_final.b")
    if shift is None:
        raise NotApplicable("the norm has no bias")
    shift.zero_()


@fault("weights.names", plant=_in_weight("attn.b_Q", "attn.b_V", "attn.b_O"))
def canonical_bias_lost(_bias: Tensor) -> None:
    """The attention's biases are not among the canonical weights."""


@fault("weights.names", plant=_in_weights)
def canonical_bias_made_up(weights: dict[str, Tensor]) -> Canonical:
    """The unembedding is given a bias that HF's does not have."""
    return {**weights, "unembed.b_U": weights["embed.W_E"][:, 0]}


@fault("weights.names", plant=_in_weight("embed.W_E"))
def canonical_on_meta(weight: Tensor) -> Tensor:
    """The embedding of an offloaded model is handed out without its values."""
    return weight.to("meta")


@fault("weights.shapes", plant=_in_weights)
def canonical_kv_expanded(weights: dict[str, Tensor]) -> Canonical:
    """Canonical key and value weights have a matrix for each query head."""
    for name in list(weights):
        if name.endswith((".W_K", ".W_V", ".b_K", ".b_V")):
            n_heads = weights[f"{name.rpartition('.')[0]}.W_Q"].shape[0]
            if n_heads == weights[name].shape[0]:
                raise NotApplicable("every query head has keys of its own")
            weights[name] = weights[name].repeat_interleave(n_heads // weights[name].shape[0], dim=0)
    return weights


@fault("weights.shapes", plant=_in_weight("attn.W_O"))
def canonical_output_transposed(out: Tensor) -> Tensor:  # [head, d_head, d_model]
    """W_O is transposed in each head."""
    return out.transpose(1, 2)


@fault("weights.attention", plant=_in_weight("attn.W_O"))
def canonical_output_interleaved(out: Tensor) -> Tensor:  # [head, d_head, d_model]
    """W_O is read off as if the heads of a row were interleaved."""
    n_heads, d_head, d_model = out.shape
    return out.reshape(d_head, n_heads, d_model).transpose(0, 1)


@fault("weights.attention", plant=_in_weight("attn.W_Q", "attn.b_Q"))
def canonical_queries_scaled(weight: Tensor) -> Tensor:
    """W_Q is already divided by the root of the head's width."""
    return weight / float(weight.shape[-1] ** 0.5)


@fault("weights.modules", plant=_in_weights)
def canonical_norms_swapped(weights: dict[str, Tensor]) -> Canonical:
    """The canonical norms of attention and MLP are taken for each other."""
    if "blocks.0.ln2.w" not in weights:
        raise NotApplicable("there is one norm")
    other = {"ln1": "ln2", "ln2": "ln1"}
    return {name: weights[".".join(other.get(part, part) for part in name.split("."))] for name in weights}


@fault("weights.modules", plant=_in_weights)
def canonical_unembedding_folded(weights: dict[str, Tensor]) -> Canonical:
    """W_U already contains the final norm's weight."""
    return {**weights, "unembed.W_U": weights["unembed.W_U"] * weights["ln_final.w"][:, None]}


@fault("weights.values", plant=_in_weight(""))
def canonical_through_single(weight: Tensor) -> Tensor:
    """Canonical weights have been through float32."""
    return weight.float().to(weight.dtype)


@fault("weights.values", plant=_in_weight(""))
def canonical_upcast(weight: Tensor) -> Tensor:
    """Canonical weights of a half-precision model are float32."""
    return weight if weight.dtype == torch.float64 else weight.float()


@fault("weights.restore", plant=_in_restore)
def restore_ignores_its_argument(_given: Canonical, own: Canonical) -> Canonical:
    """Restoring gives back the model's own weights, whatever weights it is given."""
    return own


@fault("weights.restore", plant=_in_restore)
def restore_permutes_heads(given: Canonical, _own: Canonical) -> Canonical:
    """Restoring exchanges two query heads."""
    changed = dict(given)
    for name, weight in given.items():
        if name.endswith(".W_Q"):
            if weight.shape[0] < 2:
                raise NotApplicable("there is one head")
            changed[name] = torch.cat([weight[1:2], weight[:1], weight[2:]])
    return changed


@fault("weights.restore", plant=_in_restore)
def restore_forgets_the_unembedding(given: Canonical, own: Canonical) -> Canonical:
    """Restoring keeps the model's own unembedding, so that tied weights come apart."""
    return {**given, "unembed.W_U": own["unembed.W_U"]}


@fault("weights.writing")
def canonical_stored() -> Mutation:
    """Canonical weights are copied once and handed out again: what is written into them is read back, not used."""
    kept: dict[str, Tensor] = {}

    def canonical(right: Weights) -> Canonical:
        if not kept:
            kept.update({name: weight.detach().clone() for name, weight in right.canonical().items()})
        return kept

    return with_methods("weights", canonical=canonical)


@fault("weights.processings", plant=_in_processing())
def centred_over_the_wrong_axis(family: Family, model: nn.Module) -> None:
    """A processing centres the unembedding over the residual stream and not over the vocabulary."""
    unembedding = canonical_weights(family, model)["unembed.W_U"]  # a view: [d_model, d_vocab]
    unembedding -= unembedding.mean(0, keepdim=True)


@fault("weights.processings", plant=_in_processing())
def folded_norm_forgets_its_bias(family: Family, model: nn.Module) -> None:
    """A processing that folds the final norm drops its bias."""
    _forget_bias(family, model)


@fault("weights.processings", plant=_in_processing())
def value_biases_tiled(family: Family, model: nn.Module) -> None:
    """A processing folds value biases with key/value heads tiled over the query heads."""
    for layer in attention_layers(family, model):
        here = f"blocks.{layer}.attn"
        weights, rows = canonical_weights(family, model), family.qkv_rows(model, layer)
        if not {f"{here}.b_V", f"{here}.b_O"} <= weights.keys():
            raise NotApplicable("there is no value bias")
        values, out = weights[f"{here}.b_V"], weights[f"{here}.W_O"]  # [kv_head, d_head], [head, d_head, d_model]
        if values.shape[0] in (1, out.shape[0]):
            raise NotApplicable("there are no groups of heads")
        tiled = values.repeat(out.shape[0] // values.shape[0], 1)
        weights[f"{here}.b_O"] += torch.einsum("hd,hdm->m", tiled, out)
        module: Any = model.get_submodule(rows.v.module)
        module.bias[rows.v.rows.flatten()] = 0


@fault("weights.processings_together", plant=_in_processing(when=lambda names: len(names) > 1))
def processings_in_the_wrong_order(family: Family, model: nn.Module) -> None:
    """Processings that are applied together drop the final norm's bias."""
    _forget_bias(family, model)


@fault("weights.processed_points", plant=_in_processed)
def processed_patterns_transposed() -> Mutation:
    """A processed model shows its patterns with queries and keys exchanged."""
    return showing("attn.hook_pattern", lambda pattern: pattern.transpose(-1, -2))


@fault("weights.unprocessed", plant=in_adapter)
def processing_changes_the_original(model: nn.Module) -> Mutation:
    """Processing the weights writes into the model that was wrapped."""

    def apply(right: Processings, names: Set[str]) -> Subject:
        subject = right.apply(names)
        with torch.no_grad():
            next(model.parameters()).mul_(1 + SLIGHTLY)
        return subject

    return with_methods("processings", apply=apply)


@fault("weights.processings_together", plant=_in_processed)
def processed_without_a_mask() -> Mutation:
    """A model whose weights were processed ignores the mask."""
    return Mutation(forward=lambda subject, inputs: subject.forward(replace(inputs, attention_mask=None)))
