"""Faults of interventions: adapters on which an edit does something else, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from verifier.adapter import Edit, Hooks, Inputs, Output, Subject
from verifier.faults.altered_hooks import altered, at, edited_as, in_edited, in_edits, in_hooking, only_read, shown_as
from verifier.faults.mutants import Mutation, Plant, fault, in_adapter, in_method, noting_generation


def _dropped(condition: Callable[[], bool]) -> Mutation:
    """Drop what hooks give back while the condition holds."""
    return altered(forward=at("", edited_as(lambda _value, edited: None if condition() else edited)))


def _dropped_where(condition: Callable[[Inputs], bool]) -> Plant:
    """Plant hooks that drop what they give back in calls with inputs of which the function is true."""

    def mutate(_model: nn.Module) -> Mutation:
        now = {"dropped": False}

        def forward(subject: Subject, inputs: Inputs) -> Output:
            now["dropped"] = condition(inputs)
            return subject.forward(inputs)

        return replace(_dropped(lambda: now["dropped"]), forward=forward)

    return in_adapter(mutate)


# In these a point is edited in each of the ways: which one is chosen by the circumstance.
_OF_EACH_KIND = [
    {},
    {"mask": "left"},
    {"mask": "gaps"},
    {"length": "multiple"},
    {"tokens": "int32"},
    {"past": "asked"},
]


@fault("intervene.effects", plant=in_edits("attn.hook_z"))
def edit_on_a_copy(edit: Edit) -> Edit:
    """The hook at hook_z sees a copy, and what it gives back is dropped."""
    return only_read(shown_as(lambda value: value.detach().clone())(edit))


@fault(
    "intervene.each_point",
    circumstances=_OF_EACH_KIND,
    plant=in_edited("mlp.hook_post"),
)
def edit_of_zero_ignored(value: Tensor, edited: Tensor) -> Tensor:
    """An edit that gives zeros is taken for no edit."""
    # Row by row, as by `edited or value`.
    there = (edited != 0).flatten(1).any(1).reshape(-1, *[1] * (value.ndim - 1))
    return torch.where(there, edited, value)


@fault("intervene.effects", plant=in_edited("hook_resid_post"))
def edit_at_first_position_only(value: Tensor, edited: Tensor) -> Tensor:
    """An edit of the residual stream acts at the first position only."""
    return torch.cat([edited[:, :1], value[:, 1:]], dim=1)


@fault("intervene.each_point", circumstances=[{}], plant=in_edited("hook_attn_out"))
def edit_in_other_rows(value: Tensor, edited: Tensor) -> Tensor:
    """An edit in some row of a batch acts in the first one too."""
    changed = (edited != value).flatten(1).any(1)
    kept = edited.clone()
    if bool(changed.any()):
        kept[0] = edited[int(changed.int().argmax())]
    return kept


@fault(
    "intervene.each_point",
    circumstances=_OF_EACH_KIND,
    plant=in_edited("hook_resid_pre"),
)
def patch_ignored(value: Tensor, edited: Tensor) -> Tensor:
    """An activation that is patched in from another prompt does not arrive."""
    rows = edited.flatten(1)[:, None] == value.flatten(1)[None]
    from_another = (rows.all(-1) & ~torch.eye(len(value), dtype=torch.bool, device=value.device)).any(1)
    return torch.where(from_another.reshape(-1, *[1] * (value.ndim - 1)), value, edited)


@fault("intervene.layouts", circumstances=[{}], plant=in_edits("attn.hook_v"))
def edit_in_place_ignored(edit: Edit) -> Edit:
    """What a hook writes into its tensor in place is lost unless the hook returns another tensor."""

    def act(value: Tensor) -> Tensor | None:
        copy = value.clone()
        edited = edit(copy)
        return None if edited is copy else edited

    return act


@fault("intervene.one_point", plant=in_hooking)
def edit_needs_company(hooked: Callable[..., Any], forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Any:
    """An edit acts only where another point is hooked too."""
    if len(forward) == 1:
        forward = {name: only_read(edit) for name, edit in forward.items()}
    return hooked(forward, backward)


@fault("intervene.effects", circumstances=[{"grad": "grad", "mask": "ones"}], plant=_dropped_where)
def edit_dropped_with_mask(inputs: Inputs) -> bool:
    """Edits are dropped where an attention mask is given."""
    return inputs.attention_mask is not None


@fault("intervene.effects", circumstances=[{"grad": "grad", "tokens": "embeddings"}], plant=_dropped_where)
def edit_dropped_from_embeddings(inputs: Inputs) -> bool:
    """Edits are dropped where embeddings are given in the place of tokens."""
    return inputs.inputs_embeds is not None


@fault(
    "intervene.effects", circumstances=[{"grad": "grad", "mask": "ones", "positions": "given"}], plant=_dropped_where
)
def edit_dropped_with_positions(inputs: Inputs) -> bool:
    """Edits are dropped where positions are given."""
    return inputs.position_ids is not None


@fault("intervene.effects", circumstances=[{"grad": "grad", "past": "token"}], plant=_dropped_where)
def edit_dropped_with_cache(inputs: Inputs) -> bool:
    """Edits are dropped where there is a cache."""
    return inputs.cache is not None


@fault("intervene.effects", plant=_dropped_where)
def edit_dropped_with_gradients(_inputs: Inputs) -> bool:
    """Edits are dropped where gradients are recorded."""
    return torch.is_grad_enabled()


@fault("intervene.effects", circumstances=[{"grad": "grad", "rows": "one"}], plant=in_edited("hook_mlp_out"))
def edit_dropped_on_one_row(value: Tensor, edited: Tensor) -> Tensor | None:
    """Edits are dropped in a batch of one."""
    return None if len(value) == 1 else edited


@fault("cache.generated_edits", circumstances=[{"past": "generation"}])
def edit_dropped_in_generation() -> Mutation:
    """Edits are dropped while the subject generates."""
    generates, cache = noting_generation()
    return Mutation(parts={**_dropped(generates).parts, "cache": cache})


@fault("intervene.each_point", circumstances=[{"grad": "grad", "depth": "eleven"}], plant=in_method("hooks", "hooked"))
def edit_by_prefix(hooks: Hooks, forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Any:
    """An edit in layer 1 acts in layer 10 too."""

    def wide(edits: Mapping[str, Edit]) -> dict[str, Edit]:
        """Hook at `blocks.10` too what is hooked at `blocks.1`, unless another edit is there."""
        found = dict(edits)
        for name, edit in edits.items():
            layer, _, rest = name.removeprefix("blocks.").partition(".")
            for other in hooks.names():
                if other.startswith(f"blocks.{layer}") and other.endswith(f".{rest}"):
                    found.setdefault(other, edit)
        return found

    return hooks.hooked(wide(forward), wide(backward))


@fault("intervene.aliases")
def edit_dropped_at_another_name() -> Mutation:
    """A point has an alias at which it can be read but not edited."""
    point, other = "blocks.0.attn.hook_z", "blocks.0.attn.another_z"
    return altered(
        names=lambda names: {**names, other: replace(names[point], alias_of=point)} if point in names else names,
        target=lambda name: point if name == other else name,
        forward=lambda name, edit: only_read(edit) if name == other else edit,
    )
