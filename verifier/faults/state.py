"""Faults of state: adapters that share state between models, or lose, change or keep what they must not."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from verifier.adapter import Adapter, Edit, Hooks, Inputs, Modes, Output, Subject, Weights
from verifier.family import Family
from verifier.faults.altered_hooks import altered, showing
from verifier.faults.mutants import (
    SLIGHTLY,
    MutantSubject,
    Mutation,
    Plant,
    fault,
    in_adapter,
    in_either,
    in_method,
    in_modules,
    in_wrap,
    replaced,
    replacing,
    with_methods,
)
from verifier.judging.outcome import NotApplicable
from verifier.observing.capabilities import require

Change = Callable[[Any], None]
Edits = Mapping[str, Edit]


def _in_all_models(make: Callable[[], Mutation]) -> Plant:
    """Plant one mutation in the subjects of all models, which share what it remembers."""
    return lambda family, adapter: in_adapter(make())(family, adapter)


def _in_copy(copy: Callable[[Subject, Modes], Subject]) -> Plant:
    """Plant the copying of a subject: the function gets the right subject and its right modes."""

    def wrong(subject: Subject, modes: Modes) -> Any:
        return replaced(modes, copy=lambda right: copy(subject, right))

    return in_adapter(Mutation(parts={"modes": wrong}))


def _after_hooking(change: Change) -> Plant:
    """Plant a change of the model that is made when hooks are taken off."""

    def mutate(model: nn.Module) -> Mutation:
        @contextlib.contextmanager
        def hooked(right: Callable[..., Any], forward: Edits, backward: Edits) -> Iterator[None]:
            with right(forward, backward):
                yield
            change(model)

        return altered(hooked=hooked)

    return in_adapter(mutate)


def _detached(*_: Any) -> contextlib.AbstractContextManager[None]:
    """Attach hooks to nothing."""
    return contextlib.nullcontext()


@fault("hooks.shown", circumstances=[{"grad": "grad", "model": "copied"}], plant=in_method("modes", "copy"))
def copy_unhooked(modes: Modes) -> Any:
    """Hooks on a copy are attached to nothing."""
    return MutantSubject(modes.copy(), with_methods("hooks", hooked=_detached))


@fault("hooks.shown", circumstances=[{"grad": "grad", "model": "moved"}])
def cast_unhooks() -> Mutation:
    """After a cast hooks are attached to nothing."""
    now = {"cast": False}

    def to(modes: Modes, **where: Any) -> None:
        now["cast"] = True
        modes.to(**where)

    def hooked(hooks: Hooks, forward: Edits, backward: Edits) -> Any:
        return _detached() if now["cast"] else hooks.hooked(forward, backward)

    return Mutation(parts={"hooks": replacing(hooked=hooked), "modes": replacing(to=to)})


@fault("forward.outputs", circumstances=[{"model": "written"}], plant=in_modules)
def components_are_copies(modules: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
    """The components that the adapter shows are new copies at each call."""
    return copy.deepcopy(dict(modules))


@fault("state.interleaved", plant=in_either)
def newest_model_answers(family: Family, adapter: Adapter) -> tuple[Family, Adapter]:
    """The wrapped model is kept in the class, so the newest model answers for all."""
    newest: list[Subject] = []

    def wrap(adapter: Adapter, model: nn.Module) -> Any:
        newest[:] = [adapter.wrap(model)]
        return MutantSubject(newest[0], Mutation(forward=lambda _subject, inputs: newest[0].forward(inputs)))

    return in_wrap(wrap)(family, adapter)


@fault("state.hooks", plant=in_either)
def hooks_for_all(family: Family, adapter: Adapter) -> tuple[Family, Adapter]:
    """A hook that is put on one model acts on every model."""
    everybody: list[Any] = []  # a registry of the process, in which hooks are found by name

    @contextlib.contextmanager
    def hooked(_hooks: Hooks, forward: Edits, backward: Edits) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for one in everybody:
                stack.enter_context(one.hooked(forward, backward))
            yield

    def mutate(_model: nn.Module) -> Mutation:
        mine: list[Any] = []

        def join(_subject: Subject, hooks: Hooks) -> Any:
            mine.append(hooks)
            everybody.append(hooks)
            return replaced(hooks, hooked=hooked)

        def leave() -> None:
            everybody[:] = [one for one in everybody if one not in mine]

        return Mutation(parts={"hooks": join}, close=leave)

    return in_adapter(mutate)(family, adapter)


@fault("state.copy", plant=in_method("modes", "copy"))
def copy_through_single(modes: Modes) -> Subject:
    """A copy has gone through single precision."""
    made = modes.copy()
    for dtype in (torch.float32, torch.float64):
        require(made.modes).to(dtype=dtype)
    return made


@fault("state.copy_weights", plant=_in_copy)
def copy_is_the_original(subject: Subject, _modes: Modes) -> Any:
    """A copy is a new subject around the same model."""
    return MutantSubject(subject, Mutation())


@fault("state.copy_weights", plant=_in_copy)
def copy_shares_a_norm(subject: Subject, modes: Modes) -> Subject:
    """A copy is deep except for the final norm, which it shares."""
    made, norm = modes.copy(), "ln_final"
    ours, its = (require(one.components).modules() for one in (subject, made))
    if norm not in ours or norm not in its:
        raise NotApplicable(f"there is no {norm}")
    for mine, other in zip(ours[norm].parameters(), its[norm].parameters(), strict=True):
        other.data = mine.data
    return made


@fault("state.copy_hooks")
def copy_keeps_hooks() -> Mutation:
    """A copy keeps the hooks that were on the original, for good."""
    attached: list[Edits] = []

    @contextlib.contextmanager
    def hooked(hooks: Hooks, forward: Edits, backward: Edits) -> Iterator[None]:
        attached.append(forward)
        try:
            with hooks.hooked(forward, backward):
                yield
        finally:
            attached.pop()

    def copy(modes: Modes) -> Any:
        theirs = dict(attached[-1]) if attached else {}

        def forward(subject: Subject, inputs: Inputs) -> Output:
            with require(subject.hooks).hooked(theirs, {}):
                return subject.forward(inputs)

        return MutantSubject(modes.copy(), Mutation(forward=forward))

    return Mutation(parts={"hooks": replacing(hooked=hooked), "modes": replacing(copy=copy)})


@fault("forward.outputs", circumstances=[{"model": "loaded"}])
def state_lacks_a_vector() -> Mutation:
    """The state dict lacks a bias or a norm's weight."""

    def state_dict(modes: Modes) -> dict[str, Tensor]:
        state = dict(modes.state_dict())
        lost = next((name for name, one in state.items() if one.ndim == 1 and one.is_floating_point()), None)
        return {name: one for name, one in state.items() if name != lost}

    def load(modes: Modes, state: Mapping[str, Tensor]) -> None:
        modes.load_state_dict({**modes.state_dict(), **state})

    return with_methods("modes", state_dict=state_dict, load_state_dict=load)


