"""Faults of hooks: adapters whose hook points are missing, silent, out of place, or show another tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from verifier.adapter import Edit, HookInfo, Hooks, Inputs, Output, Subject
from verifier.canonical import KINDS, name_in
from verifier.family import Family
from verifier.faults.altered_hooks import (
    altered,
    at,
    in_edits,
    in_hooking,
    in_shown,
    kept_open,
    passed_on_as,
    read_nothing,
    showing,
)
from verifier.faults.mutants import (
    SLIGHTLY,
    Mutation,
    Plant,
    fault,
    in_adapter,
    in_eight_bits,
    in_family,
    in_method,
    in_turn,
    with_methods,
)
from verifier.judging.outcome import NotApplicable

Names = dict[str, HookInfo]
Edits = Mapping[str, Edit]


def _ending(names: Names, end: str) -> list[str]:
    found = [name for name in names if name.endswith(end)]
    if not found:
        raise NotApplicable(f"there is no {end}")
    return found


def _in_names(change: Callable[[Names], Names]) -> Plant:
    """Plant a change of the list of hook points."""
    return in_adapter(altered(names=change))


def _adding_afterwards(keep: Callable[[list[Tensor], Edit], Edit]) -> Plant:
    """Plant an addition, in place and after each forward, to what is kept of the hooks at the MLP's output."""

    def mutate(_model: nn.Module) -> Mutation:
        kept: list[Tensor] = []

        def forward(subject: Subject, inputs: Inputs) -> Output:
            output = subject.forward(inputs)
            for value in kept:
                value.detach().add_(1)
            kept.clear()
            return output

        return replace(altered(forward=at("hook_mlp_out", lambda edit: keep(kept, edit))), forward=forward)

    return in_adapter(mutate)


@fault("intervene.nested", "backward.nested")
def hook_innermost_only() -> Mutation:
    """Of several edits at a point, of values or of gradients, only that of the innermost context acts."""
    inside: dict[str, list[object]] = {}

    @contextlib.contextmanager
    def hooked(right: Callable[..., Any], forward: Edits, backward: Edits) -> Iterator[None]:
        me = object()

        def last(name: str, edit: Edit) -> Edit:
            return lambda value: edit(value) if inside[name][-1] is me else None

        names = {*forward, *backward}
        for name in names:
            inside.setdefault(name, []).append(me)
        try:
            with right(*({name: last(name, edit) for name, edit in edits.items()} for edits in (forward, backward))):
                yield
        finally:
            for name in names:
                inside[name].remove(me)

    return altered(hooked=hooked)


@fault("hooks.removed", "hooks.left", plant=in_hooking)
@contextlib.contextmanager
def backward_hook_outlives(hooked: Callable[..., Any], forward: Edits, backward: Edits) -> Iterator[None]:
    """A backward hook stays after it was removed."""
    with kept_open(hooked({}, backward)), hooked(forward, {}):
        yield


@fault("hooks.kept_values", plant=_adding_afterwards)
def given_back_and_written_into(given: list[Tensor], edit: Edit) -> Edit:
    """The tensor that a hook gave back is added to in place afterwards."""

    def act(value: Tensor) -> Tensor | None:
        edited = edit(value)
        if edited is not None:
            given.append(edited)
        return edited

    return act


@fault("hooks.present", plant=_in_names)
def hook_missing(names: Names) -> Names:
    """The last layer has no hook_z."""
    del names[_ending(names, "attn.hook_z")[-1]]
    return names


@fault("hooks.absent", plant=in_family)
def hook_that_cannot_be(family: Family, model: Any) -> Mutation:
    """The adapter offers a canonical point that the model does not have; it shows another point there."""
    inner = [point for point in family.points(model.config.to_dict()) if point.layer is not None]
    has = {point.kind.template for point in inner if point.layer == inner[0].layer}
    # What a later block has is most easily taken for a point of the first.
    kinds = (*(point.kind for point in inner), *(kind for kind in KINDS if kind.in_block))
    lacks = next((kind for kind in kinds if kind.template not in has), None)
    if lacks is None or not inner:
        raise NotApplicable("no canonical point is lacking")
    extra, target = name_in(lacks.template, inner[0].layer, 0), inner[0].name
    return altered(
        names=lambda names: {**names, extra: HookInfo(native_name=extra)},
        target=lambda name: target if name == extra else name,
    )


