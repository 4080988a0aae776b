"""Adapters whose hook points are missing, silent, out of place, or show another tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from verifier.adapter import Adapter, Edit, HookInfo, Inputs, Output, Subject
from verifier.canonical import KINDS
from verifier.family import Family
from verifier.faults.altered_hooks import altered, at, kept_open, shown_as
from verifier.faults.mutants import (
    SLIGHTLY,
    MutantAdapter,
    Mutation,
    Plant,
    fault,
    in_adapter,
    in_eight_bits,
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


def _too_many(family: Family, adapter: Adapter) -> tuple[Family, Adapter]:
    """A canonical point that this model lacks is offered, as another name of what comes before it."""

    def breaks(model: Any) -> Mutation:
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

    return family, MutantAdapter(adapter, breaks)


def _once_more(edit: Edit) -> Edit:
    def act(value: Tensor) -> Tensor | None:
        first = edit(value)
        second = edit(value if first is None else first)
        return first if second is None else second

    return act


def _read_late() -> Mutation:
    """What a block is given is shown when the block is done."""
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


def _after_rotary(name: str) -> str:
    return name.replace("hook_q", "hook_rot_q") if name.endswith("attn.hook_q") else name


def _rotated(model: Any) -> Mutation:
    def names(given: Names) -> Names:
        _ending(given, "attn.hook_rot_q")
        return given

    return altered(names=names, target=_after_rotary)


def _only_padded() -> Mutation:
    """Keys are shown shifted where there is padding."""
    padded = {"now": False}

    def forward(subject: Subject, inputs: Inputs) -> Output:
        mask = inputs.attention_mask
        padded["now"] = mask is not None and not bool(mask.all())
        return subject.forward(inputs)

    def show(value: Tensor) -> Tensor:
        return value.roll(1, 1) if padded["now"] else value

    return replace(altered(forward=at("attn.hook_k", shown_as(show))), forward=forward)


def _given_back_rounded(edit: Edit) -> Edit:
    """What a hook leaves alone goes through float32 on its way."""

    def act(value: Tensor) -> Tensor:
        edited = edit(value)
        return (value if edited is None else edited).float().to(value.dtype)

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
        def slightly(edit: Edit | None) -> Edit:
            def act(value: Tensor) -> Tensor:
                edited = None if edit is None else edit(value)
                return (value if edited is None else edited) * (1 + SLIGHTLY)

            return act

        if not on["now"]:
            return hooks.hooked(forward, backward)
        (last,) = [name for name in hooks.names() if name == "ln_final.hook_normalized"]
        return hooks.hooked({**forward, last: slightly(forward.get(last))}, backward)

    return replacing(switched=switched, hooked=hooked)(subject, hooks)


def _written_into() -> Mutation:
    """What was shown at the MLP's output is added to in place, once the block goes on."""
    shown: list[Tensor] = []

    def remember(edit: Edit) -> Edit:
        def act(value: Tensor) -> Tensor:
            handed_on = value.clone()
            edited = edit(value)
            shown.append(value)
            return handed_on if edited is None else edited

        return act

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        with torch.no_grad():
            for value in shown:
                value.detach().add_(1)
        shown.clear()
        return output

    return replace(altered(forward=at("hook_mlp_out", remember)), forward=forward)


def _drifting() -> Mutation:
    calls = {"n": 0}

    def forward(subject: Subject, inputs: Inputs) -> Output:
        calls["n"] += 1
        return subject.forward(inputs)

    def show(value: Tensor) -> Tensor:
        return value * (1 + SLIGHTLY * calls["n"])

    return replace(altered(forward=at("attn.hook_z", shown_as(show))), forward=forward)


