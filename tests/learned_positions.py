"""A family whose models learn a vector for each of few positions, and an adapter that is right for it.

It is GPT-2 without hook points: what its models are called with is looked at, and nothing inside them.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from tiny_models import CONFIGS, POSITIONS
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from verifier.adapter import Inputs, Output, Subject
from verifier.canonical import Point
from verifier.family import Config, QKVRows
from verifier.reference import models


class LearnedPositionsFamily:
    """GPT-2; `farthest` collects the farthest position of each call of every model that it built."""

    name = "learned-positions"
    architecture = "GPT2LMHeadModel"
    reference_attention = "eager"
    attentions: tuple[str, ...] = ("eager", "sdpa")

    def __init__(self, positions: int = POSITIONS, name: str = "n_positions") -> None:
        self._dims = {key: value for key, value in CONFIGS[self.architecture].items() if key != "n_positions"}
        self._dims |= {name: positions, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
        self._name = name
        self.farthest: list[int] = []

    def flags(self) -> Mapping[str, Sequence[Any]]:
        return {"scale_attn_weights": (True, False)}

    def dims(self) -> Config:
        return self._dims

    def corners(self) -> Mapping[str, Config]:
        return {"deeper": {"n_layer": 3}}

    def presets(self) -> Mapping[str, Config]:
        return {}

    def dropouts(self) -> Config:
        return {"resid_pdrop": 0.3}

    def refusal(self, config: Config) -> str | None:
        return None

    def longest_text(self, config: Config) -> int | None:
        found: int = config[self._name]
        return found

    def build(
        self,
        config: Config,
        *,
        dtype: torch.dtype,
        device: str,
        attention: str,
        seed: int,
        checkpoint: str | None = None,
    ) -> Any:
        options: dict[str, Any] = {"dtype": dtype, "device": device, "attention": attention}
        built: Any = models.build(GPT2LMHeadModel, GPT2Config, config, seed=seed, checkpoint=checkpoint, **options)

        def note(_module: Any, args: tuple[Tensor, ...]) -> None:
            self.farthest.append(int(args[0].max()))

        built.transformer.wpe.register_forward_pre_hook(note)
        return built

    def points(self, config: Config) -> Sequence[Point]:
        return []

    @contextlib.contextmanager
    def taps(self, model: nn.Module, *, names: Any = None, edits: Any = None) -> Iterator[Any]:
        yield Subject

    def qkv_rows(self, model: nn.Module, layer: int) -> QKVRows:
        raise NotImplementedError

    def components(self, model: nn.Module) -> Mapping[str, nn.Module]:
        return {}


class _Cache:
    def __init__(self, model: Any) -> None:
        self._model = model

    def generate(self, input_ids: Tensor, *, max_new_tokens: int, attention_mask: Tensor | None = None) -> Tensor:
        ids = input_ids.long()
        return models.greedy(self._model, ids, max_new_tokens=max_new_tokens, attention_mask=attention_mask)[0]

    def crop(self, cache: Any, length: int) -> Any:
        cache.crop(length - cache.get_seq_length())
        return cache


def _copied(cache: Any) -> Any:
    """A cache that a forward may add to; the tensors in it are replaced and not written into."""
    if cache is None:
        return None
    found = copy.copy(cache)
    found.layers = [copy.copy(layer) for layer in cache.layers]
    return found


class _Modes:
    def __init__(self, model: Any) -> None:
        self._model = model

    def train(self, mode: bool) -> None:
        self._model.train(mode)

    def to(self, *, dtype: torch.dtype | None = None, device: Any = None) -> None:
        self._model.to(device=device, dtype=dtype)

    def checkpointing(self, enabled: bool) -> None:
        getattr(self._model, f"activation_checkpointing_{'enable' if enabled else 'disable'}")()

    def copy(self) -> Subject:
        return WholeModel(copy.deepcopy(self._model))

    def state_dict(self) -> Mapping[str, Tensor]:
        return dict(self._model.state_dict())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._model.load_state_dict(state)


class WholeModel(Subject):
    """Hugging Face's model, which is called as it is."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.cache = _Cache(model)
        self.modes = _Modes(model)

    def forward(self, inputs: Inputs) -> Output:
        return models.forward(self.model, replace(inputs, cache=_copied(inputs.cache)))

    def close(self) -> None:
        pass


class WholeModelAdapter:
    """Wraps any model."""

    name, version = "whole-model", "1"

    def wrap(self, model: nn.Module) -> Subject:
        return WholeModel(model)
