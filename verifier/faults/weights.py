"""Faults of weights: adapters whose canonical weights or weight processings are wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from verifier.adapter import Adapter, Inputs, Output, Subject
from verifier.family import Family
from verifier.faults.mutants import (
    SLIGHTLY,
    MutantAdapter,
    MutantSubject,
    Mutation,
    Plant,
    fault,
    in_adapter,
    replacing,
)
from verifier.judging.outcome import NotApplicable
from verifier.reference.weights import canonical_weights, n_layers_of

Change = Callable[[str, Tensor], Tensor | None]
"""What a weight of that name becomes; None for none."""


def _canonical(change: Change) -> Mutation:
    """Change each canonical weight that the subject shows; its forward keeps the right ones."""

    def canonical(right: Any) -> Mapping[str, Tensor]:
        changed = {name: change(name, weight) for name, weight in right.canonical().items()}
        return {name: weight for name, weight in changed.items() if weight is not None}

    return Mutation(parts={"weights": replacing(canonical=canonical)})


def _only(*ends: str, change: Callable[[Tensor], Tensor | None]) -> Mutation:
    """Change the canonical weights that the subject shows under names with these ends.

    Raises:
        NotApplicable: the model has none.
    """
    broken = _canonical(lambda name, weight: change(weight) if name.endswith(ends) else weight)

    def canonical(right: Any) -> Mapping[str, Tensor]:
        if not any(name.endswith(ends) for name in right.canonical()):
            raise NotApplicable(f"there is no {' or '.join(ends)}")
        found: Mapping[str, Tensor] = broken.parts["weights"](right, right).canonical()
        return found

    return Mutation(parts={"weights": replacing(canonical=canonical)})


def _expanded(right: Any) -> Mapping[str, Tensor]:
    """Give every query head a copy of its key and value weights."""
    weights = dict(right.canonical())
    for name in list(weights):
        if name.endswith((".W_K", ".W_V", ".b_K", ".b_V")):
            n_heads = weights[f"{name.rpartition('.')[0]}.W_Q"].shape[0]
            if n_heads == weights[name].shape[0]:
                raise NotApplicable("every query head has keys of its own")
            weights[name] = weights[name].repeat_interleave(n_heads // weights[name].shape[0], dim=0)
    return weights


def _heads_last(out: Tensor) -> Tensor:
    """`[head, d_head, d_model]`, read off the matrix as if its rows were `[d_head, head]`."""
    n_heads, d_head, d_model = out.shape
    return out.reshape(d_head, n_heads, d_model).transpose(0, 1)


def _norms_swapped(right: Any) -> Mapping[str, Tensor]:
    weights = dict(right.canonical())
    if "blocks.0.ln2.w" not in weights:
        raise NotApplicable("there is one norm")
    other = {"ln1": "ln2", "ln2": "ln1"}
    parts = {name: name.split(".") for name in weights if ".ln1." in name or ".ln2." in name}
    return {
        **weights,
        **{name: weights[".".join(other.get(part, part) for part in named)] for name, named in parts.items()},
    }


def _final_norm_in_unembedding(right: Any) -> Mapping[str, Tensor]:
    weights = dict(right.canonical())
    weights["unembed.W_U"] = weights["unembed.W_U"] * weights["ln_final.w"][:, None]
    return weights


Canonical = Mapping[str, Tensor]


def _restoring(change: Callable[[Canonical, Canonical], Canonical]) -> Mutation:
    """Restore other canonical weights than were given: `change` makes them of those and of the subject's own."""

    def broken(subject: Any, right: Any) -> Callable[[Canonical], Canonical]:
        return lambda given: right(change(given, subject.weights.canonical()))

    return Mutation(parts={"restore": broken})


def _two_heads_exchanged(given: Canonical, _own: Canonical) -> Canonical:
    changed = dict(given)
    for name, weight in given.items():
        if name.endswith(".W_Q"):
            if weight.shape[0] < 2:
                raise NotApplicable("there is one head")
            changed[name] = torch.cat([weight[1:2], weight[:1], weight[2:]])
    return changed


