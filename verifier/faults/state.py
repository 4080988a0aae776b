"""Faults of state: adapters that share state between models, or lose, change or keep what they must not."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from verifier.adapter import Adapter, Edit, Inputs, Output, Subject
from verifier.family import Family
from verifier.faults.mutants import (
    SLIGHTLY,
    Delegate,
    MutantAdapter,
    MutantSubject,
    Mutation,
    Plant,
    fault,
    in_adapter,
    replacing,
)
from verifier.judging.outcome import NotApplicable
from verifier.observing.capabilities import require

Change = Callable[[Any], None]


class _Newest(Delegate):
    """An adapter that keeps the model in the class: whichever subject is asked, the newest answers."""

    def __init__(self, original: Adapter) -> None:
        super().__init__(original)
        self.name, self.version = original.name, original.version
        self._newest: list[Subject] = []

    def wrap(self, model: nn.Module) -> Subject:
        subject = self.original.wrap(model)
        self._newest[:] = [subject]
        return MutantSubject(subject, Mutation(forward=lambda _subject, inputs: self._newest[0].forward(inputs)))


class _KeepingModels(Delegate):
    """An adapter with a registry of every model that it was ever given."""

    def __init__(self, original: Adapter) -> None:
        super().__init__(original)
        self.name, self.version = original.name, original.version
        self._known: list[nn.Module] = []

    def wrap(self, model: nn.Module) -> Subject:
        self._known.append(model)
        subject: Subject = self.original.wrap(model)
        return subject


def _instead(adapter: Callable[[Adapter], Any]) -> Callable[[Family, Adapter], tuple[Family, Adapter]]:
    return lambda family, original: (family, adapter(original))


def _keeping_logits(family: Family, adapter: Adapter) -> tuple[Family, Adapter]:
    """Every forward's logits are kept, for good."""
    kept: list[Tensor] = []

    def forward(subject: Subject, inputs: Inputs) -> Output:
        output = subject.forward(inputs)
        kept.append(output.logits.detach())
        return output

    return family, MutantAdapter(adapter, lambda _model: Mutation(forward=forward))


