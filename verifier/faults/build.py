"""Faults of building: adapters that wrap wrongly, refuse wrongly, or change what they must not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from verifier.adapter import Adapter, AdapterRefusal, Inputs, Output, Subject
from verifier.family import Family
from verifier.faults.mutants import Delegate, Mutation, Plant, fault, in_adapter, in_model
from verifier.judging.outcome import NotApplicable


class _Wrapping(Delegate):
    """An adapter whose `wrap` is another function of the right adapter and the model."""

    def __init__(self, original: Adapter, wrap: Callable[[Adapter, nn.Module], Any]) -> None:
        super().__init__(original)
        self.name, self.version = original.name, original.version
        self._wrap = wrap

    def wrap(self, model: nn.Module) -> Any:
        return self._wrap(self.original, model)


def _in_wrap(wrap: Callable[[Adapter, nn.Module], Any]) -> Callable[[Family, Adapter], tuple[Family, Adapter]]:
    return lambda family, adapter: (family, _Wrapping(adapter, wrap))


def _raise(error: Exception) -> Any:
    raise error


class _Anything(Subject):
    """Stands for a model that HF refuses, and answers all the same."""

    def forward(self, inputs: Inputs) -> Output:
        assert inputs.input_ids is not None
        return Output(logits=torch.zeros(*inputs.input_ids.shape, 2))

    def close(self) -> None: ...


def _accepts_anything(adapter: Adapter, model: nn.Module) -> Any:
    try:
        return adapter.wrap(model)
    except AdapterRefusal:
        return _Anything()


def _without(part: str) -> Callable[[Mapping[str, nn.Module]], Mapping[str, nn.Module]]:
    def change(modules: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
        # Blocks hold everything in them; the part is out of reach only if they are gone too.
        return {name: module for name, module in modules.items() if name != part and not _is_block(name)}

    return change


def _exchanged(one: str, other: str) -> Callable[[Mapping[str, nn.Module]], Mapping[str, nn.Module]]:
    def change(modules: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
        if not {one, other} <= modules.keys():
            raise NotApplicable(f"there is no {one} or no {other}")
        return {**modules, one: modules[other], other: modules[one]}

    return change


def _is_block(name: str) -> bool:
    return name.count(".") == 1 and name.startswith("blocks.")


def _copied_unembedding(modules: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
    return {**modules, "unembed": copy.deepcopy(modules["unembed"])} if "unembed" in modules else modules


@fault("build.adapter", raises=True)
def wrap_raises() -> Plant:
    """Wrapping raises."""
    return _in_wrap(lambda _adapter, _model: _raise(KeyError("blocks")))


@fault("build.adapter")
def refuses_valid() -> Plant:
    """A config that HF accepts is refused."""
    return _in_wrap(lambda _adapter, _model: _raise(AdapterRefusal("not this one")))


@fault("build.adapter")
def no_subject() -> Plant:
    """Wrapping gives the model back."""
    return _in_wrap(lambda _adapter, model: model)


@fault("build.forward", raises=True)
def forward_raises() -> Plant:
    """The wrapped model cannot run."""
    return in_adapter(Mutation(forward=lambda _subject, _inputs: _raise(IndexError("head"))))


@fault("build.refusal")
def refuses_nothing() -> Plant:
    """A model that HF refuses is wrapped, and gives activations."""
    return _in_wrap(_accepts_anything)


@fault("build.surroundings", plant=in_adapter)
def class_patched(model: nn.Module) -> Mutation:
    """HF's class is patched, for every model in the process."""
    patched = type(model)
    patched.patched_by_adapter = True  # type: ignore[attr-defined]

    def undo() -> None:
        if "patched_by_adapter" in vars(patched):
            del patched.patched_by_adapter  # type: ignore[attr-defined]

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
    for parameter in model.parameters():
        parameter.requires_grad_(True)


@fault("build.changes", plant=in_model)
def hook_left(model: nn.Module) -> None:
    """A module hook is left on HF's model, in silence."""
    model.register_forward_hook(lambda *_: None)


@fault("build.config", "build.changes", plant=in_model)
def config_edited(model: nn.Module) -> None:
    """The caller's config is written into."""
    model.config.use_cache = not model.config.use_cache  # type: ignore[union-attr]


@fault("build.close", raises=True)
def close_raises() -> Plant:
    """A subject cannot be closed."""
    return in_adapter(Mutation(close=lambda: _raise(RuntimeError("still in use"))))


@fault("build.parameters")
def parameters_unreachable() -> Plant:
    """The final norm is in no component."""
    return in_adapter(Mutation(modules=_without("ln_final")))


@fault("build.parameters")
def components_exchanged() -> Plant:
    """The final norm is found under the name of the first block's."""
    return in_adapter(Mutation(modules=_exchanged("ln_final", "blocks.0.ln1")))


@fault("build.tied")
def untied() -> Plant:
    """The unembedding is a copy of what HF ties to the embedding."""
    return in_adapter(Mutation(modules=_copied_unembedding))