# --- processings -----------------------------------------------------------------------------------------------------

Process = Callable[[Family, nn.Module], None]
"""Processes the weights of a model of HF's in place, wrongly."""


def _processing(process: Process, *, when: Callable[[Set[str]], bool] = bool) -> Plant:
    """Do this processing whatever processing is asked for, if `when` is true of the names; else the right one."""

    def plant(family: Family, adapter: Adapter) -> tuple[Family, Adapter]:
        def breaks(model: nn.Module) -> Mutation:
            source = copy.deepcopy(model)  # the adapter may take it apart

            def apply(right: Any, names: Set[str]) -> Subject:
                if not when(names):
                    subject: Subject = right.apply(names)
                    return subject
                twin = copy.deepcopy(source)
                with torch.no_grad():
                    process(family, twin)
                return adapter.wrap(twin)

            return Mutation(parts={"processings": replacing(apply=apply)})

        return family, MutantAdapter(adapter, breaks)

    return plant


def _centred_over_the_wrong_axis(family: Family, model: nn.Module) -> None:
    unembedding = canonical_weights(family, model)["unembed.W_U"]  # a view: [d_model, d_vocab]
    unembedding -= unembedding.mean(0, keepdim=True)


def _bias_forgotten(family: Family, model: nn.Module) -> None:
    shift = canonical_weights(family, model).get("ln_final.b")
    if shift is None:
        raise NotApplicable("the norm has no bias")
    shift.zero_()


def _value_biases_tiled(family: Family, model: nn.Module) -> None:
    for layer in range(n_layers_of(family, model)):
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


def _shows_other_patterns(right: Any, names: Set[str]) -> Subject:
    exchanged = Mutation(shows={"attn.hook_pattern": lambda pattern: pattern.transpose(-1, -2)})
    return MutantSubject(right.apply(names), exchanged)


def _processed_without_a_mask(right: Any, names: Set[str]) -> Subject:
    def forward(subject: Subject, inputs: Inputs) -> Output:
        return subject.forward(replace(inputs, attention_mask=None))

    return MutantSubject(right.apply(names), Mutation(forward=forward))


@fault("weights.names")
def canonical_bias_lost() -> Plant:
    """The attention's biases are not among the canonical weights."""
    return in_adapter(_only("attn.b_Q", "attn.b_V", "attn.b_O", change=lambda _weight: None))


@fault("weights.names")
def canonical_bias_made_up() -> Plant:
    """The unembedding is given a bias that HF's does not have."""
    return in_adapter(
        Mutation(
            parts={
                "weights": replacing(
                    canonical=lambda right: {
                        **right.canonical(),
                        "unembed.b_U": right.canonical()["embed.W_E"][:, 0],
                    }
                )
            }
        )
    )


@fault("weights.names")
def canonical_on_meta() -> Plant:
    """The embedding of an offloaded model is handed out without its values."""
    return in_adapter(_only("embed.W_E", change=lambda weight: weight.to("meta")))


@fault("weights.shapes")
def canonical_kv_expanded() -> Plant:
    """Canonical key and value weights have a matrix for each query head."""
    return in_adapter(Mutation(parts={"weights": replacing(canonical=_expanded)}))


@fault("weights.shapes")
def canonical_output_transposed() -> Plant:
    """W_O is transposed in each head."""
    return in_adapter(_only("attn.W_O", change=lambda weight: weight.transpose(1, 2)))


@fault("weights.attention")
def canonical_output_interleaved() -> Plant:
    """W_O is read off as if the heads of a row were interleaved."""
    return in_adapter(_only("attn.W_O", change=_heads_last))


@fault("weights.attention")
def canonical_queries_scaled() -> Plant:
    """W_Q is already divided by the root of the head's width."""
    return in_adapter(_only("attn.W_Q", "attn.b_Q", change=lambda weight: weight / weight.shape[-1] ** 0.5))