@fault("hooks.fires")
def hook_silent() -> Mutation:
    """A hook at mlp.hook_post is accepted and never called."""
    return altered(target=lambda name: None if name.endswith("mlp.hook_post") else name)


@fault("hooks.fires", "hooks.shown", plant=in_edits("hook_resid_post"))
def hook_twice(edit: Edit) -> Edit:
    """A hook at hook_resid_post is called twice."""
    return in_turn(edit, edit)


@fault("hooks.order", "intervene.effects")
def hook_late() -> Mutation:
    """A block's input is shown only after the block has run."""
    waiting: dict[str, tuple[Edit, Tensor]] = {}

    def forward(name: str, edit: Edit) -> Edit:
        if name.endswith("hook_resid_pre"):
            later = name.replace("resid_pre", "resid_post")

            def wait(value: Tensor) -> None:
                waiting[later] = (edit, value)

            return wait

        def act(value: Tensor) -> Tensor | None:
            held = waiting.pop(name, None)
            if held is not None:
                held[0](held[1])
            return edit(value)

        return act

    return altered(forward=forward)


@fault("hooks.axes", plant=in_shown("attn.hook_pattern"))
def hook_axes_exchanged(pattern: Tensor) -> Tensor:  # [batch, head, query, key]
    """The pattern is shown with heads and queries exchanged."""
    return pattern.transpose(1, 2)


@fault("hooks.axes", plant=in_shown("attn.hook_z"))
def hook_heads_flat(z: Tensor) -> Tensor:  # [batch, pos, head, d_head]
    """Hook_z is shown with heads and head dimensions flattened into one axis."""
    return z.flatten(2)


@fault("hooks.values")
def q_after_rotary() -> Mutation:
    """Hook_q shows the queries after the rotary positions are applied."""

    def names(given: Names) -> Names:
        _ending(given, "attn.hook_rot_q")
        return given

    return altered(
        names=names,
        target=lambda name: name.replace("hook_q", "hook_rot_q") if name.endswith("attn.hook_q") else name,
    )


@fault("hooks.values", plant=in_shown("attn.hook_z"))
def one_hook_heads_permuted(z: Tensor) -> Tensor:  # [batch, pos, head, d_head]
    """The heads of hook_z come in another order; every other hook is right."""
    return z.roll(1, 2)


@fault("hooks.values", plant=in_shown("hook_scale"))
def scale_inverted(scale: Tensor) -> Tensor:
    """Hook_scale shows what a norm multiplies by, not what it divides by."""
    return 1 / scale


@fault("hooks.values", plant=in_shown("attn.hook_attn_scores"))
def scores_unscaled(scores: Tensor) -> Tensor:
    """The scores are shown before they are scaled."""
    return scores * 2


@fault("hooks.shown", circumstances=[{"grad": "grad", "mask": "left"}])
def keys_shifted_by_padding() -> Mutation:
    """Hook_k is one position late, with padding only."""
    padded = {"now": False}

    def forward(subject: Subject, inputs: Inputs) -> Output:
        mask = inputs.attention_mask
        padded["now"] = mask is not None and not bool(mask.all())
        return subject.forward(inputs)

    def show(value: Tensor) -> Tensor:  # [batch, pos, head, d_head]
        return value.roll(1, 1) if padded["now"] else value

    return replace(showing("attn.hook_k", show), forward=forward)


@fault("hooks.identity", plant=in_edits("hook_resid_pre"))
def hook_rounds(edit: Edit) -> Edit:
    """What passes a hook goes through float32."""
    return passed_on_as(lambda value: value.float().to(value.dtype))(edit)