@fault("forward.outputs", circumstances=[{"model": "loaded"}], plant=in_method("modes", "load_state_dict"))
def state_not_loaded(_modes: Modes, _state: Mapping[str, Tensor]) -> None:
    """A state dict is accepted and not loaded."""


@fault("weights.current", circumstances=[{"model": "written"}])
def state_loaded_old_weights_shown() -> Mutation:
    """After a state dict is loaded, the old canonical weights are shown."""
    first: list[Mapping[str, Tensor]] = []

    def canonical(right: Weights) -> Mapping[str, Tensor]:
        if not first:
            first.append({name: one.detach().clone() for name, one in right.canonical().items()})
        return first[0]

    return with_methods("weights", canonical=canonical)


@fault("forward.outputs", circumstances=[{"model": "moved"}], plant=in_method("modes", "to"))
def to_through_half(modes: Modes, *, dtype: torch.dtype | None = None, device: Any = None) -> None:
    """A cast goes through half precision."""
    if dtype is not None:
        modes.to(dtype=torch.bfloat16)
    modes.to(dtype=dtype, device=device)


@fault("forward.outputs", circumstances=[{"model": "cast"}], plant=in_method("modes", "to"))
def to_ignored(modes: Modes, *, device: Any = None, **_: Any) -> None:
    """A cast is not done."""
    modes.to(device=device)


@fault("hooks.shown", circumstances=[{"grad": "grad", "model": "cast"}], plant=in_adapter)
def to_forgets_a_buffer(model: nn.Module) -> Mutation:
    """A cast leaves one buffer in its old dtype, and what is read after it has that dtype."""
    dtype = next(model.parameters()).dtype
    return showing("ln_final.hook_normalized", lambda value: value.to(dtype))


@fault("forward.outputs", circumstances=[{"history": "trained"}], plant=in_method("modes", "train"))
def training_not_left(modes: Modes, mode: bool) -> None:
    """Evaluation mode does not reach the dropouts."""
    if mode:
        modes.train(True)


@fault("state.changes", "forward.repeated", plant=_after_hooking)
@torch.no_grad()
def hooks_move_weights(model: nn.Module) -> None:
    """Hooking a model writes into its weights, slightly."""
    next(model.parameters()).mul_(1 + SLIGHTLY)


@fault("state.changes", plant=_after_hooking)
def hooks_left(model: nn.Module) -> None:
    """A module hook stays on HF's model when hooks are taken off."""
    model.register_forward_hook(lambda *_: None)


@fault("state.changes", "state.modes", circumstances=[{"past": "chunk"}], plant=in_adapter)
def cache_freezes(model: nn.Module) -> Mutation:
    """Decoding freezes the parameters."""

    def forward(subject: Subject, inputs: Inputs) -> Output:
        if inputs.cache is not None:
            model.requires_grad_(False)
        return subject.forward(inputs)

    return Mutation(forward=forward)


@fault("state.changes", plant=in_adapter)
def backward_patches_class(model: nn.Module) -> Mutation:
    """HF's class is written into in a forward with gradients enabled."""
    patched: Any = type(model)

    def forward(subject: Subject, inputs: Inputs) -> Output:
        if torch.is_grad_enabled():
            patched.differentiated = True
        return subject.forward(inputs)

    def mend() -> None:
        if "differentiated" in vars(patched):
            del patched.differentiated

    return Mutation(forward=forward, close=mend)


@fault("state.memory", plant=_in_all_models)
def models_kept() -> Mutation:
    """The adapter keeps every model that it was given."""
    kept: list[nn.Module] = []
    return Mutation(model=kept.append)


@fault("state.memory", "state.released", plant=_in_all_models)
def logits_kept() -> Mutation:
    """Every forward's logits are kept for good."""
    kept: list[Tensor] = []

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        kept.append(output.logits.detach())
        return output

    return Mutation(forward=forward)


@fault("state.process", plant=_in_all_models)
def environment_written() -> Mutation:
    """The number of models that were wrapped is kept in an environment variable."""
    wrapped: list[None] = []

    def count(_model: nn.Module) -> None:
        wrapped.append(None)
        os.environ["WRAPPED_MODELS"] = str(len(wrapped))

    return Mutation(model=count)
