"""Faults of circumstances: adapters that are right in a plain call, and wrong after, beside or inside something."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from verifier.adapter import Adapter, Components, Edit, Hooks, Inputs, Modes, Output, Subject
from verifier.faults.altered_hooks import (
    altered,
    at,
    in_edited,
    in_gradient_edits,
    in_shown,
    kept_open,
)
from verifier.faults.backward import with_gradient
from verifier.faults.mutants import (
    Mutation,
    fault,
    in_forward,
    in_method,
    in_values,
    in_wrap,
    noting_generation,
    with_methods,
)

Edits = Mapping[str, Edit]


@fault("forward.outputs", circumstances=[{"grad": "inference"}], raises=True, plant=in_forward)
def raises_in_inference_mode(subject: Subject, inputs: Inputs) -> Output:
    """Inside torch.inference_mode a forward raises."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError("Inference tensors cannot be saved for backward")
    return subject.forward(inputs)


@fault("hooks.graph", plant=in_shown("attn.hook_z"))
def shown_outside_the_graph(z: Tensor) -> Tensor:
    """What a hook at hook_z is shown is detached from the graph."""
    return z.detach()


@fault("hooks.collected")
def edits_dropped_while_collecting() -> Mutation:
    """While activations are collected, edits that are attached do not act."""
    collecting = False

    def run_with_cache(hooks: Any, inputs: Inputs, names: Set[str]) -> Any:
        nonlocal collecting
        collecting = True
        try:
            return hooks.run_with_cache(inputs, names)
        finally:
            collecting = False

    def hooked(hooks: Hooks, forward: Edits, backward: Edits) -> Any:
        def attached(edit: Edit) -> Edit:
            return lambda value: None if collecting else edit(value)

        return hooks.hooked({name: attached(edit) for name, edit in forward.items()}, backward)

    return with_methods("hooks", run_with_cache=run_with_cache, hooked=hooked)


@fault("hooks.collected", plant=in_method("hooks", "run_with_cache"))
def collected_in_half_precision(hooks: Any, inputs: Inputs, names: Set[str]) -> Any:
    """What is collected went through bfloat16."""
    output, collected = hooks.run_with_cache(inputs, names)
    return output, {name: value.bfloat16().to(value.dtype) for name, value in collected.items()}


@fault("hooks.gone", circumstances=[{"history": "raised"}], plant=in_method("hooks", "switched"))
def switch_left_on_by_exception(hooks: Hooks, names: Set[str]) -> Any:
    """After an exception a gated point stays turned on."""
    return kept_open(hooks.switched(names), only_after_exceptions=True)


@fault("hooks.misspelt", plant=in_method("hooks", "hooked"))
def misspelt_point_taken(hooks: Hooks, forward: Edits, backward: Edits) -> Any:
    """A hook at a point that there is not is dropped, and nobody is told."""

    def there(edits: Edits) -> Edits:
        return {name: edit for name, edit in edits.items() if name in hooks.names()}

    return hooks.hooked(there(forward), there(backward))


@fault("intervene.effects", circumstances=[{"grad": "grad", "dtype": "bfloat16"}], plant=in_edited(""))
def edit_dropped_in_bfloat16(value: Tensor, edited: Tensor) -> Tensor | None:
    """Edits are dropped in bfloat16."""
    return None if value.dtype == torch.bfloat16 else edited


@fault("intervene.layouts", circumstances=[{"grad": "grad", "dtype": "float16"}], plant=in_edited(""))
def edit_in_float32_dropped(value: Tensor, edited: Tensor) -> Tensor | None:
    """An edit that gives float32 to a half model is dropped."""
    return edited if edited.dtype == value.dtype else None


@fault("backward.repeated", plant=in_gradient_edits(""))
def second_backward_unhooked(edit: Edit) -> Edit:
    """Hooks of gradients are gone after the first backward."""
    ran: list[bool] = []

    def act(gradient: Tensor) -> Tensor | None:
        if ran:
            return None
        ran.append(True)
        return edit(gradient)

    return act


@fault("backward.behind_edits", plant=in_edited("hook_resid_pre"))
def gradient_of_an_edit_lost(_value: Tensor, edited: Tensor) -> Tensor:
    """What an edit at a block's input makes is detached from the graph."""
    return edited.detach().requires_grad_(edited.requires_grad)


@fault("backward.double", plant=in_values("hook_resid_post"))
def second_derivative_lost(value: Tensor) -> Tensor:
    """The gradient is right, and a constant where it is differentiated again."""
    return with_gradient(torch.Tensor.detach)(value)


@fault("cache.repeated", circumstances=[{"past": "chunk"}])
def cache_grows_under_its_first_continuation() -> Mutation:
    """A forward adds to the cache that it is given, so that a second one goes on from more."""
    grown: list[tuple[Any, Any]] = []  # a cache that was given, and what it holds since

    def forward(subject: Subject, inputs: Inputs) -> Output:
        now = next((after for given, after in reversed(grown) if given is inputs.cache), inputs.cache)
        output = subject.forward(replace(inputs, cache=now))
        if inputs.cache is not None and output.cache is not None:
            grown.append((inputs.cache, output.cache))
        return output

    return Mutation(forward=forward)


@fault("cache.generated_hooks", circumstances=[{"past": "generation"}])
def generation_unhooked() -> Mutation:
    """While the subject generates, no hook runs."""
    generates, cache = noting_generation()
    silent = altered(forward=at("", lambda edit: lambda value: None if generates() else edit(value)))
    return Mutation(parts={**silent.parts, "cache": cache})


@fault("component.current", plant=in_method("components", "run"))
@torch.no_grad()
def component_outside_the_graph(
    components: Components, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Tensor:
    """A component that is run alone records no gradients."""
    return components.run(name, args, kwargs)


@fault("state.random", plant=in_wrap)
def wrapping_draws(adapter: Adapter, model: Any) -> Any:
    """Wrapping a model draws a random number."""
    torch.rand(1)
    return adapter.wrap(model)


@fault("state.settings", plant=in_wrap)
def wrapping_sets_a_backend(adapter: Adapter, model: Any) -> Any:
    """Wrapping a model changes a setting of torch for the whole process."""
    # The other way round each time, so that no later mutant finds the setting as this one wants it.
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    return adapter.wrap(model)


@fault("state.modes", circumstances=[{}], plant=in_wrap)
def wrapping_freezes(adapter: Adapter, model: Any) -> Any:
    """Wrapping a model freezes its parameters."""
    subject = adapter.wrap(model)
    model.requires_grad_(False)
    return subject


@fault("state.released")
def newest_output_kept() -> Mutation:
    """The newest forward's output stays alive."""
    newest: list[Output] = []

    def forward(subject: Subject, inputs: Inputs) -> Output:
        newest[:] = [subject.forward(inputs)]
        return newest[0]

    return Mutation(forward=forward)


@fault("state.misuse", circumstances=[{"model": "loaded"}], plant=in_method("modes", "load_state_dict"))
def misnamed_state_loaded(modes: Modes, state: Mapping[str, Tensor]) -> None:
    """Entries of a state dict that have no place are left out, and nobody is told."""
    now = modes.state_dict()
    modes.load_state_dict({**now, **{name: one for name, one in state.items() if name in now}})
