"""Faults of building: adapters that wrap wrongly, refuse wrongly, or change what they must not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from verifier.adapter import Adapter, AdapterRefusal, Inputs, Output, Subject
from verifier.faults.mutants import Mutation, Plant, fault, in_adapter, in_forward, in_model, in_modules, in_wrap
from verifier.judging.outcome import NotApplicable

Modules = Mapping[str, nn.Module]


class _Anything(Subject):
    """Stands for a model that HF refuses, and answers all the same."""

    def forward(self, inputs: Inputs) -> Output:
        assert inputs.input_ids is not None
        return Output(logits=torch.zeros(*inputs.input_ids.shape, 2))

    def close(self) -> None: ...


@fault("build.adapter", raises=True, plant=in_wrap)
def wrap_raises(_adapter: Adapter, _model: nn.Module) -> Subject:
    """Wrapping raises."""
    raise KeyError("blocks")


@fault("build.adapter", plant=in_wrap)
def refuses_valid(_adapter: Adapter, _model: nn.Module) -> Subject:
    """A config that HF accepts is refused."""
    raise AdapterRefusal("not this one")


@fault("build.adapter", plant=in_wrap)
def no_subject(_adapter: Adapter, model: nn.Module) -> nn.Module:
    """Wrapping gives the model back."""
    return model


@fault("build.forward", raises=True, plant=in_forward)
def forward_raises(_subject: Subject, _inputs: Inputs) -> Output:
    """The wrapped model cannot run."""
    raise IndexError("head")


def _in_facts(change: Callable[[dict[str, object]], Mapping[str, object]]) -> Plant:
    return in_adapter(Mutation(parts={"facts": lambda _subject, facts: lambda: change(dict(facts()))}))


@fault("build.facts", plant=_in_facts)
def heads_of_keys_uncounted(told: dict[str, object]) -> Mapping[str, object]:
    """The model is said to have a key for each of its heads."""
    return told | {"n_key_value_heads": told["n_heads"]}


@fault("build.facts", plant=_in_facts)
def epsilon_told_by_heart(told: dict[str, object]) -> Mapping[str, object]:
    """The epsilon that is told is a usual one, and not the model's."""
    return told | {"eps": 1e-6}


@fault("build.facts", plant=_in_facts)
def fact_misnamed(told: dict[str, object]) -> Mapping[str, object]:
    """The width of a head is told by a name that nobody reads."""
    return {"d_head_": told["d_head"]}


@fault("build.refusal", plant=in_wrap)
def refuses_nothing(adapter: Adapter, model: nn.Module) -> Subject:
    """A model that HF refuses is wrapped, and gives activations."""
    try:
        return adapter.wrap(model)
    except AdapterRefusal:
        return _Anything()


@fault("build.surroundings", plant=in_adapter)
def class_patched(model: nn.Module) -> Mutation:
    """HF's class is patched, for every model in the process."""
    patched: Any = type(model)
    patched.patched_by_adapter = True

    def undo() -> None:
        if "patched_by_adapter" in vars(patched):
            del patched.patched_by_adapter

    return Mutation(close=undo)


@fault("build.changes", plant=in_model)
def forward_patched(model: nn.Module) -> None:
    """A forward is patched in silence."""
    forward = model.forward
    model.forward = lambda *args, **kwargs: forward(*args, **kwargs)


@fault("build.changes", plant=in_model)
def parameter_frozen(model: nn.Module) -> None:
    """A parameter no longer takes a gradient, in silence."""
    next(model.parameters()).requires_grad_(False)


@fault("build.changes", plant=in_model)
def evaluated(model: nn.Module) -> None:
    """A model that is being trained is put into evaluation mode, in silence."""
    model.eval()


@fault("build.changes", plant=in_model)
def thawed(model: nn.Module) -> None:
    """Frozen parameters take gradients again, in silence."""
    model.requires_grad_(True)


@fault("build.changes", plant=in_model)
def hook_left(model: nn.Module) -> None:
    """A module hook is left on HF's model, in silence."""
    model.register_forward_hook(lambda *_: None)


@fault("build.config", "build.changes", plant=in_model)
def config_edited(model: Any) -> None:
    """The caller's config is written into."""
    model.config.use_cache = not model.config.use_cache


@fault("build.close", raises=True)
def close_raises() -> Mutation:
    """A subject cannot be closed."""

    def close() -> None:
        raise RuntimeError("still in use")

    return Mutation(close=close)


@fault("build.parameters", plant=in_modules)
def parameters_unreachable(modules: Modules) -> Modules:
    """The final norm is in no component."""
    # Blocks hold everything in them; the norm is out of reach only if they are gone too.
    blocks = {name for name in modules if name.count(".") == 1 and name.startswith("blocks.")}
    return {name: module for name, module in modules.items() if name not in blocks | {"ln_final"}}


@fault("build.parameters", plant=in_modules)
def components_exchanged(modules: Modules) -> Modules:
    """The final norm is found under the name of the first block's."""
    one, other = "ln_final", "blocks.0.ln1"
    if not {one, other} <= modules.keys():
        raise NotApplicable(f"there is no {one} or no {other}")
    return {**modules, one: modules[other], other: modules[one]}


@fault("build.tied", plant=in_modules)
def untied(modules: Modules) -> Modules:
    """The unembedding is a copy of what HF ties to the embedding."""
    return {**modules, "unembed": copy.deepcopy(modules["unembed"])} if "unembed" in modules else modules