@fault("hooks.switches")
def switch_changes_it() -> Mutation:
    """Turning a gated point on scales the logits slightly."""
    on = {"now": False}
    last = "ln_final.hook_normalized"

    @contextlib.contextmanager
    def switched(hooks: Hooks, names: Set[str]) -> Iterator[None]:
        on["now"] = bool(names)
        with hooks.switched(names):
            yield
        on["now"] = False

    def hooked(hooks: Hooks, forward: Edits, backward: Edits) -> Any:
        if not on["now"]:
            return hooks.hooked(forward, backward)
        scaled = passed_on_as(lambda value: value * (1 + SLIGHTLY))(forward.get(last, read_nothing))
        return hooks.hooked({**forward, last: scaled}, backward)

    return with_methods("hooks", switched=switched, hooked=hooked)


@fault("hooks.switches", "hooks.gone", plant=in_method("hooks", "switched"))
def switch_stays_on(hooks: Hooks, names: Set[str]) -> Any:
    """Gated points that are turned on are never turned off again."""
    return kept_open(hooks.switched(names))


@fault("hooks.kept_values", plant=_adding_afterwards)
def shown_and_written_into(shown: list[Tensor], edit: Edit) -> Edit:
    """What a hook saw of the MLP's output is added to in place afterwards."""

    def act(value: Tensor) -> Tensor:
        handed_on = value.clone()
        edited = edit(value)
        shown.append(value)
        return handed_on if edited is None else edited

    return act


@fault("hooks.values")
def hook_drifts() -> Mutation:
    """Hook_z is right only the first time."""
    calls = {"n": 0}

    def forward(subject: Subject, inputs: Inputs) -> Output:
        calls["n"] += 1
        return subject.forward(inputs)

    def show(value: Tensor) -> Tensor:
        return value * (1 + SLIGHTLY * calls["n"])

    return replace(showing("attn.hook_z", show), forward=forward)


# A later call of another shape may raise in a hook that is still there.
@fault("forward.outputs", raises=True, plant=in_hooking)
def hook_never_removed(hooked: Callable[..., Any], forward: Edits, backward: Edits) -> Any:
    """Hooks stay after they were removed."""
    return kept_open(hooked(forward, backward))


@fault("hooks.left")
def hooks_all_removed() -> Mutation:
    """Removing one context's hooks removes those of the other contexts too."""
    removed: list[bool] = [False]
    depth = {"now": 0}

    def while_there(edit: Edit) -> Edit:
        return lambda value: None if removed[0] else edit(value)

    @contextlib.contextmanager
    def hooked(right: Callable[..., Any], forward: Edits, backward: Edits) -> Iterator[None]:
        depth["now"] += 1
        try:
            with right({name: while_there(edit) for name, edit in forward.items()}, backward):
                yield
        finally:
            depth["now"] -= 1
            removed[0] = depth["now"] > 0

    return altered(hooked=hooked)


@fault("forward.outputs", circumstances=[{"history": "raised"}], raises=True, plant=in_hooking)
def hook_left_by_exception(hooked: Callable[..., Any], forward: Edits, backward: Edits) -> Any:
    """An exception inside a hook leaves the hooks attached."""
    return kept_open(hooked(forward, backward), only_after_exceptions=True)


@fault("state.misuse", circumstances=[{"history": "raised"}], plant=in_edits())
def hook_swallows(edit: Edit) -> Edit:
    """An exception inside a hook is swallowed."""

    def act(value: Tensor) -> Tensor | None:
        try:
            return edit(value)
        except Exception:
            return None

    return act


@fault("hooks.aliases")
def alias_of_another() -> Mutation:
    """A second name for a block's input is its output."""

    def names(given: Names) -> Names:
        (first,) = _ending(given, "blocks.0.hook_resid_pre")
        return {**given, "blocks.0.hook_in": HookInfo(native_name="hook_in", alias_of=first)}

    return altered(
        names=names,
        target=lambda name: name.replace("hook_in", "hook_resid_post") if name.endswith(".hook_in") else name,
    )


@fault("hooks.shown", circumstances=[{"dtype": "float16"}], plant=in_shown("attn.hook_z"))
def hook_coarse_in_half(z: Tensor) -> Tensor:
    """What a hook is shown goes through eight bits, in models of half precision."""
    return in_eight_bits(z)
