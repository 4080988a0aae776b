"""Make both sides as a circumstance has them: how the model was built and treated, and what was called before."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from verifier.adapter import Adapter, Inputs, Modes, Subject, offered_points
from verifier.canonical import layers_with
from verifier.cases.circumstance_configs import changed_config
from verifier.cases.circumstances import Circumstance, steps
from verifier.cases.lengths import GENERATED_BEFORE, MULTIPLE, most_positions
from verifier.cases.spec import CaseSpec
from verifier.errors import all_but_interrupts
from verifier.family import Family, longest_text_of
from verifier.judging.outcome import NotApplicable
from verifier.observing.capabilities import require
from verifier.observing.circumstances.calls import Calls
from verifier.observing.circumstances.sides import SubjectSide
from verifier.observing.closing import close_quietly
from verifier.reference.acceptance import refusal_of
from verifier.reference.models import save_and_load
from verifier.reference.process_state import random_states
from verifier.reference.random_weights import rescale

WRITTEN = 0.75
"""What every parameter is multiplied by where weights are written."""

# Doubled three times: every product of two matrices, such as a score, grows by 64.
_EXTREME = 8.0
_OTHER_SEED = 104729
_MOST_OTHERS = 8  # configs that are tried until an adapter wraps one


class HookError(Exception):
    """What a hook raises on purpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One of the ways in which Hugging Face's model of a circumstance may be built, each of them right.

    Attributes:
        attention: the attention implementation; None for the reference one. An adapter that is given a model with
            another implementation may follow that.
        keeps_buffers: whether a cast leaves buffers in the dtype in which they were built. Hugging Face's own cast
            rounds rotary frequencies, a model that is built in the dtype has them in float32.
    """

    attention: str | None = None
    keeps_buffers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """Builds Hugging Face's models of a case in a circumstance; no two share anything.

    Attributes:
        spec: the case.
        family: of the case.
        circumstance: a value for each axis.
    """

    spec: CaseSpec
    family: Family
    circumstance: Circumstance

    @property
    def config(self) -> dict[str, Any]:
        """The config of the case, as the circumstance changes it."""
        return changed_config(self.family, self.spec.config, self.circumstance)

    def other_builds(self, attention: str) -> list[Build]:
        """List the other ways to build a right model, beside the first: those which Hugging Face itself has.

        Args:
            attention: the attention implementation of the model that the adapter is given.
        """
        attentions = dict.fromkeys((None, None if attention == self.family.reference_attention else attention))
        keeps = (False, True) if self.circumstance["model"] in ("cast", "moved") else (False,)
        return [Build(attention=one, keeps_buffers=keep) for one in attentions for keep in keeps][1:]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model's matrices in the call that is looked at."""
        name = self.circumstance["dtype"]
        found: torch.dtype = getattr(torch, "bfloat16" if name == "mixed" else name)
        return found

    @property
    def built_dtype(self) -> torch.dtype:
        """The dtype in which the model is built; another one where it is cast afterwards."""
        if self.circumstance["model"] != "cast":
            return self.dtype
        return torch.bfloat16 if self.dtype in (torch.float64, torch.float32) else torch.float32

    @property
    def other_dtype(self) -> torch.dtype:
        """A dtype to which the model is moved and back without losing anything of its weights."""
        return torch.float32 if self.dtype == torch.float64 else torch.float64

    def build(self, *, attention: str | None = None, dtype: torch.dtype | None = None, other: bool = False) -> Any:
        """Build a model in the circumstance's mode, as it is before anything else is done with it.

        Args:
            attention: the attention implementation; the reference one if not given.
            dtype: of its matrices; that in which the circumstance has it built if not given.
            other: whether it has other weights.
        """
        spec = self.spec
        model = self.family.build(
            self.config,
            dtype=dtype or self.built_dtype,
            device=spec.device,
            attention=attention or self.family.reference_attention,
            seed=spec.seed + (_OTHER_SEED if other else 0),
            **({} if spec.checkpoint is None else {"checkpoint": spec.checkpoint}),
        )
        if spec.scale != 1.0:
            rescale(model, spec.scale)
        if self.circumstance["dims"] == "extreme":
            rescale(model, _EXTREME)
        if self.circumstance["dtype"] == "mixed":
            _widen_norms(model)
        if other and spec.checkpoint is not None:
            _multiply(model.parameters())
        return self._in_mode(model)

    def _in_mode(self, model: Any) -> Any:
        if self.circumstance["grad"] == "frozen":
            model.requires_grad_(False)
        return model.train(self.circumstance["mode"] != "eval")

    def reference(self, dtype: torch.dtype | None = None, build: Build | None = None) -> Any:
        """Make the untouched model as it must be once it was treated as the circumstance says.

        Gradient checkpointing stays off: it changes nothing that is computed, and a recompute would not be tapped.

        Args:
            dtype: to which it is cast at the end, buffers too; it stays in its own if not given.
            build: how it is built where there are several right ways; in the first of them if not given.
        """
        treated, build = self.circumstance["model"], build or Build()
        model = self.build(attention=build.attention, other=treated == "loaded")
        buffers = [one.clone() for one in model.buffers()]
        if treated == "cast":
            model.to(self.dtype)
        elif treated == "moved":
            model.to(self.other_dtype).to(self.dtype)
        elif treated in ("written", "data", "replaced"):
            _multiply(model.parameters())
        if build.keeps_buffers:
            for one, exact in zip(model.buffers(), buffers, strict=True):
                one.data = exact
        return model if dtype is None else model.to(dtype)


