"""Call one side in a circumstance: its gradient mode, its cache, its labels, and the backward that belongs to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from verifier.adapter import Output
from verifier.cases.circumstances import DIFFERENTIATING, Circumstance
from verifier.observing.circumstances.sides import Hooks, Side
from verifier.observing.circumstances.texts import Texts
from verifier.reference.process_state import random_states

Contexts = Sequence[tuple[Hooks, Hooks]]
"""Hooks of activations and of gradients, one pair for each nested context, the outer one first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """What a call gave.

    Attributes:
        output: of the forward.
        objective: the scalar that is differentiated: the loss, or without labels a random weighting of the logits.
        embeds: the embeddings that were given, a leaf of the graph; None where tokens were given.
        drew: whether random numbers were drawn or seeded.
        collected: by point, the activations that were collected.
    """

    output: Output
    objective: Tensor
    embeds: Tensor | None
    drew: bool
    collected: Mapping[str, Tensor] = field(default_factory=dict)

    def backward(self, *, retain_graph: bool = False) -> None:
        """Differentiate the objective, as torch advises outside of autocast.

        Args:
            retain_graph: whether it can be differentiated again.
        """
        with torch.autocast("cpu", enabled=False):
            self.objective.backward(retain_graph=retain_graph)

    @property
    def logits(self) -> Tensor:
        """A copy of the logits, `[batch, pos, d_vocab]`."""
        return self.output.logits.detach().clone()

    @property
    def loss(self) -> Tensor | None:
        """A copy of the loss; None without labels."""
        return None if self.output.loss is None else self.output.loss.detach().clone()


