"""Adapters on which an intervention does something else, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from verifier.adapter import Edit, Inputs, Output, Subject
from verifier.faults.altered_hooks import altered, at
from verifier.faults.mutants import Mutation, Plant, fault, in_adapter, replacing


def _on_a_copy(edit: Edit) -> Edit:
    """The hook sees a copy beside the forward, and what it gives back is dropped."""

    def act(value: Tensor) -> None:
        edit(value.detach().clone())

    return act


def _zero_is_none(edit: Edit) -> Edit:
    """Rows of nothing but zeros are taken for no edit, as by `edited or value`."""

    def act(value: Tensor) -> Tensor | None:
        edited = edit(value)
        if edited is None:
            return None
        there = (edited != 0).flatten(1).any(1).reshape(-1, *[1] * (value.ndim - 1))
        return torch.where(there, edited, value)

    return act


def _first_position_only(edit: Edit) -> Edit:
    def act(value: Tensor) -> Tensor | None:
        edited = edit(value)
        if edited is None:
            return None
        kept = edited.clone()
        kept[:, 1:] = value[:, 1:]
        return kept

    return act


def _into_other_rows(edit: Edit) -> Edit:
    def act(value: Tensor) -> Tensor | None:
        edited = edit(value)
        if edited is None:
            return None
        changed = (edited != value).flatten(1).any(1)
        kept = edited.clone()
        if bool(changed.any()):
            kept[0] = edited[int(changed.int().argmax())]
        return kept

    return act


def _other_prompt_forgotten(edit: Edit) -> Edit:
    """A hook sees every row as the first, so that nothing can be taken from another prompt."""

    def act(value: Tensor) -> Tensor | None:
        edited = edit(value)
        if edited is None or len(value) < 2:
            return edited
        from_second = (edited == value[1:2]).flatten(1).all(1).reshape(-1, *[1] * (value.ndim - 1))
        rows = torch.arange(len(value), device=value.device).reshape(from_second.shape)
        return torch.where(from_second & (rows > 1), value, edited)

    return act


def _only_what_is_new(edit: Edit) -> Edit:
    """The hook writes into a copy; only another tensor than that counts as an edit."""

    def act(value: Tensor) -> Tensor | None:
        copy = value.clone()
        edited = edit(copy)
        return None if edited is copy else edited

    return act


def _dropped(edit: Edit, while_: Callable[[Tensor], bool]) -> Edit:
    """What a hook gives back is dropped while that holds."""

    def act(value: Tensor) -> Tensor | None:
        edited = edit(value)
        return None if while_(value) else edited

    return act


def _dropped_where(condition: Callable[[Inputs], bool]) -> Callable[[nn.Module], Mutation]:
    """What hooks give back is dropped in calls that are like that."""

    def breaks(_model: nn.Module) -> Mutation:
        now = {"dropped": False}

        def forward(subject: Subject, inputs: Inputs) -> Output:
            now["dropped"] = condition(inputs)
            return subject.forward(inputs)

        return replace(altered(forward=lambda _, edit: _dropped(edit, lambda _: now["dropped"])), forward=forward)

    return breaks


def _dropped_in_generation(_model: nn.Module) -> Mutation:
    now = {"generates": False}

    def generate(cache: Any, *args: Any, **kwargs: Any) -> Tensor:
        now["generates"] = True
        try:
            made: Tensor = cache.generate(*args, **kwargs)
        finally:
            now["generates"] = False
        return made

    hooks = altered(forward=lambda _, edit: _dropped(edit, lambda _: now["generates"]))
    return Mutation(parts={**hooks.parts, "cache": replacing(generate=generate)})


def _acts_in_company(hooked: Callable[..., Any], forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Any:
    """An edit acts only where another point is hooked too."""
    if len(forward) == 1:
        forward = {name: _dropped(edit, lambda _: True) for name, edit in forward.items()}
    return hooked(forward, backward)


def _by_prefix(hooks: Any, forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Any:
    """A hook at `blocks.1` is one at `blocks.10` too, unless there is another."""

    def wide(edits: Mapping[str, Edit]) -> dict[str, Edit]:
        found = dict(edits)
        for name, edit in edits.items():
            layer, _, rest = name.removeprefix("blocks.").partition(".")
            for other in hooks.names():
                if other.startswith(f"blocks.{layer}") and other.endswith(f".{rest}"):
                    found.setdefault(other, edit)
        return found

    return hooks.hooked(wide(forward), wide(backward))


def _named_twice() -> Mutation:
    point, other = "blocks.0.attn.hook_z", "blocks.0.attn.another_z"

    def only_read(name: str, edit: Edit) -> Edit:
        def read(value: Tensor) -> None:
            edit(value)

        return read if name == other else edit

    return altered(
        names=lambda names: {**names, other: replace(names[point], alias_of=point)} if point in names else names,
        target=lambda name: point if name == other else name,
        forward=only_read,
    )


@fault("intervene.replace", "intervene.add", "intervene.zero", "intervene.swap")
def edit_on_a_copy() -> Plant:
    """The hook at hook_z sees a copy, and what it gives back is dropped."""
    return in_adapter(altered(forward=at("attn.hook_z", _on_a_copy)))


@fault("intervene.zero")
def edit_of_zero_ignored() -> Plant:
    """An edit that gives zeros is taken for none."""
    return in_adapter(altered(forward=at("mlp.hook_post", _zero_is_none)))


@fault("intervene.replace", "intervene.add")
def edit_at_first_position_only() -> Plant:
    """An edit of the residual stream acts at the first position only."""
    return in_adapter(altered(forward=at("hook_resid_post", _first_position_only)))


@fault("intervene.rows")
def edit_in_other_rows() -> Plant:
    """An edit in some row of a batch acts in the first one too."""
    return in_adapter(altered(forward=at("hook_attn_out", _into_other_rows)))


@fault("intervene.swap")
def patch_ignored() -> Plant:
    """An activation that is taken from another prompt does not arrive."""
    return in_adapter(altered(forward=at("hook_resid_pre", _other_prompt_forgotten)))


@fault("intervene.in_place")
def edit_in_place_ignored() -> Plant:
    """What a hook writes into its tensor is lost, unless it gives back another one."""
    return in_adapter(altered(forward=at("attn.hook_v", _only_what_is_new)))


@fault("intervene.alone")
def edit_needs_company() -> Plant:
    """An edit acts only where another point is hooked too."""
    return in_adapter(altered(hooked=_acts_in_company))


@fault("intervene.calls")
def edit_dropped_with_mask() -> Plant:
    """Edits are dropped where an attention mask is given."""
    return in_adapter(_dropped_where(lambda inputs: inputs.attention_mask is not None))


@fault("intervene.calls")
def edit_dropped_from_embeddings() -> Plant:
    """Edits are dropped where embeddings are given in the place of tokens."""
    return in_adapter(_dropped_where(lambda inputs: inputs.inputs_embeds is not None))


@fault("intervene.calls")
def edit_dropped_with_positions() -> Plant:
    """Edits are dropped where positions are given."""
    return in_adapter(_dropped_where(lambda inputs: inputs.position_ids is not None))


@fault("intervene.calls")
def edit_dropped_with_cache() -> Plant:
    """Edits are dropped where there is a cache."""
    return in_adapter(_dropped_where(lambda inputs: inputs.cache is not None))


@fault("intervene.calls")
def edit_dropped_with_gradients() -> Plant:
    """Edits are dropped where gradients are recorded."""
    return in_adapter(_dropped_where(lambda _: torch.is_grad_enabled()))


@fault("intervene.calls")
def edit_dropped_on_one_row() -> Plant:
    """Edits are dropped in a batch of one."""
    return in_adapter(altered(forward=at("hook_mlp_out", lambda edit: _dropped(edit, lambda value: len(value) == 1))))


@fault("intervene.generation")
def edit_dropped_in_generation() -> Plant:
    """Edits are dropped while the subject generates."""
    return in_adapter(_dropped_in_generation)


@fault("intervene.layers")
def edit_by_prefix() -> Plant:
    """An edit in layer 1 acts in layer 10 too."""
    return in_adapter(Mutation(parts={"hooks": replacing(hooked=_by_prefix)}))


@fault("intervene.aliases")
def edit_dropped_at_another_name() -> Plant:
    """A point has another name, by which it can be read and not edited."""
    return in_adapter(lambda _model: _named_twice())