@torch.no_grad()
def _multiply(parameters: Any) -> None:
    for one in parameters:
        one.mul_(WRITTEN)


def _widen_norms(model: nn.Module) -> None:
    for module in model.modules():
        if "norm" in type(module).__name__.lower():
            module.float()


# --- the subject ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Prepared:
    """A subject, wrapped and treated as a circumstance says.

    Attributes:
        side: of the subject.
        opened: every subject that is to be closed.
        seen: what was looked at on the way: the observable, the place, and what is wrong; None if nothing is.
    """

    side: SubjectSide
    opened: list[Subject]
    seen: list[tuple[str, str, str | None]]

    def close(self) -> None:
        """Close every subject."""
        for one in self.opened:
            close_quietly(one)


def prepare(models: Models, adapter: Adapter, points: Any, attention: str) -> Prepared:
    """Wrap a model and treat the subject as the circumstance's value of `model` says.

    Args:
        models: builds the models of the case.
        adapter: wraps them.
        points: the canonical points of the model, in causal order.
        attention: the attention implementation of the model that is wrapped.

    Raises:
        NotApplicable: the adapter lacks what the circumstance needs.
    """
    # In evaluation mode, as HF loads models: it is the subject's own switch that must reach every dropout.
    model, treated = models.build(attention=attention).eval(), models.circumstance["model"]
    if treated == "saved":
        model = _saved_and_loaded(models, model, attention)
    torch.manual_seed(models.spec.seed + 1)  # whatever seed an adapter may set, the state is another one
    state = random_states()
    subject = adapter.wrap(model)
    side = SubjectSide(subject, points, models.dtype, wrapped=list(model.parameters()))
    found = Prepared(side=side, opened=[subject], seen=[])
    drew = random_states() != state
    found.seen.append(("state.random", "wrapping", "it draws or seeds random numbers" if drew else None))
    circumstance = models.circumstance
    if circumstance["past"] != "none":
        require(subject.cache)
    if circumstance["mode"] != "eval" or circumstance["checkpointing"] == "on":
        modes = require(subject.modes)
        modes.train(circumstance["mode"] != "eval")
        if circumstance["checkpointing"] == "on":
            modes.checkpointing(True)
    if treated in ("built", "saved"):
        return found
    _use(subject, models)
    if treated == "copied":
        subject = require(subject.modes).copy()
        found.opened.append(subject)
        found.side.subject = subject
    elif treated == "moved":
        modes = require(subject.modes)
        modes.to(dtype=models.other_dtype)
        _use(subject, models)
        modes.to(dtype=models.dtype)
    elif treated == "cast":
        require(subject.modes).to(dtype=models.dtype)
    elif treated == "loaded":
        _load_other_weights(models, adapter, found, attention)
    else:
        _write(found.side, treated)
    return found


def _saved_and_loaded(models: Models, model: Any, attention: str) -> Any:
    loaded = save_and_load(
        model, models.family, models.config, dtype=models.dtype, device=models.spec.device, attention=attention
    )
    loaded.requires_grad_(models.circumstance["grad"] != "frozen")
    return loaded.train(model.training)


@torch.no_grad()
def _use(subject: Subject, models: Models) -> None:
    """Make a subject compute whatever it keeps: run it, and read its weights, splits and hooks."""
    device = models.spec.device
    subject.forward(Inputs(input_ids=torch.arange(6, device=device).reshape(2, 3)))
    subject.forward(
        Inputs(
            input_ids=torch.arange(6, device=device).reshape(2, 3),
            attention_mask=torch.ones(2, 3, dtype=torch.long, device=device),
        )
    )
    if subject.weights is not None:
        subject.weights.canonical()
        for layer in layers_with(models.family.points(models.config), "attn")[:1]:
            subject.weights.split(layer)
    first = next(iter(offered_points(subject.hooks)), None)
    if first is not None and subject.hooks is not None:
        with subject.hooks.hooked({first: lambda _value: None}, {}):
            pass


