"""The bridge: it runs a Hugging Face model by its own forward, with a hook point at every activation.

The bridge holds the model's own modules by reference and changes nothing in the model: no module is replaced, no
forward patched, no config edited, no parameter written to. Parameters are shared, so training one trains the other;
`to`, `train` and `load_state_dict` on the bridge reach the model as well.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from verifier_bridge import generation, masks, processing
from verifier_bridge.block import BridgedBlock
from verifier_bridge.components import BridgedEmbedding, BridgedNorm, BridgedRotaryEmbedding, BridgedUnembedding
from verifier_bridge.errors import BridgeError, BridgeRefusal, HookError, InputError, unknown_name
from verifier_bridge.hook_point import Edit, Handle, HookPoint
from verifier_bridge.kv_cache import KeyValueCache, LayerSlot
from verifier_bridge.registry import describe
from verifier_bridge.replay import checkpointed
from verifier_bridge.weights import WeightMap

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from verifier_bridge.architecture import BlockSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeOutput:
    """The result of a forward: logits `[batch, pos, d_vocab]`, the loss if labels are given, the cache if asked for."""

    logits: Tensor
    loss: Tensor | None = None
    cache: KeyValueCache | None = None


class Bridge(nn.Module):
    """A bridged model, with hook points by name in `hook_points` and parts by canonical name in `components()`."""

    _model: Any

    def __init__(self, model: nn.Module) -> None:
        """Bridge a model.

        Raises:
            BridgeRefusal: it is of an unknown architecture, or cannot be run.
        """
        super().__init__()
        self.architecture = describe(model)
        # Not registered as a part: each of its modules that has parameters is in the tree once, in its component.
        object.__setattr__(self, "_model", model)
        self.training = model.training
        self.gradient_checkpointing = False

        def part(name: str) -> nn.Module:
            return self.architecture.module(model, name)

        self.embed = BridgedEmbedding(part("embed"))
        self.hook_embed = HookPoint()
        self.rotary_emb = BridgedRotaryEmbedding(part("rotary_emb")) if self.architecture.has("rotary_emb") else None
        spec = self.architecture.block
        self.blocks = nn.ModuleList(
            BridgedBlock(model, self.architecture, spec, layer)
            for layer in range(self.architecture.n_layers)
            if spec is not None
        )
        self.ln_final = BridgedNorm(part("ln_final"))
        self.unembed = BridgedUnembedding(part("unembed"))
        self.hook_points: Mapping[str, HookPoint] = {
            name: module for name, module in self.named_modules() if isinstance(module, HookPoint)
        }
        for name, point in self.hook_points.items():
            point.name = name
        self._check_complete()

    def _check_complete(self) -> None:
        mine = {id(tensor) for module in self.modules() for tensor in _owned(module)}
        theirs = {id(tensor) for module in self._model.modules() for tensor in _owned(module)}
        if theirs <= mine:
            return
        for name, tensor in (*self._model.named_parameters(), *self._model.named_buffers()):
            if id(tensor) not in mine:
                raise BridgeRefusal(f"{name} is no part of any component that the bridge knows")

    @property
    def model(self) -> nn.Module:
        """The Hugging Face model that it was made of."""
        model: nn.Module = self._model
        return model

    # Running

    def forward(
        self,
        input_ids: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        cache: KeyValueCache | None = None,
        use_cache: bool = False,
        last_logits_only: bool = False,
    ) -> BridgeOutput:
        """Run the model.

        Args:
            input_ids: `[batch, pos]`; exactly one of this and `inputs_embeds`.
            inputs_embeds: `[batch, pos, d_model]`.
            attention_mask: `[batch, past + pos]`, 1 for a token and 0 for padding; or `[batch, 1 or head, pos, past +
                pos]`, which is added to the scores in the place of every other mask.
            position_ids: `[batch, pos]` or `[1, pos]`; counted on from the cache if not given.
            labels: `[batch, pos]`, -100 where there is no loss; shifted here.
            cache: of an earlier forward, whose positions come before these; it is left as it is.
            use_cache: whether to give back a cache.
            last_logits_only: compute the logits of the last position alone, `[batch, 1, d_vocab]`.

        Raises:
            InputError: what is given does not fit together.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("give exactly one of input_ids and inputs_embeds")
        if cache is not None and not isinstance(cache, KeyValueCache):
            raise InputError(f"cache is a {type(cache).__name__}; give the cache of an earlier output of the bridge")
        hidden = self.hook_embed(self.embed(input_ids) if inputs_embeds is None else inputs_embeds)
        batch, positions, _ = hidden.shape
        past = 0 if cache is None else cache.length
        self._check_inputs(batch, past, positions, attention_mask, cache)
        if position_ids is None:
            position_ids = (torch.arange(positions, device=hidden.device) + past).unsqueeze(0)
        slots = self._slots(cache, use_cache)
        hidden = self._through_blocks(hidden, slots, attention_mask, position_ids, past)
        hidden = self.ln_final(hidden)
        logits = self.unembed(hidden[:, -1:] if last_logits_only else hidden)
        loss = None
        if labels is not None:
            loss = self._model.loss_function(logits, labels, vocab_size=self._model.config.vocab_size)
        kept = tuple(slot.now for slot in slots if slot is not None and slot.now is not None)
        new_cache = KeyValueCache(length=past + positions, layers=kept) if use_cache else None
        return BridgeOutput(logits=logits, loss=loss, cache=new_cache)

    def _check_inputs(
        self, batch: int, past: int, positions: int, mask: Tensor | None, cache: KeyValueCache | None
    ) -> None:
        if cache is not None and len(cache.layers) != len(self.blocks):
            raise InputError(f"cache has {len(cache.layers)} layers, the model {len(self.blocks)}")
        if mask is not None and mask.ndim == 4:
            if self.architecture.block is not None and self.architecture.block.alibi is not None:
                raise InputError("with ALiBi, attention_mask must be [batch, past + pos]: the bias counts its tokens")
        elif mask is not None and mask.shape != (batch, past + positions):
            raise InputError(
                f"attention_mask has shape {list(mask.shape)}; "
                f"it must be [batch, past + pos] = {[batch, past + positions]}"
            )

    def _slots(self, cache: KeyValueCache | None, use_cache: bool) -> list[LayerSlot | None]:
        if cache is not None:
            return [LayerSlot(layer) for layer in cache.layers]
        return [LayerSlot() if use_cache else None for _ in self.blocks]

    def _through_blocks(
        self,
        hidden: Tensor,
        slots: list[LayerSlot | None],
        attention_mask: Tensor | None,
        position_ids: Tensor,
        past: int,
    ) -> Tensor:
        spec = self.architecture.block
        if spec is None:
            return hidden
        mask = self._mask(spec, hidden, attention_mask, past)
        rotary = None if spec.rotate is None else self._rotary(hidden, position_ids)
        for block, slot in zip(self.blocks, slots, strict=True):

            def run(x: Tensor, block: nn.Module = block, slot: LayerSlot | None = slot) -> Tensor:
                out: Tensor = block(x, attention_mask=mask, layer_past=slot, position_embeddings=rotary)
                return out

            checkpoints = self.gradient_checkpointing and torch.is_grad_enabled()
            hidden = checkpointed(run, hidden) if checkpoints else run(hidden)
        return hidden

    def _mask(self, spec: BlockSpec, hidden: Tensor, attention_mask: Tensor | None, past: int) -> Tensor:
        """Make the mask that the attentions take: booleans, or with ALiBi what is added to the scores."""
        if attention_mask is not None and attention_mask.ndim == 4:
            return attention_mask
        allowed = masks.readable(
            attention_mask,
            batch=hidden.shape[0],
            queries=hidden.shape[1],
            past=past,
            causal=self.architecture.causal,
            device=hidden.device,
        )
        if spec.alibi is None:
            return allowed
        return masks.with_alibi(allowed, attention_mask, alibi=spec.alibi, layout=spec.layout, dtype=hidden.dtype)

    def _rotary(self, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        if self.rotary_emb is None:
            raise BridgeRefusal("the architecture rotates queries and keys but names no rotary_emb")
        cos, sin = self.rotary_emb(hidden, position_ids=position_ids)
        return cos, sin

    def generate(self, input_ids: Tensor, *, max_new_tokens: int, attention_mask: Tensor | None = None) -> Tensor:
        """Greedy continuation with the cache, never stopped early: `[batch, pos + max_new_tokens]`.

        Args:
            input_ids: `[batch, pos]`, the tokens to continue.
            max_new_tokens: the number of tokens to add to each row.
            attention_mask: `[batch, pos]`, 1 for a token and 0 for padding; None where nothing is padded.

        Raises:
            InputError: `max_new_tokens` is negative, or there is no token to continue.
        """
        return generation.greedy(self, input_ids, max_new_tokens=max_new_tokens, attention_mask=attention_mask)

    # Hooks

    def hook_point(self, name: str) -> HookPoint:
        """Find the hook point of that name.

        Raises:
            HookError: there is none; the message has the nearest right name.
        """
        if name not in self.hook_points:
            raise HookError(unknown_name("hook point", name, self.hook_points))
        return self.hook_points[name]

    def add_hook(self, name: str, edit: Edit, *, backward: bool = False) -> Handle:
        """Attach an edit to a value, or to the gradient with respect to it, until its handle is removed.

        Args:
            name: the hook point.
            edit: is called with a tensor; what it returns replaces that, None passes it on.
            backward: whether the edit is of the gradient instead of the value.

        Returns:
            The handle that removes the edit.

        Raises:
            HookError: there is no hook point of that name.
        """
        point = self.hook_point(name)
        return point.on_backward(edit) if backward else point.on_forward(edit)

    def reset_hooks(self) -> None:
        """Remove every edit."""
        for point in self.hook_points.values():
            point.clear()

    @contextmanager
    def hooked(
        self, forward: Mapping[str, Edit] | None = None, backward: Mapping[str, Edit] | None = None
    ) -> Iterator[None]:
        """Attach edits by the names of their points until the context is left, also if an exception leaves it.

        Args:
            forward: edits of values, by hook point name.
            backward: edits of gradients with respect to values, by hook point name.

        Raises:
            HookError: there is no hook point of one of the names; then nothing is attached.
        """
        for name in (*(forward or {}), *(backward or {})):
            self.hook_point(name)
        with ExitStack() as stack:
            for name, edit in (forward or {}).items():
                stack.callback(self.add_hook(name, edit).remove)
            for name, edit in (backward or {}).items():
                stack.callback(self.add_hook(name, edit, backward=True).remove)
            yield

    @property
    def use_attn_result(self) -> bool:
        """Whether every `attn.hook_result` is passed; it costs a `[batch, pos, head, d_model]` in each layer."""
        return all(point.on for point in self.hook_points.values())

    @use_attn_result.setter
    def use_attn_result(self, on: bool) -> None:
        """Turn every `attn.hook_result` on or off; points that are not gated stay on."""
        for point in self.hook_points.values():
            point.on = on or point.switch is None

    @contextmanager
    def switched(self, names: Iterable[str]) -> Iterator[None]:
        """Turn on those of these hook points that are gated; when the context is left, they are as they were before."""
        before = {point: point.on for point in map(self.hook_point, names)}
        try:
            for point in before:
                point.on = True
            yield
        finally:
            for point, on in before.items():
                point.on = on

    def run_with_cache(
        self, *args: Any, names: Iterable[str] | Callable[[str], bool] | None = None, **kwargs: Any
    ) -> tuple[BridgeOutput, dict[str, Tensor]]:
        """Run a forward, and keep the detached activations at the named points, or at all points that are on."""
        if names is None:
            chosen = [name for name, point in self.hook_points.items() if point.on]
        elif callable(names):
            chosen = [name for name, point in self.hook_points.items() if point.on and names(name)]
        else:
            chosen = list(names)
        activations: dict[str, Tensor] = {}

        def keep(name: str) -> Edit:
            return lambda value: activations.__setitem__(name, value.detach())

        with self.hooked({name: keep(name) for name in chosen}):
            output: BridgeOutput = self(*args, **kwargs)
        return output, activations

    # Parts and parameters

    def components(self) -> dict[str, nn.Module]:
        """Give the bridged parts by canonical name; each can be run alone."""
        return {name: self.get_submodule(name) for name in self._component_names()}

    def component(self, name: str) -> nn.Module:
        """Find the bridged part of that canonical name.

        Raises:
            BridgeError: there is none; the message has the nearest right name.
        """
        names = self._component_names()
        if name not in names:
            raise BridgeError(unknown_name("component", name, names))
        return self.get_submodule(name)

    def _component_names(self) -> list[str]:
        names = [name for name, _ in self.architecture.components()]
        return names + [f"blocks.{layer}.attn.{part}" for layer in range(len(self.blocks)) for part in ("q", "k", "v")]

    def weight_map(self) -> WeightMap:
        """Make the map between the model's parameters and canonical ones."""
        return WeightMap(self.architecture, self._model.state_dict())

    def canonical_weights(self) -> dict[str, Tensor]:
        """Copy the parameters by canonical name: `blocks.0.attn.W_Q [head, d_model, d_head]`."""
        return self.weight_map().to_canonical(self._model.state_dict())

    def canonical_gradients(self) -> dict[str, Tensor]:
        """Copy the gradients of the parameters that have one; a tied parameter's stands under both of its names."""
        named = self._model.named_parameters(remove_duplicate=False)
        return self.weight_map().to_canonical({name: one.grad for name, one in named if one.grad is not None})

    def processings(self) -> dict[str, processing.Processing]:
        """List what can be done to this model's weights without changing what it computes, by name."""
        return processing.available(self)

    def processed(self, names: Collection[str]) -> Bridge:
        """Make a bridge of a copy of the model with all of these processings applied; this bridge does not change.

        Raises:
            BridgeError: there is no processing of that name, or it cannot be applied; the message says why.
        """
        return Bridge(processing.processed(self, names))

    # A torch module's own, which must reach the model's containers too

    def train(self, mode: bool = True) -> Self:
        """Training mode (dropouts act) or evaluation mode, of the bridge and of the model."""
        self._model.train(mode)
        return super().train(mode)


def _owned(module: nn.Module) -> Iterator[Tensor]:
    """Give the parameters and buffers of a module itself, without those of its submodules."""
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None:
            yield tensor
