"""Faults of the reference: wrong families and wrong Hugging Face models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from verifier.adapter import Adapter
from verifier.family import Config, Family
from verifier.faults.mutants import SLIGHTLY, Delegate, Plant, fault


class _Family(Delegate):
    """A right family whose models are changed after they are built."""

    def __init__(self, original: Family, change: Callable[[Any, str], Any]) -> None:
        super().__init__(original)
        self._change = change

    def build(self, config: Config, **how: Any) -> Any:
        model = self.original.build(config, **how)
        model.reference_attention = self.original.reference_attention
        return self._change(model, how["attention"])


def _in_models(change: Callable[[Any, str], Any]) -> Callable[[Family, Adapter], tuple[Family, Adapter]]:
    return lambda family, adapter: (_Family(family, change), adapter)


class _Refusing(Delegate):
    def __init__(self, original: Family, refusal: Callable[[Config], str | None]) -> None:
        super().__init__(original)
        self.refusal = refusal


def _change_output(when: Callable[[dict[str, Any]], bool]) -> Callable[[Any, str], Any]:
    """HF's logits are slightly larger when the call looks like that."""

    def change(model: Any, _attention: str) -> Any:
        def hook(_module: nn.Module, _args: Any, kwargs: dict[str, Any], output: Any) -> Any:
            if when(kwargs):
                output.logits = output.logits * (1 + SLIGHTLY)
            return output

        model.register_forward_hook(hook, with_kwargs=True)
        return model

    return change


def _other_path(model: Any, attention: str) -> Any:
    with torch.no_grad():
        if attention != model.reference_attention:
            for parameter in model.parameters():
                parameter.mul_(1 + SLIGHTLY)
    return model


def _has_past(kwargs: dict[str, Any]) -> bool:
    cache = kwargs.get("past_key_values")
    return cache is not None and cache.get_seq_length() > 0


def _writes_config(model: Any, _attention: str) -> Any:
    original: Any = type(model)

    class Writing(original):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            config.bos_token_id = 1 + (config.bos_token_id or 0)

    model.__class__ = Writing
    return model


def _unsteady(model: Any, _attention: str) -> Any:
    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        output.logits = output.logits * (1 + SLIGHTLY * torch.randn_like(output.logits))
        return output

    model.register_forward_hook(hook)
    return model


def _uniform(model: Any, _attention: str) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
    return model


class _MissingTap(Delegate):
    """A family whose taps never see one of the points that it declares."""

    def taps(self, model: Any, **how: Any) -> Any:
        names = [point.name for point in self.original.points(model.config.to_dict())]
        return self.original.taps(model, **{"names": names[:-1], **how})


class _TouchingTap(Delegate):
    """A family whose recomposition is slightly another function."""

    def taps(self, model: Any, **how: Any) -> Any:
        last = self.original.points(model.config.to_dict())[-1].name
        names = [point.name for point in self.original.points(model.config.to_dict())]
        return self.original.taps(
            model, names=how.get("names") or names, edits={last: lambda value: value * (1 + SLIGHTLY)}
        )


@fault("reference.acceptance")
def family_accepts_all() -> Plant:
    """The family says that HF accepts whatever it is given."""
    return lambda family, adapter: (_Refusing(family, lambda _config: None), adapter)


@fault("reference.acceptance")
def family_refuses_all() -> Plant:
    """The family says that HF refuses a config that it accepts."""
    return lambda family, adapter: (_Refusing(family, lambda _config: "no"), adapter)


@fault("reference.attention")
def eager_differs() -> Plant:
    """HF's other attention implementation computes another function."""
    return _in_models(_other_path)


@fault("reference.attentions_on_request")
def attentions_differ() -> Plant:
    """HF's logits change when attention patterns are asked for."""
    return _in_models(_change_output(lambda kwargs: bool(kwargs.get("output_attentions"))))


@fault("reference.cache")
def cache_differs() -> Plant:
    """HF's logits change when they are computed with a cache."""
    return _in_models(_change_output(_has_past))


@fault("reference.taps")
def tap_missing() -> Plant:
    """The family declares a point that its taps never see."""
    return lambda family, adapter: (_MissingTap(family), adapter)


@fault("reference.taps")
def tap_touches() -> Plant:
    """A recomputed activation is slightly off, and the model goes on with it."""
    return lambda family, adapter: (_TouchingTap(family), adapter)


@fault("reference.config")
def config_written() -> Plant:
    """Building a model writes into the caller's config."""
    return _in_models(_writes_config)


@fault("reference.seeds")
def weights_uniform() -> Plant:
    """Biases and norm weights are all one number, which hides swaps."""
    return _in_models(_uniform)


@fault("reference.noise")
def reference_unsteady() -> Plant:
    """The reference itself is noisy."""
    return _in_models(_unsteady)