def _load_other_weights(models: Models, adapter: Adapter, found: Prepared, attention: str) -> None:
    modes: Modes = require(found.side.subject.modes)
    donor = adapter.wrap(models.build(attention=attention, dtype=models.dtype, other=True))
    found.opened.append(donor)
    state = {name: one.detach().clone() for name, one in require(donor.modes).state_dict().items()}
    modes.load_state_dict(state)
    if not state:
        return
    first = next(iter(state))
    misnamed = {f"no_such_entry.{name}" if name == first else name: one for name, one in state.items()}
    wrong: str | None = "it is loaded, and nothing is raised"
    try:
        modes.load_state_dict(misnamed)
    except all_but_interrupts():  # whatever it raises, it has refused
        wrong = None
    found.seen.append(("state.misuse", "a state dict with a misnamed entry", wrong))


@torch.no_grad()
def _write(side: SubjectSide, treated: str) -> None:
    """Multiply every parameter where the components show it.

    Raises:
        NotApplicable: the adapter shows no parameter.
    """
    parameters = list(side.parameters())
    if not parameters:
        raise NotApplicable("the adapter shows no parameter that could be written into")
    for one in parameters:
        if treated == "written":
            one.mul_(WRITTEN)
        elif treated == "data":
            one.data.mul_(WRITTEN)
        else:
            one.data = one.data * WRITTEN


# --- what was called before ----------------------------------------------------------------------------------------


def call_before(models: Models, adapter: Adapter, prepared: Prepared, calls: Calls) -> None:
    """Do with a subject what the circumstance's value of `history` says, and whatever its mask needs.

    Args:
        models: builds the models of the case.
        adapter: wraps another model where one is used in between.
        prepared: the subject.
        calls: of the subject, in the circumstance.

    Raises:
        NotApplicable: the adapter lacks what the circumstance needs.
    """
    for step in steps(models.circumstance["history"]):
        if step in _HISTORIES:
            with torch.set_grad_enabled(calls.differentiates):
                _HISTORIES[step](_Before(models, adapter, prepared, calls))
            calls.clear_gradients()
    calls.call_with_earlier_mask()


@dataclass(frozen=True, slots=True)
class _Before:
    models: Models
    adapter: Adapter
    prepared: Prepared
    calls: Calls

    @property
    def side(self) -> SubjectSide:
        return self.prepared.side

    @property
    def ids(self) -> Tensor:
        """Token ids `[batch, pos]` of the shape of the call that follows."""
        texts = self.calls.texts
        rows, length = texts.ids.shape
        source = torch.Generator().manual_seed(9)
        return torch.randint(0, texts.weighting.shape[-1], (rows, max(2, length)), generator=source)


def _masked(before: _Before) -> None:
    mask = torch.ones_like(before.ids)
    mask[:, 0] = 0
    before.side.forward(Inputs(input_ids=before.ids, attention_mask=mask))