class Calls:
    """Calls of one side in one circumstance; each starts from the same random state.

    Args:
        side: whose model is called.
        circumstance: a value for each axis.
        texts: what the model is given.
        seed: of the random state, for dropouts.

    Attributes:
        wrote_embeds: whether a call wrote into the embeddings that it was given.
    """

    def __init__(self, side: Side, circumstance: Circumstance, texts: Texts, seed: int) -> None:
        self.side = side
        self.circumstance = circumstance
        self.texts = texts
        self._seed = seed
        self.wrote_embeds = False

    def in_rows(self, rows: int) -> Calls:
        """Give the calls of the same side with the same texts in so many rows.

        Args:
            rows: how many.
        """
        found = Calls(self.side, self.circumstance, self.texts.repeated(rows), self._seed)
        found.call_with_earlier_mask()
        return found

    def call_with_earlier_mask(self) -> None:
        """Call with the mask's tensor while it hides nothing, and write the right mask into it, if it is rewritten."""
        mask, before = self.texts.mask, self.texts.before
        if mask is None or before is None:
            return
        now = mask.clone()
        mask.copy_(before)
        embeds = self.embeds(requires_grad=False)
        with self.mode():
            cache = self.fill_cache(embeds)
            self.side.forward(self.inputs(embeds, cache))
        mask.copy_(now)

    @property
    def differentiates(self) -> bool:
        """Whether gradients belong to the circumstance."""
        return self.circumstance["grad"] in DIFFERENTIATING

    @contextlib.contextmanager
    def mode(self) -> Iterator[None]:
        """Be in the circumstance's gradient mode."""
        with contextlib.ExitStack() as entered:
            kind = self.circumstance["grad"]
            gradients = {"no_grad": torch.no_grad, "inference": torch.inference_mode}.get(kind, torch.enable_grad)
            entered.enter_context(gradients())
            if kind == "autocast":
                entered.enter_context(torch.autocast("cpu", torch.bfloat16))
            yield

    def reset(self) -> None:
        """Set the random state, so that both sides drop out the same."""
        torch.default_generator.manual_seed(self._seed)  # `torch.manual_seed` asks every backend, which takes longer
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(self._seed)

    def embeds(self, *, requires_grad: bool | None = None) -> Tensor | None:
        """Make the embeddings in the side's dtype, a leaf of the graph; None where tokens are given.

        Args:
            requires_grad: whether they require a gradient; where gradients belong to the circumstance if not given.
        """
        if self.texts.embeds is None:
            return None
        wanted = self.differentiates if requires_grad is None else requires_grad
        return self.texts.embeds.to(self.side.dtype, copy=True).requires_grad_(wanted)

    def fill_cache(self, embeds: Tensor | None, *, twice_differentiable: bool = False) -> Any:
        """Run the prompt, and give its cache; None where the circumstance has none.

        Args:
            embeds: as `embeds` made them.
            twice_differentiable: whether gradients through the cache are differentiated again.
        """
        texts = self.texts
        if not texts.prompt:
            return None
        run = self.side.twice_differentiable if twice_differentiable else self.side.forward
        mask = None if texts.mask is None else texts.mask[:, : texts.prompt]
        if not texts.cropped:
            given = texts.inputs(0, texts.prompt, mask=mask, embeds=embeds, use_cache=True)
            return run(given).cache
        # A longer text: the prompt with its first tokens once more at its end, which are cropped away.
        longer = _lengthened(texts)
        last, more = longer.prompt, longer.prompt - texts.prompt
        long_embeds = None if embeds is None else torch.cat([embeds[:, : texts.prompt], embeds[:, :more]], dim=1)
        cache = run(longer.inputs(0, last, mask=longer.mask, embeds=long_embeds, use_cache=True)).cache
        return self.side.crop(cache, texts.prompt)

    def inputs(self, embeds: Tensor | None, cache: Any, *, use_cache: bool | None = None) -> Any:
        """Make the inputs of the call that is looked at.

        Args:
            embeds: as `embeds` made them.
            cache: as `fill_cache` made it.
            use_cache: whether a cache is asked for; as the circumstance says if not given.
        """
        texts = self.texts
        asked = self.circumstance["past"] == "asked" if use_cache is None else use_cache
        return texts.inputs(
            texts.prompt,
            texts.length,
            mask=texts.mask,
            embeds=embeds,
            labels=texts.labels,
            cache=cache,
            use_cache=asked,
        )

    @contextlib.contextmanager
    def hooked(self, contexts: Contexts) -> Iterator[None]:
        """Enter contexts of hooks, the outer one first."""
        with contextlib.ExitStack() as entered:
            for forward, backward in contexts:
                entered.enter_context(self.side.hooked(forward, backward))
            yield

    def call(
        self,
        contexts: Contexts = (),
        *,
        left: Contexts = (),
        backward: Callable[[Called], None] | None = None,
        twice_differentiable: bool = False,
        collecting: Sequence[str] | None = None,
    ) -> Called:
        """Call the model under hooks, and differentiate where gradients belong to the circumstance.

        Args:
            contexts: of hooks.
            left: contexts inside those, which are left before the call.
            backward: differentiates, inside the contexts; one backward of the objective if not given.
            twice_differentiable: whether gradients are differentiated again.
            collecting: the points whose activations are collected, in the way that a side has for it.
        """
        self.reset()
        state = random_states()
        embeds = self.embeds()
        with self.mode():
            cache = self.fill_cache(embeds, twice_differentiable=twice_differentiable)
            with self.hooked(contexts):
                with self.hooked(left):
                    pass
                run = self.side.twice_differentiable if twice_differentiable else self.side.forward
                inputs = self.inputs(embeds, cache)
                collected: Mapping[str, Tensor] = {}
                if collecting is None:
                    output = run(inputs)
                else:
                    output, collected = self.side.run_with_cache(inputs, collecting)
                called = Called(
                    output=output,
                    objective=self._objective(output),
                    embeds=embeds,
                    drew=random_states() != state,
                    collected=collected,
                )
                # A hook that writes in place may have been shown the caller's own tensor.
                if embeds is not None and self.texts.embeds is not None and not contexts:
                    given = self.texts.embeds.to(embeds.dtype)
                    self.wrote_embeds = self.wrote_embeds or not torch.equal(embeds.detach(), given)
                if backward is not None:
                    backward(called)
                elif self.differentiates and called.objective.requires_grad:
                    called.backward()
        return called

    def _objective(self, output: Output) -> Tensor:
        if output.loss is not None and self.texts.labels is not None:
            return output.loss
        return (output.logits * self.texts.weighting.to(output.logits.dtype)).sum()

    def take_gradients(self, called: Called) -> dict[str, Tensor]:
        """Copy the gradients of the weights and of given embeddings by name, and clear them."""
        found = {name: one.detach().clone() for name, one in self.side.gradients().items()}
        if called.embeds is not None and called.embeds.grad is not None:
            found["inputs_embeds"] = called.embeds.grad.detach().clone()
        self.clear_gradients()
        return found

    def clear_gradients(self) -> None:
        """Clear the gradient of every parameter."""
        self.side.clear_gradients()


def _lengthened(texts: Texts) -> Texts:
    """Make the text of the prompt with its first tokens once more at its end, all of which are read."""
    prompt, more = texts.prompt, texts.cropped
    more = min(more, prompt)

    def longer(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else torch.cat([tensor[:, :prompt], tensor[:, :more]], dim=1)

    mask = longer(texts.mask)
    if mask is not None:
        mask[:, prompt:] = 1
    positions = longer(texts.positions)
    if positions is not None:
        positions[:, prompt:] = positions[:, prompt - 1 : prompt] + torch.arange(1, more + 1)
    ids = longer(texts.ids)
    assert ids is not None
    return replace(texts, prompt=prompt + more, ids=ids, mask=mask, positions=positions)
