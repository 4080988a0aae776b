"""Faults of the reference: wrong families and wrong Hugging Face models."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from verifier.family import Config, Family
from verifier.faults.mutants import SLIGHTLY, Plant, fault, replaced


def _in_family(method: str) -> Callable[[Callable[..., Any]], Plant]:
    """Plant a method of a family: the function gets the right family, and the method's arguments."""
    return lambda wrong: lambda family, adapter: (replaced(family, **{method: wrong}), adapter)


def _in_models(change: Callable[[Any], None]) -> Plant:
    """Plant a change of the models that a family builds."""

    def build(family: Family, config: Config, **how: Any) -> Any:
        model = family.build(config, **how)
        change(model)
        return model

    return _in_family("build")(build)


def _in_logits(change: Callable[[Mapping[str, Any], Tensor], Tensor]) -> Plant:
    """Plant a change of what HF's models give: the function gets a call's arguments by name, and the logits."""

    def hook(_module: nn.Module, _args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        output.logits = change(kwargs, output.logits)
        return output

    return _in_models(lambda model: model.register_forward_hook(hook, with_kwargs=True))


@fault("reference.acceptance", plant=_in_family("refusal"))
def family_accepts_all(_family: Family, _config: Config) -> str | None:
    """The family says that HF accepts whatever it is given."""
    return None


@fault("reference.acceptance", plant=_in_family("refusal"))
def family_refuses_all(_family: Family, _config: Config) -> str | None:
    """The family says that HF refuses a config that it accepts."""
    return "no"


@fault("reference.attention", plant=_in_family("build"))
@torch.no_grad()
def eager_differs(family: Family, config: Config, **how: Any) -> Any:
    """HF's other attention implementation computes another function."""
    model = family.build(config, **how)
    if how["attention"] != family.reference_attention:
        for parameter in model.parameters():
            parameter.mul_(1 + SLIGHTLY)
    return model


@fault("reference.attentions_on_request", plant=_in_logits)
def attentions_differ(arguments: Mapping[str, Any], logits: Tensor) -> Tensor:
    """HF's logits change when attention patterns are asked for."""
    return logits * (1 + SLIGHTLY) if arguments.get("output_attentions") else logits


@fault("reference.cache", plant=_in_logits)
def cache_differs(arguments: Mapping[str, Any], logits: Tensor) -> Tensor:
    """HF's logits change when they are computed with a cache."""
    cache = arguments.get("past_key_values")
    return logits * (1 + SLIGHTLY) if cache is not None and cache.get_seq_length() > 0 else logits


@fault("reference.taps", plant=_in_family("taps"))
def tap_missing(family: Family, model: Any, **how: Any) -> Any:
    """The family declares a point that its taps never see."""
    names = [point.name for point in family.points(model.config.to_dict())]
    return family.taps(model, **{"names": names[:-1], **how})


@fault("reference.taps", plant=_in_family("taps"))
def tap_touches(family: Family, model: Any, **how: Any) -> Any:
    """A recomputed activation is slightly off, and the model goes on with it."""
    names = [point.name for point in family.points(model.config.to_dict())]
    edits = {names[-1]: lambda value: value * (1 + SLIGHTLY)}
    return family.taps(model, names=how.get("names") or names, edits=edits)


class _HalfTaps:
    """What taps show, and half of what the MLP adds."""

    def __init__(self, taps: Any) -> None:
        self._taps = taps

    @property
    def values(self) -> dict[str, Tensor]:
        return {
            name: value / 2 if name.endswith("hook_mlp_out") else value for name, value in self._taps.values.items()
        }


@fault("reference.taps", plant=_in_family("taps"))
@contextlib.contextmanager
def tap_shows_less(family: Family, model: Any, **how: Any) -> Iterator[Any]:
    """The taps show half of what the MLP adds to the stream: a multiplier is forgotten."""
    with family.taps(model, **how) as taps:
        yield _HalfTaps(taps)


@fault("reference.config", plant=_in_models)
def config_written(model: Any) -> None:
    """Building a model writes into the caller's config."""
    original: Any = type(model)

    class Writing(original):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            config.bos_token_id = 1 + (config.bos_token_id or 0)

    model.__class__ = Writing


@fault("reference.seeds", plant=_in_models)
@torch.no_grad()
def weights_uniform(model: nn.Module) -> None:
    """Biases and norm weights are all one number, which hides swaps."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0)


@fault("reference.noise", plant=_in_logits)
def reference_unsteady(_arguments: Mapping[str, Any], logits: Tensor) -> Tensor:
    """The reference itself is noisy."""
    return logits * (1 + SLIGHTLY * torch.randn_like(logits))