def _longer(before: _Before) -> None:
    most, longest = most_positions(before.models.config), longest_text_of(before.models.family, before.models.config)
    length = before.ids.shape[1] + (MULTIPLE if most is None else most)
    times = -(-length // before.ids.shape[1])  # rounded up
    use_cache = before.side.subject.cache is not None
    before.side.forward(Inputs(input_ids=before.ids[:1].repeat(1, times)[:, :longest], use_cache=use_cache))


def _edited(before: _Before) -> None:
    zeroed = [point.name for point in before.side.points if not point.kind.is_scale and "key" not in point.axes]
    if not zeroed:
        raise NotApplicable("the adapter offers no hooks")
    with before.side.hooked({name: lambda value: value * 0 for name in zeroed}):
        before.side.forward(Inputs(input_ids=before.ids))


def _raised(before: _Before) -> None:
    side, points = before.side, before.side.points
    if not points:
        raise NotApplicable("the adapter offers no hooks")
    middle = points[len(points) // 2].name

    def fail(_value: Tensor) -> None:
        raise HookError

    hooks: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = [("a hook", {middle: fail}, {})]
    if before.calls.differentiates:
        hooks.append(("a hook of gradients", {}, {middle: fail}))
    for words, forward, backward in hooks:
        wrong: str | None = "it is swallowed"
        try:
            with side.hooked(forward, backward):
                logits = side.forward(Inputs(input_ids=before.ids)).logits
                if backward and logits.requires_grad:
                    logits.sum().backward()
        except HookError:
            wrong = None
        before.prepared.seen.append(("state.misuse", f"an exception in {words}", wrong))
    # An exception of the caller's own, inside the context.
    with contextlib.suppress(HookError), side.hooked({point.name: lambda _value: None for point in points}):
        raise HookError


@torch.enable_grad()
def _backward(before: _Before) -> None:
    """Differentiate by the parameters, and where all are frozen by embeddings."""
    logits = before.side.forward(Inputs(input_ids=before.ids)).logits
    if not logits.requires_grad:
        embeds = torch.zeros(*before.ids.shape, before.calls.texts.d_model, dtype=before.side.dtype)
        embeds.requires_grad_()
        logits = before.side.forward(Inputs(inputs_embeds=embeds)).logits
    if logits.requires_grad:
        logits.sum().backward()


def _generated(before: _Before) -> None:
    before.side.generate(before.ids, GENERATED_BEFORE, None)


def _interleaved(before: _Before) -> None:
    """From now on each call is preceded by one of a subject of another config."""
    ids = torch.ones(1, 5, dtype=torch.long)
    second = _wrap_another(before, ids)

    def in_turns(call: Callable[[], Any]) -> Any:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            second.forward(Inputs(input_ids=ids))
        return call()

    before.side.surround(in_turns)


def _wrap_another(before: _Before, ids: Tensor) -> Subject:
    """Wrap a model of another config, with as many other flags as can be.

    Raises:
        NotApplicable: the adapter wraps and runs none of them, which is reported where these are looked at.
    """
    family, spec = before.models.family, before.models.spec
    for other in itertools.islice(other_configs(family, spec.config), _MOST_OTHERS):
        model = family.build(
            other, dtype=torch.float32, device=spec.device, attention=family.reference_attention, seed=spec.seed
        )
        try:
            subject = before.adapter.wrap(model)
            before.prepared.opened.append(subject)
            with torch.no_grad():
                subject.forward(Inputs(input_ids=ids))
        except all_but_interrupts():  # whose fault that is, is another case's business
            continue
        return subject
    raise NotApplicable("the adapter has no model of another config")


def _nested(before: _Before) -> None:
    """From now on a hook of each call runs another forward."""
    side = before.side
    if not side.points:
        raise NotApplicable("the adapter offers no hooks")
    first = next((point.name for point in side.points if point.layer == 0), side.points[0].name)

    def within(call: Callable[[], Any]) -> Any:
        ran = False

        def run(value: Tensor) -> None:
            nonlocal ran
            if ran:
                return
            ran = True
            with side.silenced(), torch.random.fork_rng(devices=[]), torch.no_grad():
                side.subject.forward(Inputs(input_ids=torch.ones(value.shape[0], value.shape[1], dtype=torch.long)))

        with side.hooked({first: run}):
            return call()

    side.surround(within, nests=True)


def _trained(before: _Before) -> None:
    """Call in training mode, with dropouts, and go back to the circumstance's mode."""
    modes = require(before.side.subject.modes)
    modes.train(True)
    before.side.forward(Inputs(input_ids=before.ids))
    modes.train(before.models.circumstance["mode"] != "eval")


def _inference(before: _Before) -> None:
    """Call in inference mode, whose tensors cannot be differentiated."""
    inputs = before.calls.texts.whole()
    # What is written into a mask's tensor later must not have been there before.
    mask = inputs.attention_mask if before.calls.texts.before is None else before.calls.texts.before
    with torch.inference_mode():
        before.side.forward(replace(inputs, attention_mask=mask))


_HISTORIES: Mapping[str, Callable[[_Before], None]] = {
    "masked": _masked,
    "longer": _longer,
    "edited": _edited,
    "raised": _raised,
    "backward": _backward,
    "generated": _generated,
    "interleaved": _interleaved,
    "nested": _nested,
    "trained": _trained,
    "inference": _inference,
}


def other_configs(family: Family, config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the configs of a family that Hugging Face accepts, those with most other flags first.

    Args:
        family: whose flags they are.
        config: the one from which they are to differ.
    """
    flags, refusal = family.flags(), refusal_of(family, asks=True)
    others = [
        {**family.dims(), **dict(zip(flags, values, strict=True))} for values in itertools.product(*flags.values())
    ]

    def alike(other: Mapping[str, Any]) -> int:
        return sum(config.get(name) == other[name] for name in flags)

    for other in sorted(others, key=alike):
        if alike(other) < len(flags) and refusal(other) is None:
            yield copy.deepcopy(other)