def _never_removed(hooked: Callable[..., Any], forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Any:
    return kept_open(hooked(forward, backward))


def _all_removed() -> Mutation:
    """Leaving any context removes every hook that there is."""
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


def _left_by_exceptions(right: Callable[..., Any], forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Any:
    """Removed at the end, which an exception does not come to."""
    return kept_open(right(forward, backward), only_after_exceptions=True)


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


def _transposed(value: Tensor) -> Tensor:
    return value.transpose(1, 2)


def _shows(end: str, change: Callable[[Tensor], Tensor]) -> Mutation:
    return altered(forward=at(end, shown_as(change)))


def _nowhere(end: str) -> Callable[[str], str | None]:
    return lambda name: None if name.endswith(end) else name


def _last_edit_only() -> Mutation:
    """Of the edits at a point only that of the innermost context acts."""
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


@contextlib.contextmanager
def _backward_stays(
    hooked: Callable[..., Any], forward: Mapping[str, Edit], backward: Mapping[str, Edit]
) -> Iterator[None]:
    with kept_open(hooked({}, backward)), hooked(forward, {}):
        yield


def _writes_into_what_was_given() -> Mutation:
    """What a hook gave back is used as the place for a sum."""
    given: list[Tensor] = []

    def keeping(edit: Edit) -> Edit:
        def act(value: Tensor) -> Tensor | None:
            edited = edit(value)
            if edited is not None:
                given.append(edited)
            return edited

        return act

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        with torch.no_grad():
            for one in given:
                one.add_(1)
        given.clear()
        return output

    return replace(altered(forward=at("hook_mlp_out", keeping)), forward=forward)


@fault("hooks.nested")
def hook_innermost_only() -> Plant:
    """Of the edits at a point only that of the innermost context acts."""
    return in_adapter(lambda _model: _last_edit_only())


@fault("hooks.removed")
def backward_hook_outlives() -> Plant:
    """A hook of gradients stays after it was removed."""
    return in_adapter(altered(hooked=_backward_stays))


@fault("hooks.given_back")
def given_back_and_written_into() -> Plant:
    """The tensor that a hook gave back is added to in place afterwards."""
    return in_adapter(lambda _model: _writes_into_what_was_given())


@fault("hooks.present")
def hook_missing() -> Plant:
    """The last layer has no hook_z."""
    return in_adapter(altered(names=_forgotten))


@fault("hooks.absent")
def hook_that_cannot_be() -> Plant:
    """A canonical point is offered that the model does not have, as another name of one that it has."""
    return _too_many


@fault("hooks.fires")
def hook_silent() -> Plant:
    """A hook at mlp.hook_post is taken and never fires."""
    return in_adapter(altered(target=_nowhere("mlp.hook_post")))


@fault("hooks.fires", "intervene.add")
def hook_twice() -> Plant:
    """A hook at hook_resid_post is called twice."""
    return in_adapter(altered(forward=at("hook_resid_post", _once_more)))


@fault("hooks.order", "intervene.replace")
def hook_late() -> Plant:
    """A block's input is shown when the block is done."""
    return in_adapter(lambda _model: _read_late())


@fault("hooks.axes")
def hook_axes_exchanged() -> Plant:
    """The pattern is shown with heads and queries exchanged."""
    return in_adapter(_shows("attn.hook_pattern", _transposed))


@fault("hooks.axes")
def hook_heads_flat() -> Plant:
    """Hook_z is shown with its heads beside each other."""
    return in_adapter(_shows("attn.hook_z", lambda value: value.flatten(2)))


@fault("hooks.values")
def q_after_rotary() -> Plant:
    """Hook_q is after rotary."""
    return in_adapter(_rotated)


@fault("hooks.values")
def one_hook_heads_permuted() -> Plant:
    """The heads of hook_z come in another order, and in no other hook."""
    return in_adapter(_shows("attn.hook_z", lambda value: value.roll(1, 2)))


@fault("hooks.values")
def scale_inverted() -> Plant:
    """Hook_scale is what a norm multiplies by."""
    return in_adapter(_shows("hook_scale", lambda value: 1 / value))


@fault("hooks.values")
def scores_unscaled() -> Plant:
    """The scores are shown before they are scaled."""
    return in_adapter(_shows("attn.hook_attn_scores", lambda value: value * 2))


@fault("hooks.values")
def keys_shifted_by_padding() -> Plant:
    """With padding, and only then, hook_k is a position late."""
    return in_adapter(lambda _model: _only_padded())


@fault("hooks.identity")
def hook_rounds() -> Plant:
    """What passes a hook goes through float32."""
    return in_adapter(altered(forward=at("hook_resid_pre", _given_back_rounded)))


@fault("hooks.switches")
def switch_changes_it() -> Plant:
    """Turning a gated point on scales the logits slightly."""
    return in_adapter(Mutation(parts={"hooks": _switch_changes}))


@fault("hooks.switches")
def switch_stays_on() -> Plant:
    """What turns gated points on never turns them off."""
    return in_adapter(
        Mutation(parts={"hooks": replacing(switched=lambda hooks, names: kept_open(hooks.switched(names)))})
    )


@fault("hooks.kept")
def shown_and_written_into() -> Plant:
    """What a hook saw of the MLP's output is added to in place afterwards."""
    return in_adapter(lambda _model: _written_into())


@fault("hooks.twice")
def hook_drifts() -> Plant:
    """Hook_z is right only the first time."""
    return in_adapter(lambda _model: _drifting())


@fault("hooks.removed")
def hook_never_removed() -> Plant:
    """Hooks stay after they were removed."""
    return in_adapter(altered(hooked=_never_removed))


@fault("hooks.removed")
def hooks_all_removed() -> Plant:
    """Removing hooks removes those of others too."""
    return in_adapter(lambda _model: _all_removed())


@fault("hooks.exception")
def hook_left_by_exception() -> Plant:
    """An exception inside a hook leaves the hooks attached."""
    return in_adapter(altered(hooked=_left_by_exceptions))


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
