"""Faults of interventions: adapters on which an edit does something else, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from verifier.adapter import Edit, Inputs, Output, Subject
from verifier.faults.altered_hooks import altered, at, edited_as, only_read, shown_as
from verifier.faults.mutants import Mutation, Plant, fault, in_adapter, replacing


def _zero_is_none(value: Tensor, edited: Tensor) -> Tensor:
    """Rows of nothing but zeros are taken for no edit, as by `edited or value`."""
    there = (edited != 0).flatten(1).any(1).reshape(-1, *[1] * (value.ndim - 1))
    return torch.where(there, edited, value)


def _first_position_only(value: Tensor, edited: Tensor) -> Tensor:
    return torch.cat([edited[:, :1], value[:, 1:]], dim=1)


def _into_other_rows(value: Tensor, edited: Tensor) -> Tensor:
    """The first row that is edited is written into the first row of all."""
    changed = (edited != value).flatten(1).any(1)
    kept = edited.clone()
    if bool(changed.any()):
        kept[0] = edited[int(changed.int().argmax())]
    return kept


def _other_prompt_forgotten(value: Tensor, edited: Tensor) -> Tensor:
    """A hook sees every row as the first, so that nothing can be taken from another prompt."""
    if len(value) < 2:
        return edited
    from_second = (edited == value[1:2]).flatten(1).all(1).reshape(-1, *[1] * (value.ndim - 1))
    rows = torch.arange(len(value), device=value.device).reshape(from_second.shape)
    return torch.where(from_second & (rows > 1), value, edited)


def _only_what_is_new(edit: Edit) -> Edit:
    """The hook writes into a copy; only another tensor than that counts as an edit."""

    def act(value: Tensor) -> Tensor | None:
        copy = value.clone()
        edited = edit(copy)
        return None if edited is copy else edited

    return act


def _dropped(while_: Callable[[Tensor], bool]) -> Callable[[Edit], Edit]:
    """What a hook gives back is dropped while that holds."""
    return edited_as(lambda value, edited: None if while_(value) else edited)


def _dropped_where(condition: Callable[[Inputs], bool]) -> Callable[[nn.Module], Mutation]:
    """What hooks give back is dropped in calls that are like that."""

    def breaks(_model: nn.Module) -> Mutation:
        now = {"dropped": False}

        def forward(subject: Subject, inputs: Inputs) -> Output:
            now["dropped"] = condition(inputs)
            return subject.forward(inputs)

        return replace(altered(forward=at("", _dropped(lambda _: now["dropped"]))), forward=forward)

    return breaks


def _acts_in_company(hooked: Callable[..., Any], forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Any:
    """An edit acts only where another point is hooked too."""
    if len(forward) == 1:
        forward = {name: only_read(edit) for name, edit in forward.items()}
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


@fault("intervene.replace", "intervene.add", "intervene.zero", "intervene.swap")
def edit_on_a_copy() -> Plant:
    """The hook at hook_z sees a copy, and what it gives back is dropped."""
    return in_adapter(
        altered(forward=at("attn.hook_z", lambda edit: only_read(shown_as(lambda value: value.detach().clone())(edit))))
    )


@fault("intervene.zero")
def edit_of_zero_ignored() -> Plant:
    """An edit that gives zeros is taken for no edit."""
    return in_adapter(altered(forward=at("mlp.hook_post", edited_as(_zero_is_none))))


@fault("intervene.replace", "intervene.add")
def edit_at_first_position_only() -> Plant:
    """An edit of the residual stream acts at the first position only."""
    return in_adapter(altered(forward=at("hook_resid_post", edited_as(_first_position_only))))


@fault("intervene.rows")
def edit_in_other_rows() -> Plant:
    """An edit in some row of a batch acts in the first one too."""
    return in_adapter(altered(forward=at("hook_attn_out", edited_as(_into_other_rows))))


@fault("intervene.swap")
def patch_ignored() -> Plant:
    """An activation that is patched in from another prompt does not arrive."""
    return in_adapter(altered(forward=at("hook_resid_pre", edited_as(_other_prompt_forgotten))))


@fault("intervene.in_place")
def edit_in_place_ignored() -> Plant:
    """What a hook writes into its tensor in place is lost unless the hook returns another tensor."""
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
    return in_adapter(altered(forward=at("hook_mlp_out", _dropped(lambda value: len(value) == 1))))


@fault("intervene.generation", plant=in_adapter)
def edit_dropped_in_generation(_model: nn.Module) -> Mutation:
    """Edits are dropped while the subject generates."""
    now = {"generates": False}

    def generate(cache: Any, *args: Any, **kwargs: Any) -> Tensor:
        now["generates"] = True
        try:
            made: Tensor = cache.generate(*args, **kwargs)
        finally:
            now["generates"] = False
        return made

    hooks = altered(forward=at("", _dropped(lambda _: now["generates"])))
    return Mutation(parts={**hooks.parts, "cache": replacing(generate=generate)})


@fault("intervene.layers")
def edit_by_prefix() -> Plant:
    """An edit in layer 1 acts in layer 10 too."""
    return in_adapter(Mutation(parts={"hooks": replacing(hooked=_by_prefix)}))


@fault("intervene.aliases", plant=in_adapter)
def edit_dropped_at_another_name(_model: nn.Module) -> Mutation:
    """A point has an alias at which it can be read but not edited."""
    point, other = "blocks.0.attn.hook_z", "blocks.0.attn.another_z"

    return altered(
        names=lambda names: {**names, other: replace(names[point], alias_of=point)} if point in names else names,
        target=lambda name: point if name == other else name,
        forward=lambda name, edit: only_read(edit) if name == other else edit,
    )