@fault("weights.modules")
def canonical_norms_swapped() -> Plant:
    """The canonical norms of attention and MLP are taken for each other."""
    return in_adapter(Mutation(parts={"weights": replacing(canonical=_norms_swapped)}))


@fault("weights.modules")
def canonical_unembedding_folded() -> Plant:
    """W_U already contains the final norm's weight."""
    return in_adapter(Mutation(parts={"weights": replacing(canonical=_final_norm_in_unembedding)}))


@fault("weights.values")
def canonical_through_single() -> Plant:
    """Canonical weights have been through float32."""
    return in_adapter(_canonical(lambda _name, weight: weight.float().to(weight.dtype)))


@fault("weights.values")
def canonical_upcast() -> Plant:
    """Canonical weights of a half-precision model are float32."""
    return in_adapter(_canonical(lambda _name, weight: weight if weight.dtype == torch.float64 else weight.float()))


@fault("weights.restore")
def restore_ignores_its_argument() -> Plant:
    """Restoring gives back the model's own weights, whatever weights it is given."""
    return in_adapter(_restoring(lambda _given, own: own))


@fault("weights.restore")
def restore_permutes_heads() -> Plant:
    """Restoring exchanges two query heads."""
    return in_adapter(_restoring(_two_heads_exchanged))


@fault("weights.restore")
def restore_forgets_the_unembedding() -> Plant:
    """Restoring keeps the model's own unembedding, so that tied weights come apart."""
    return in_adapter(_restoring(lambda given, own: {**given, "unembed.W_U": own["unembed.W_U"]}))


@fault("weights.writing", plant=in_adapter)
def canonical_stored(_model: nn.Module) -> Mutation:
    """Canonical weights are copied once and handed out again: what is written into them is read back, not used."""
    kept: dict[str, Tensor] = {}

    def canonical(right: Any) -> Mapping[str, Tensor]:
        if not kept:
            kept.update({name: weight.detach().clone() for name, weight in right.canonical().items()})
        return kept

    return Mutation(parts={"weights": replacing(canonical=canonical)})


@fault("weights.processings")
def centred_over_the_wrong_axis() -> Plant:
    """A processing centres the unembedding over the residual stream and not over the vocabulary."""
    return _processing(_centred_over_the_wrong_axis)


@fault("weights.processings")
def folded_norm_forgets_its_bias() -> Plant:
    """A processing that folds the final norm drops its bias."""
    return _processing(_bias_forgotten)


@fault("weights.processings")
def value_biases_tiled() -> Plant:
    """A processing folds value biases with key/value heads tiled over the query heads."""
    return _processing(_value_biases_tiled)


@fault("weights.processings_together")
def processings_in_the_wrong_order() -> Plant:
    """Processings that are applied together drop the final norm's bias."""
    return _processing(_bias_forgotten, when=lambda names: len(names) > 1)


@fault("weights.processed_points")
def processed_patterns_transposed() -> Plant:
    """A processed model shows its patterns with queries and keys exchanged."""
    return in_adapter(Mutation(parts={"processings": replacing(apply=_shows_other_patterns)}))


@fault("weights.unprocessed", plant=in_adapter)
def processing_changes_the_original(model: nn.Module) -> Mutation:
    """Processing the weights writes into the model that was wrapped."""

    def apply(right: Any, names: Set[str]) -> Subject:
        subject: Subject = right.apply(names)
        with torch.no_grad():
            next(model.parameters()).mul_(1 + SLIGHTLY)
        return subject

    return Mutation(parts={"processings": replacing(apply=apply)})


@fault("weights.processings_together")
def processed_without_a_mask() -> Plant:
    """A model whose weights were processed ignores the mask."""
    return in_adapter(Mutation(parts={"processings": replacing(apply=_processed_without_a_mask)}))
