"""Generated mutants: an effect is wrong exactly when the circumstance has a value, or two or three.

A mutant wraps a right adapter, senses its circumstance from what it is given (`sensing`), and has one effect: what a
call, a hook or a capability gives is twice as large. Whether all mutants of a family die is seen in one run of
its circumstances in which every trigger is armed: each time an effect acts the circumstance is noted, and a mutant is
dead once the row in which its trigger was met was called wrong for that effect.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from verifier.adapter import Adapter, Edit, Inputs, Output, RunsWithCache, Subject
from verifier.faults.mutants import Delegate
from verifier.faults.sensing import Life, Sensed, meets, sense
from verifier.reference.models import dtype_of

WRONG_BY = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a mutant gets wrong.

    Attributes:
        name: of the effect.
        kind: the name of the class of observables that it belongs to.
        seen_by: the observables of which one must be called wrong, `cache.generated at tokens` at that place.
        unseen: values in which it is not looked at, because what is right there is a convention.
    """

    name: str
    kind: str
    seen_by: frozenset[str]
    unseen: frozenset[tuple[str, str]] = frozenset()


def _effect(name: str, kind: str, *seen_by: str, unseen: Iterable[tuple[str, str]] = ()) -> Effect:
    return Effect(name=name, kind=kind, seen_by=frozenset(seen_by), unseen=frozenset(unseen))


EFFECTS: Mapping[str, Effect] = {
    one.name: one
    for one in (
        _effect("logits", "values", "forward.outputs", "forward.repeated"),
        _effect("loss", "loss", "forward.losses"),
        _effect("shown values", "values", "hooks.shown", "intervene.nested"),
        _effect("collected values", "edits", "hooks.collected", unseen=[("history", "nested")]),
        _effect("shown gradients", "gradients", "backward.shown", "backward.nested"),
        _effect(
            "gradients of weights",
            "parameter gradients",
            *("backward.weights", "backward.behind_edits", "backward.shown", "backward.double", "backward.repeated"),
            *("backward.nested", "backward.effects", "forward.repeated"),
        ),
        _effect(
            "edits",
            "edits",
            *("intervene.effects", "intervene.one_point", "intervene.layouts", "intervene.nested"),
        ),
        _effect("edits of gradients", "gradient edits", "backward.effects", "backward.nested"),
        _effect("generated tokens", "exact tokens", "cache.generated at tokens"),
    )
}
"""Every effect by its name."""


@dataclass(slots=True)
class Armed:
    """When the effects act, and when they did.

    Attributes:
        effect: the one effect that acts; every one if None.
        trigger: the values that the circumstance must have; any if empty.
        acted: by effect, the circumstance in which it acted last.
    """

    effect: str | None = None
    trigger: frozenset[tuple[str, str]] = frozenset()
    acted: dict[str, Sensed] = field(default_factory=dict)

    def acts(self, effect: str, sensed: Sensed) -> bool:
        """Whether an effect acts in a circumstance; notes that it does.

        Args:
            effect: its name.
            sensed: the circumstance.
        """
        if self.effect not in (None, effect) or not meets(sensed, self.trigger):
            return False
        self.acted[effect] = sensed
        return True


class GeneratedAdapter(Delegate):
    """A right adapter whose subjects are wrong where a trigger is met.

    Args:
        original: the right adapter.
        armed: says when the effects act.
        reference_attention: the attention implementation that is the reference.
    """

    def __init__(self, original: Adapter, armed: Armed, reference_attention: str) -> None:
        super().__init__(original)
        self.name = f"{original.name}, wrong in one circumstance"
        self.version = original.version
        self._armed = armed
        self._reference_attention = reference_attention

    def wrap(self, model: Any) -> Subject:
        """Wrap a model in a subject that is wrong where a trigger is met."""
        life = Life.of(model, self._reference_attention)
        return cast("Subject", GeneratedSubject(self.original.wrap(model), life, self._armed))


_RECENT: list[GeneratedSubject] = []
"""The subject that ran last, by which another one sees that it is used in turns with it."""


