"""Right adapters that are Hugging Face's own model: its forward alone, and its forward under torch's module hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import FalconForCausalLM

from verifier.adapter import AdapterRefusal, Edit, HookInfo, Inputs, Output, Subject

# Of each module in a block, the point at its input and the one at its output.
_PLACES = {
    "": (None, "hook_resid_post"),
    "self_attention": (None, "hook_attn_out"),
    "mlp.dense_h_to_4h": (None, "mlp.hook_pre"),
    "mlp.dense_4h_to_h": ("mlp.hook_post", None),
    "mlp": (None, "hook_mlp_out"),
}


class ForwardAlone(Subject):
    """Hugging Face's model, which can be called and nothing else."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def forward(self, inputs: Inputs) -> Output:
        names = ("input_ids", "inputs_embeds", "attention_mask", "position_ids", "labels")
        result = self.model(**{name: getattr(inputs, name) for name in names if getattr(inputs, name) is not None})
        return Output(logits=result.logits, loss=result.loss)

    def close(self) -> None:
        self.model = None


class ModuleHooks:
    """Reads and edits what goes into a module or comes out of it, by torch's hooks of modules."""

    def __init__(self, model: Any) -> None:
        self._places = {
            f"blocks.{layer}.{name}": (block.get_submodule(path), at_input)
            for layer, block in enumerate(model.transformer.h)
            for path, names in _PLACES.items()
            for name, at_input in zip(names, (True, False), strict=True)
            if name is not None
        }
        self._open: list[tuple[Mapping[str, Edit], Mapping[str, Edit]]] = []

    def names(self) -> Mapping[str, HookInfo]:
        return {name: HookInfo(native_name=name) for name in self._places}

    def points(self) -> Set[str]:
        return self._places.keys()

    def switched(self, names: Set[str]) -> Any:
        return nullcontext()

    @contextmanager
    def hooked(self, forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Iterator[None]:
        new = [name for name in {**forward, **backward} if not any(name in {**a, **b} for a, b in self._open)]
        handles = [self._register(name) for name in new]
        context = dict(forward), dict(backward)
        self._open.append(context)
        try:
            yield
        finally:
            self._open.remove(context)
            for one in context:
                one.clear()  # a backward after the context runs no edit
            for handle in handles:
                handle.remove()

    def _register(self, name: str) -> Any:
        module, at_input = self._places[name]

        def act(value: Tensor) -> Tensor:
            forwards = [edits[name] for edits, _ in self._open if name in edits]
            backwards = [edits for _, edits in self._open if name in edits]
            value = _in_turn(forwards, value.clone())
            if backwards and torch.is_grad_enabled():
                value = value.clone() if value.requires_grad else value.detach().clone().requires_grad_()
                value.register_hook(
                    lambda back: _in_turn([one[name] for one in backwards if name in one], back.clone())
                )
            # Falcon adds into what its MLP gives.
            return value.clone(memory_format=torch.contiguous_format)

        if at_input:
            return module.register_forward_pre_hook(lambda _module, args: (act(args[0]), *args[1:]))
        return module.register_forward_hook(
            lambda _module, _args, out: (act(out[0]), *out[1:]) if isinstance(out, tuple) else act(out)
        )


def _in_turn(edits: Sequence[Edit], value: Tensor) -> Tensor:
    for edit in edits:
        given = edit(value)
        value = value if given is None else given.to(value.dtype)
    return value


class Hooked(ForwardAlone):
    """Hugging Face's model with hooks at the modules of its blocks."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.hooks = ModuleHooks(model)


class HuggingFaceAdapter:
    """Wraps a model that Hugging Face can run in one of these subjects."""

    version = "1"

    def __init__(self, name: str, subject: Callable[[Any], Subject]) -> None:
        self.name = name
        self._subject = subject

    def wrap(self, model: nn.Module) -> Subject:
        if not isinstance(model, FalconForCausalLM):
            raise AdapterRefusal("only Falcon is known here")
        return self._subject(model)


FORWARD_ALONE = HuggingFaceAdapter("forward-alone", ForwardAlone)
MODULE_HOOKS = HuggingFaceAdapter("module-hooks", Hooked)
