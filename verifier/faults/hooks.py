"""Faults of hooks: adapters whose hook points are missing, silent, out of place, or show another tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from verifier.adapter import Edit, HookInfo, Inputs, Output, Subject
from verifier.canonical import KINDS
from verifier.family import Family
from verifier.faults.altered_hooks import altered, at, kept_open, passed_on_as, read_nothing, shown_as
from verifier.faults.mutants import (
    SLIGHTLY,
    Mutation,
    Plant,
    fault,
    in_adapter,
    in_eight_bits,
    in_family,
    replacing,
)
from verifier.judging.outcome import NotApplicable

Names = dict[str, HookInfo]


def _ending(names: Names, end: str) -> list[str]:
    found = [name for name in names if name.endswith(end)]
    if not found:
        raise NotApplicable(f"there is no {end}")
    return found


def _forgotten(names: Names) -> Names:
    """The last layer's `hook_z` is not in the list."""
    del names[_ending(names, "attn.hook_z")[-1]]
    return names


def _once_more(edit: Edit) -> Edit:
    def act(value: Tensor) -> Tensor | None:
        first = edit(value)
        second = edit(value if first is None else first)
        return first if second is None else second

    return act


def _switch_changes(subject: Subject, hooks: Any) -> Any:
    on = {"now": False}

    @contextlib.contextmanager
    def switched(_hooks: Any, names: Any) -> Iterator[None]:
        on["now"] = bool(names)
        with hooks.switched(names):
            yield
        on["now"] = False

    def hooked(_hooks: Any, forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Any:
        if not on["now"]:
            return hooks.hooked(forward, backward)
        last = "ln_final.hook_normalized"
        scaled = passed_on_as(lambda value: value * (1 + SLIGHTLY))(forward.get(last, read_nothing))
        return hooks.hooked({**forward, last: scaled}, backward)

    return replacing(switched=switched, hooked=hooked)(subject, hooks)


def _swallowing(_name: str, edit: Edit) -> Edit:
    def act(value: Tensor) -> Tensor | None:
        try:
            return edit(value)
        except Exception:
            return None

    return act


def _wrong_alias(names: Names) -> Names:
    (first,) = _ending(names, "blocks.0.hook_resid_pre")
    return {**names, "blocks.0.hook_in": HookInfo(native_name="hook_in", alias_of=first)}


def _shows(end: str, change: Callable[[Tensor], Tensor]) -> Mutation:
    return altered(forward=at(end, shown_as(change)))


def _adding_afterwards(keep: Callable[[list[Tensor], Edit], Edit]) -> Mutation:
    """What is kept of a hook at the MLP's output is added to in place once the forward is done."""
    kept: list[Tensor] = []

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        for value in kept:
            value.detach().add_(1)
        kept.clear()
        return output

    return replace(altered(forward=at("hook_mlp_out", lambda edit: keep(kept, edit))), forward=forward)


@contextlib.contextmanager
def _backward_stays(
    hooked: Callable[..., Any], forward: Mapping[str, Edit], backward: Mapping[str, Edit]
) -> Iterator[None]:
    with kept_open(hooked({}, backward)), hooked(forward, {}):
        yield


@fault("hooks.nested", plant=in_adapter)
def hook_innermost_only(_model: nn.Module) -> Mutation:
    """Of several edits at a point, only the edit of the innermost context acts."""
    inside: dict[str, list[object]] = {}

    @contextlib.contextmanager
    def hooked(hooks: Any, forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Iterator[None]:
        me = object()

        def last(name: str, edit: Edit) -> Edit:
            return lambda value: edit(value) if inside[name][-1] is me else None

        for name in forward:
            inside.setdefault(name, []).append(me)
        try:
            with hooks.hooked({name: last(name, edit) for name, edit in forward.items()}, backward):
                yield
        finally:
            for name in forward:
                inside[name].remove(me)

    return Mutation(parts={"hooks": replacing(hooked=hooked)})


@fault("hooks.removed")
def backward_hook_outlives() -> Plant:
    """A backward hook stays after it was removed."""
    return in_adapter(altered(hooked=_backward_stays))


@fault("hooks.given_back", plant=in_adapter)
def given_back_and_written_into(_model: nn.Module) -> Mutation:
    """The tensor that a hook gave back is added to in place afterwards."""

    def keep(given: list[Tensor], edit: Edit) -> Edit:
        def act(value: Tensor) -> Tensor | None:
            edited = edit(value)
            if edited is not None:
                given.append(edited)
            return edited

        return act

    return _adding_afterwards(keep)


@fault("hooks.present")
def hook_missing() -> Plant:
    """The last layer has no hook_z."""
    return in_adapter(altered(names=_forgotten))


@fault("hooks.absent", plant=in_family)
def hook_that_cannot_be(family: Family, model: Any) -> Mutation:
    """The adapter offers a canonical point that the model does not have; it shows another point there."""
    points = family.points(model.config.to_dict())
    inner = [point for point in points if point.layer == 0]
    has = {point.kind.template for point in points}
    lacks = next((kind for kind in KINDS if kind.in_block and kind.template not in has), None)
    if lacks is None or not inner:
        raise NotApplicable("no canonical point is lacking")
    extra, target = lacks.at(0), inner[0].name
    return altered(
        names=lambda names: {**names, extra: HookInfo(native_name=extra)},
        target=lambda name: target if name == extra else name,
    )


@fault("hooks.fires")
def hook_silent() -> Plant:
    """A hook at mlp.hook_post is accepted and never called."""
    return in_adapter(altered(target=lambda name: None if name.endswith("mlp.hook_post") else name))


@fault("hooks.fires", "intervene.add")
def hook_twice() -> Plant:
    """A hook at hook_resid_post is called twice."""
    return in_adapter(altered(forward=at("hook_resid_post", _once_more)))


@fault("hooks.order", "intervene.replace", plant=in_adapter)
def hook_late(_model: nn.Module) -> Mutation:
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


@fault("hooks.axes")
def hook_axes_exchanged() -> Plant:
    """The pattern is shown with heads and queries exchanged."""
    return in_adapter(_shows("attn.hook_pattern", lambda value: value.transpose(1, 2)))


@fault("hooks.axes")
def hook_heads_flat() -> Plant:
    """Hook_z is shown with heads and head dimensions flattened into one axis."""
    return in_adapter(_shows("attn.hook_z", lambda value: value.flatten(2)))


@fault("hooks.values", plant=in_adapter)
def q_after_rotary(_model: nn.Module) -> Mutation:
    """Hook_q shows the queries after the rotary positions are applied."""

    def names(given: Names) -> Names:
        _ending(given, "attn.hook_rot_q")
        return given

    return altered(
        names=names,
        target=lambda name: name.replace("hook_q", "hook_rot_q") if name.endswith("attn.hook_q") else name,
    )


@fault("hooks.values")
def one_hook_heads_permuted() -> Plant:
    """The heads of hook_z come in another order; every other hook is right."""
    return in_adapter(_shows("attn.hook_z", lambda value: value.roll(1, 2)))


@fault("hooks.values")
def scale_inverted() -> Plant:
    """Hook_scale shows what a norm multiplies by, not what it divides by."""
    return in_adapter(_shows("hook_scale", lambda value: 1 / value))


@fault("hooks.values")
def scores_unscaled() -> Plant:
    """The scores are shown before they are scaled."""
    return in_adapter(_shows("attn.hook_attn_scores", lambda value: value * 2))


@fault("hooks.values", plant=in_adapter)
def keys_shifted_by_padding(_model: nn.Module) -> Mutation:
    """Hook_k is one position late, with padding only."""
    padded = {"now": False}

    def forward(subject: Subject, inputs: Inputs) -> Output:
        mask = inputs.attention_mask
        padded["now"] = mask is not None and not bool(mask.all())
        return subject.forward(inputs)

    def show(value: Tensor) -> Tensor:
        return value.roll(1, 1) if padded["now"] else value

    return replace(altered(forward=at("attn.hook_k", shown_as(show))), forward=forward)


@fault("hooks.identity")
def hook_rounds() -> Plant:
    """What passes a hook goes through float32."""
    return in_adapter(altered(forward=at("hook_resid_pre", passed_on_as(lambda value: value.float().to(value.dtype)))))


@fault("hooks.switches")
def switch_changes_it() -> Plant:
    """Turning a gated point on scales the logits slightly."""
    return in_adapter(Mutation(parts={"hooks": _switch_changes}))


@fault("hooks.switches")
def switch_stays_on() -> Plant:
    """Gated points that are turned on are never turned off again."""
    return in_adapter(
        Mutation(parts={"hooks": replacing(switched=lambda hooks, names: kept_open(hooks.switched(names)))})
    )


@fault("hooks.kept", plant=in_adapter)
def shown_and_written_into(_model: nn.Module) -> Mutation:
    """What a hook saw of the MLP's output is added to in place afterwards."""

    def keep(shown: list[Tensor], edit: Edit) -> Edit:
        def act(value: Tensor) -> Tensor:
            handed_on = value.clone()
            edited = edit(value)
            shown.append(value)
            return handed_on if edited is None else edited

        return act

    return _adding_afterwards(keep)


@fault("hooks.twice", plant=in_adapter)
def hook_drifts(_model: nn.Module) -> Mutation:
    """Hook_z is right only the first time."""
    calls = {"n": 0}

    def forward(subject: Subject, inputs: Inputs) -> Output:
        calls["n"] += 1
        return subject.forward(inputs)

    def show(value: Tensor) -> Tensor:
        return value * (1 + SLIGHTLY * calls["n"])

    return replace(altered(forward=at("attn.hook_z", shown_as(show))), forward=forward)


@fault("hooks.removed")
def hook_never_removed() -> Plant:
    """Hooks stay after they were removed."""
    return in_adapter(altered(hooked=lambda hooked, *edits: kept_open(hooked(*edits))))


@fault("hooks.removed", plant=in_adapter)
def hooks_all_removed(_model: nn.Module) -> Mutation:
    """Removing one context's hooks removes those of the other contexts too."""
    removed: list[bool] = [False]
    depth = {"now": 0}

    def while_there(edit: Edit) -> Edit:
        return lambda value: None if removed[0] else edit(value)

    @contextlib.contextmanager
    def hooked(right: Callable[..., Any], forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Iterator[None]:
        depth["now"] += 1
        try:
            with right({name: while_there(edit) for name, edit in forward.items()}, backward):
                yield
        finally:
            depth["now"] -= 1
            removed[0] = depth["now"] > 0

    return altered(hooked=hooked)


@fault("hooks.exception")
def hook_left_by_exception() -> Plant:
    """An exception inside a hook leaves the hooks attached."""
    return in_adapter(altered(hooked=lambda hooked, *edits: kept_open(hooked(*edits), only_after_exceptions=True)))


@fault("hooks.exception")
def hook_swallows() -> Plant:
    """An exception inside a hook is swallowed."""
    return in_adapter(altered(forward=_swallowing))


@fault("hooks.aliases")
def alias_of_another() -> Plant:
    """A second name for a block's input is its output."""
    return in_adapter(
        altered(
            names=_wrong_alias,
            target=lambda name: name.replace("hook_in", "hook_resid_post") if name.endswith(".hook_in") else name,
        )
    )


@fault("hooks.precision")
def hook_coarse_in_half() -> Plant:
    """What a hook is shown goes through eight bits, in models of half precision."""
    return in_adapter(altered(forward=at("attn.hook_z", shown_as(in_eight_bits))))