class GeneratedSubject(Delegate):
    """A right subject that is wrong where a trigger is met."""

    def __init__(self, original: Subject, life: Life, armed: Armed) -> None:
        super().__init__(original)
        self._life = life
        self._armed = armed
        self._editing = 0
        self._sensed: Sensed = {}
        self.hooks = _Hooks(original.hooks, self) if original.hooks is not None else None
        self.weights = _Weights(original.weights, self) if original.weights is not None else None
        self.cache = _Cache(original.cache, self) if original.cache is not None else None
        self.modes = _Modes(original.modes, self) if original.modes is not None else None

    def forward(self, inputs: Inputs) -> Output:
        """Run the right subject's forward, and make its logits and loss wrong where a trigger is met."""
        with self.running(lambda: sense(self._life, inputs)) as inner:
            output: Output = self.original.forward(inputs)
        sensed = self._sensed
        self._note(inputs, output, sensed)
        if inner:
            return output
        # What an edit does to the logits is an effect of its own. A nested call is always one under a hook.
        plain = not self._editing or "nested" in sensed["history"]
        if plain and self._armed.acts("logits", sensed):
            # Its value alone: gradients have an effect of their own.
            output = replace(output, logits=_larger_value(output.logits))
        if output.loss is not None and self._armed.acts("loss", sensed):
            output = replace(output, loss=_larger_value(output.loss))
        return output

    @contextlib.contextmanager
    def running(self, sensing: Callable[[], Sensed]) -> Iterator[bool]:
        """Sense the circumstance of a call and run it; says whether another call of the subject is running.

        Args:
            sensing: senses the circumstance.
        """
        life = self._life
        if _RECENT and _RECENT[-1] is not self and _differ(_RECENT[-1]._life.model, life.model):
            life.happened("interleaved")
        _RECENT[:] = [self]
        outer = self._sensed if life.running else None
        life.running += 1
        try:
            self._sensed = sensing()
            yield outer is not None
        finally:
            life.running -= 1
            if outer is not None:
                self._sensed = {**outer, "history": frozenset({"nested"})}

    def _note(self, inputs: Inputs, output: Output, sensed: Sensed) -> None:
        life, mask = self._life, inputs.attention_mask
        given = inputs.inputs_embeds if inputs.input_ids is None else inputs.input_ids
        assert given is not None
        if mask is not None:
            if all(one is not mask for one, _ in life.masks):
                life.masks.append((mask, mask.clone()))
            if mask.ndim == 2 and not bool(mask.all()):
                life.happened("masked", sensed)
        most = life.most()
        if most is not None and given.shape[1] > most:
            life.happened("longer", sensed)
        if torch.is_inference_mode_enabled():
            life.happened("inference", sensed)
        life.dropped = life.dropped or (life.training and life.drops())
        if output.cache is not None:
            _, before, _ = life.lengths.get(id(inputs.cache), (None, 0, False))
            life.lengths[id(output.cache)] = output.cache, before + given.shape[1], False
        if output.logits.requires_grad:
            output.logits.register_hook(lambda _gradient: life.happened("backward", sensed))

    def close(self) -> None:
        """Close the right subject."""
        _RECENT[:] = [one for one in _RECENT if one is not self]
        self.original.close()


def _larger_value(tensor: Tensor) -> Tensor:
    return tensor + (tensor * (WRONG_BY - 1)).detach()


def _differ(one: Any, other: Any) -> bool:
    """Whether two models have other flags."""
    ignored = {"num_hidden_layers", "dtype", "torch_dtype", "_name_or_path", "transformers_version"}
    first, second = one.config.to_dict(), other.config.to_dict()
    return any(first.get(name) != second.get(name) for name in first.keys() | second.keys() if name not in ignored)