def _hooks_for_all(family: Family, adapter: Adapter) -> tuple[Family, Adapter]:
    """Hooks are attached by name in a registry of the process, which every subject looks into."""
    everybody: list[Any] = []

    def breaks(_model: nn.Module) -> Mutation:
        mine: list[Any] = []

        @contextlib.contextmanager
        def hooked(_hooks: Any, forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Iterator[None]:
            with contextlib.ExitStack() as stack:
                for one in everybody:
                    stack.enter_context(one.hooked(forward, backward))
                yield

        def join(_subject: Subject, hooks: Any) -> Any:
            mine.append(hooks)
            everybody.append(hooks)
            return replacing(hooked=hooked)(_subject, hooks)

        def leave() -> None:
            everybody[:] = [one for one in everybody if not any(one is other for other in mine)]

        return Mutation(parts={"hooks": join}, close=leave)

    return family, MutantAdapter(adapter, breaks)


def _copying(copy: Callable[[Subject, Any], Subject]) -> Mutation:
    """Another copy, of the right subject and its right modes."""
    return Mutation(
        parts={"modes": lambda subject, modes: replacing(copy=lambda right: copy(subject, right))(subject, modes)}
    )


def _through_single(_subject: Subject, modes: Any) -> Subject:
    """The copy was kept in single precision on the way."""
    made: Subject = modes.copy()
    for dtype in (torch.float32, torch.float64):
        require(made.modes).to(dtype=dtype)
    return made


def _sharing(part: str) -> Callable[[Subject, Any], Subject]:
    """The copy is deep but for one component, whose parameters are the original's."""

    def copy(subject: Subject, modes: Any) -> Subject:
        made: Subject = modes.copy()
        ours, its = (require(one.components).modules() for one in (subject, made))
        if part not in ours or part not in its:
            raise NotApplicable(f"there is no {part}")
        for mine, other in zip(ours[part].parameters(), its[part].parameters(), strict=True):
            other.data = mine.data
        return made

    return copy


def _loads_nothing(_modes: Any, _state: Mapping[str, Tensor]) -> None: ...


def _casting(through: torch.dtype | None) -> Mutation:
    """A cast goes through another dtype, or is not done."""

    def to(modes: Any, *, dtype: torch.dtype | None = None, device: Any = None) -> None:
        if through is not None and dtype is not None:
            modes.to(dtype=through)
            modes.to(dtype=dtype)
        modes.to(device=device)

    return Mutation(parts={"modes": replacing(to=to)})


def _around_hooks(change: Change) -> Callable[[nn.Module], Mutation]:
    """What hooking a model leaves behind in it."""

    def breaks(model: nn.Module) -> Mutation:
        @contextlib.contextmanager
        def hooked(hooks: Any, forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Iterator[None]:
            with hooks.hooked(forward, backward):
                yield
            change(model)

        return Mutation(parts={"hooks": replacing(hooked=hooked)})

    return breaks


def _with_cache(change: Change) -> Callable[[nn.Module], Mutation]:
    """What decoding leaves behind in a model."""

    def breaks(model: nn.Module) -> Mutation:
        def forward(subject: Subject, inputs: Inputs) -> Output:
            if inputs.cache is not None:
                change(model)
            return subject.forward(inputs)

        return Mutation(forward=forward)

    return breaks


@torch.no_grad()
def _moves_weights(model: nn.Module) -> None:
    next(model.parameters()).mul_(1 + SLIGHTLY)


def _freezes(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def _leaves_hook(model: nn.Module) -> None:
    model.register_forward_hook(lambda *_: None)


class _Unhooked(Delegate):
    """A subject whose hooks are attached to nothing."""

    def __init__(self, original: Any) -> None:
        super().__init__(original)
        self.hooks = replacing(hooked=lambda *_: contextlib.nullcontext())(original, original.hooks)


def _fresh_components(modules: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
    return copy.deepcopy(dict(modules))


@fault("state.acting")
def copy_unhooked() -> Plant:
    """Hooks on a copy are attached to nothing."""
    return in_adapter(Mutation(parts={"modes": replacing(copy=lambda modes: _Unhooked(modes.copy()))}))


@fault("state.acting", plant=in_adapter)
def cast_unhooks(_model: nn.Module) -> Mutation:
    """After a cast hooks are attached to nothing."""
    now = {"cast": False}

    def to(modes: Any, **where: Any) -> None:
        now["cast"] = True
        modes.to(**where)

    def hooked(hooks: Any, forward: Any, backward: Any) -> Any:
        return contextlib.nullcontext() if now["cast"] else hooks.hooked(forward, backward)

    return Mutation(parts={"hooks": replacing(hooked=hooked), "modes": replacing(to=to)})


@fault("state.written")
def components_are_copies() -> Plant:
    """The components that the adapter shows are new copies at each call."""
    return in_adapter(Mutation(modules=_fresh_components))


@fault("state.interleaved")
def newest_model_answers() -> Plant:
    """The wrapped model is kept in the class, so the newest model answers for all."""
    return _instead(_Newest)


@fault("state.hooks")
def hooks_for_all() -> Plant:
    """A hook that is put on one model acts on every model."""
    return _hooks_for_all


@fault("state.copy")
def copy_through_single() -> Plant:
    """A copy has gone through single precision."""
    return in_adapter(_copying(_through_single))


@fault("state.copy_weights")
def copy_is_the_original() -> Plant:
    """A copy is a new subject around the same model."""
    return in_adapter(_copying(lambda subject, _modes: MutantSubject(subject, Mutation())))


@fault("state.copy_weights")
def copy_shares_a_norm() -> Plant:
    """A copy is deep except for the final norm, which it shares."""
    return in_adapter(_copying(_sharing("ln_final")))


@fault("state.copy_hooks", plant=in_adapter)
def copy_keeps_hooks(_model: nn.Module) -> Mutation:
    """A copy keeps the hooks that were on the original, for good."""
    attached: list[Mapping[str, Edit]] = []

    @contextlib.contextmanager
    def hooked(hooks: Any, forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Iterator[None]:
        attached.append(forward)
        try:
            with hooks.hooked(forward, backward):
                yield
        finally:
            attached.pop()

    def copy(modes: Any) -> Subject:
        made: Subject = modes.copy()
        theirs = dict(attached[-1]) if attached else {}

        def forward(subject: Subject, inputs: Inputs) -> Output:
            with require(subject.hooks).hooked(theirs, {}):
                return subject.forward(inputs)

        return MutantSubject(made, Mutation(forward=forward))

    return Mutation(parts={"hooks": replacing(hooked=hooked), "modes": replacing(copy=copy)})


@fault("state.state_dict", plant=in_adapter)
def state_lacks_a_vector(_model: nn.Module) -> Mutation:
    """The state dict lacks a bias or a norm's weight."""

    def state_dict(modes: Any) -> dict[str, Tensor]:
        state = dict(modes.state_dict())
        lost = next((name for name, one in state.items() if one.ndim == 1 and one.is_floating_point()), None)
        return {name: one for name, one in state.items() if name != lost}

    def load(modes: Any, state: Mapping[str, Tensor]) -> None:
        modes.load_state_dict({**modes.state_dict(), **state})

    return Mutation(parts={"modes": replacing(state_dict=state_dict, load_state_dict=load)})


@fault("state.state_dict")
def state_not_loaded() -> Plant:
    """A state dict is accepted and not loaded."""
    return in_adapter(Mutation(parts={"modes": replacing(load_state_dict=_loads_nothing)}))


@fault("state.state_dict", plant=in_adapter)
def state_loaded_old_weights_shown(_model: nn.Module) -> Mutation:
    """After a state dict is loaded, the old canonical weights are shown."""

    def remembering(_subject: Subject, weights: Any) -> Any:
        first: list[Mapping[str, Tensor]] = []

        def canonical(right: Any) -> Mapping[str, Tensor]:
            if not first:
                first.append({name: one.detach().clone() for name, one in right.canonical().items()})
            return first[0]

        return replacing(canonical=canonical)(_subject, weights)

    return Mutation(parts={"weights": remembering})


@fault("state.to")
def to_through_half() -> Plant:
    """A cast goes through half precision."""
    return in_adapter(_casting(torch.bfloat16))


@fault("state.to")
def to_ignored() -> Plant:
    """A cast is not done."""
    return in_adapter(_casting(None))


@fault("state.to", plant=in_adapter)
def to_forgets_a_buffer(model: nn.Module) -> Mutation:
    """A cast leaves one buffer in its old dtype, and what is read after it has that dtype."""
    dtype = next(model.parameters()).dtype
    return Mutation(shows={"ln_final.hook_normalized": lambda value: value.to(dtype)})


@fault("state.eval", plant=in_adapter)
def training_not_left(_model: nn.Module) -> Mutation:
    """Evaluation mode does not reach the dropouts."""

    def train(subject: Subject, mode: bool) -> None:
        if mode:
            require(subject.modes).train(True)

    return Mutation(train=train)


@fault("state.changes")
def hooks_move_weights() -> Plant:
    """Hooking a model writes into its weights, slightly."""
    return in_adapter(_around_hooks(_moves_weights))


@fault("state.changes")
def hooks_left() -> Plant:
    """A module hook stays on HF's model when hooks are taken off."""
    return in_adapter(_around_hooks(_leaves_hook))


@fault("state.changes")
def cache_freezes() -> Plant:
    """Decoding freezes the parameters."""
    return in_adapter(_with_cache(_freezes))


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


@fault("state.memory")
def models_kept() -> Plant:
    """The adapter keeps every model that it was given."""
    return _instead(_KeepingModels)


@fault("state.memory")
def logits_kept() -> Plant:
    """Every forward's logits are kept for good."""
    return _keeping_logits
