"""Adapters on which an intervention does something else, or nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.adapter import Edit
from verifier.faults.altered_hooks import altered, at
from verifier.faults.mutants import Fault, in_adapter


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


FAULTS: tuple[Fault, ...] = (
    Fault(
        name="edit-on-a-copy",
        what="the hook at hook_z sees a copy, and what it gives back is dropped",
        caught_by=["intervene.replace", "intervene.add", "intervene.zero", "intervene.swap"],
        plant=in_adapter(altered(forward=at("attn.hook_z", _on_a_copy))),
    ),
    Fault(
        name="edit-of-zero-ignored",
        what="an edit that gives zeros is taken for none",
        caught_by=["intervene.zero"],
        plant=in_adapter(altered(forward=at("mlp.hook_post", _zero_is_none))),
    ),
    Fault(
        name="edit-at-first-position-only",
        what="an edit of the residual stream acts at the first position only",
        caught_by=["intervene.replace", "intervene.add"],
        plant=in_adapter(altered(forward=at("hook_resid_post", _first_position_only))),
    ),
    Fault(
        name="edit-in-other-rows",
        what="an edit in some row of a batch acts in the first one too",
        caught_by=["intervene.rows"],
        plant=in_adapter(altered(forward=at("hook_attn_out", _into_other_rows))),
    ),
    Fault(
        name="patch-ignored",
        what="an activation that is taken from another prompt does not arrive",
        caught_by=["intervene.swap"],
        plant=in_adapter(altered(forward=at("hook_resid_pre", _other_prompt_forgotten))),
    ),
    Fault(
        name="edit-in-place-ignored",
        what="what a hook writes into its tensor is lost, unless it gives back another one",
        caught_by=["intervene.in_place"],
        plant=in_adapter(altered(forward=at("attn.hook_v", _only_what_is_new))),
    ),
)