class _Hooks(Delegate):
    """Hooks that are shown, or give back, something wrong where a trigger is met."""

    def __init__(self, original: Any, subject: GeneratedSubject) -> None:
        super().__init__(original)
        self._subject = subject
        if isinstance(original, RunsWithCache):
            self.run_with_cache = self._run_with_cache

    @contextlib.contextmanager
    def hooked(self, forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Iterator[None]:
        """Attach edits, each of which may be wrong."""
        subject = self._subject
        there = {name: self._wrong(edit, "shown values", "edits") for name, edit in forward.items()}
        back = {name: self._wrong(edit, "shown gradients", "edits of gradients") for name, edit in backward.items()}
        subject._editing += bool(forward or backward)
        try:
            with self.original.hooked(there, back):
                yield
        except Exception:
            subject._life.happened("raised")
            raise
        finally:
            subject._editing -= bool(forward or backward)

    def _run_with_cache(self, inputs: Inputs, names: Set[str]) -> tuple[Output, Mapping[str, Tensor]]:
        subject = self._subject
        with subject.running(lambda: sense(subject._life, inputs)):
            output, collected = self.original.run_with_cache(inputs, names)
        if subject._armed.acts("collected values", subject._sensed):
            return output, {name: one * WRONG_BY for name, one in collected.items()}
        return output, collected

    def _wrong(self, edit: Edit, reading: str, editing: str) -> Edit:
        subject = self._subject

        def act(value: Tensor) -> Tensor | None:
            sensed = subject._sensed
            given = edit(value * WRONG_BY if subject._armed.effect in (None, reading) else value)
            if given is None:
                subject._armed.acts(reading, sensed)
                return None
            if editing == "edits":
                subject._life.happened("edited", sensed)
            return given * WRONG_BY if subject._armed.acts(editing, sensed) else given

        return act


class _Weights(Delegate):
    """Weights whose gradients are wrong where a trigger is met."""

    def __init__(self, original: Any, subject: GeneratedSubject) -> None:
        super().__init__(original)
        self._subject = subject

    def gradients(self) -> Mapping[str, Tensor]:
        """Give the gradients, wrong where a trigger is met by the last call."""
        found: Mapping[str, Tensor] = self.original.gradients()
        if found and self._subject._armed.acts("gradients of weights", self._subject._sensed):
            return {name: one * WRONG_BY for name, one in found.items()}
        return found


class _Cache(Delegate):
    """A cache with which other tokens are generated where a trigger is met."""

    def __init__(self, original: Any, subject: GeneratedSubject) -> None:
        super().__init__(original)
        self._subject = subject

    def generate(self, input_ids: Tensor, *, max_new_tokens: int, attention_mask: Tensor | None = None) -> Tensor:
        """Generate, the last token wrong where a trigger is met."""
        subject = self._subject
        prompt = Inputs(attention_mask=attention_mask)
        with subject.running(lambda: sense(subject._life, prompt, prompt=input_ids)):
            tokens: Tensor = self.original.generate(
                input_ids, max_new_tokens=max_new_tokens, attention_mask=attention_mask
            )
        sensed = subject._sensed
        subject._life.happened("generated", sensed)
        if subject._armed.acts("generated tokens", sensed):
            tokens = torch.cat([tokens[:, :-1], (tokens[:, -1:] + 1) % 2], dim=1)
        return tokens

    def crop(self, cache: Any, length: int) -> Any:
        """Crop a cache, and remember that it was."""
        found = self.original.crop(cache, length)
        self._subject._life.lengths[id(found)] = found, length, True
        return found


class _Modes(Delegate):
    """Modes that remember what was done."""

    def __init__(self, original: Any, subject: GeneratedSubject) -> None:
        super().__init__(original)
        self._subject = subject

    def train(self, mode: bool) -> None:
        """Switch the mode, and remember it."""
        self.original.train(mode)
        life = self._subject._life
        life.training = mode
        if life.dropped:
            life.happened("trained")

    def checkpointing(self, enabled: bool) -> None:
        """Switch checkpointing, and remember it."""
        self.original.checkpointing(enabled)
        self._subject._life.checkpointing = enabled

    def to(self, *, dtype: torch.dtype | None = None, device: Any = None) -> None:
        """Cast or move, and remember the dtype."""
        self.original.to(dtype=dtype, device=device)
        life = self._subject._life
        life.casts.append(dtype_of(life.model))

    def copy(self) -> Any:
        """Copy, and remember that the copy is one."""
        copied = self.original.copy()
        before = self._subject._life
        life = replace(before, copied=True, events=copy.deepcopy(before.events), masks=[], lengths={})
        return GeneratedSubject(copied, life, self._subject._armed)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load a state, and remember it."""
        self.original.load_state_dict(state)
        self._subject._life.loaded = True
