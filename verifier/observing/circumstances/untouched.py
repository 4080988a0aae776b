"""What a call must leave as it is: the caller's tensors, torch's settings, random numbers, modes, and memory."""

from __future__ import annotations

import contextlib
import gc
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from verifier.adapter import Inputs
from verifier.errors import all_but_interrupts
from verifier.judging.comparison import from_condition
from verifier.judging.outcome import Finding
from verifier.observing.circumstances.calls import Calls
from verifier.observing.circumstances.sides import SubjectSide
from verifier.reference.process_state import torch_settings

OBSERVABLES = frozenset(
    {
        "state.caller",
        "state.random",
        "state.settings",
        "state.modes",
        "state.misuse",
        "state.released",
        "hooks.gone",
        "hooks.misspelt",
    }
)
"""What is looked at in every circumstance, for next to nothing."""

OF_ALL_CALLS = frozenset({"state.caller", "state.settings", "state.modes", "hooks.gone", "forward.repeated"})
"""What any call of a circumstance may spoil, so that it can be looked at only after all of them."""


def settings() -> dict[str, Any]:
    """Read torch's global settings, and the filters of warnings, by name."""
    return {**torch_settings(), "filters of warnings": list(warnings.filters)}


class Before:
    """What stood around a subject before its calls."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._tensors = {name: (one, one.clone()) for name, one in calls.texts.tensors().items()}
        self._required = [one.requires_grad for one in calls.side.parameters()]

    def judge(self) -> Iterator[tuple[str, Finding]]:
        """Compare what stands around the subject now with what did before."""
        for name, (tensor, copy) in self._tensors.items():
            yield "state.caller", from_condition(name, None if torch.equal(tensor, copy) else "it is written into")
        if self._calls.texts.embeds is not None:
            wrong = "they are written into" if self._calls.wrote_embeds else None
            yield "state.caller", from_condition("inputs_embeds", wrong)
        required = [one.requires_grad for one in self._calls.side.parameters()]
        wanted = self._calls.circumstance["grad"] != "frozen"
        wrong = None
        if required != self._required:
            wrong = "it is changed by a call"
        elif any(one != wanted for one in required):
            wrong = f"it is {not wanted}, and the model's was {wanted}"
        yield "state.modes", from_condition("requires_grad of the parameters", wrong)


def changed_settings(before: Mapping[str, Any], words: str) -> Iterator[tuple[str, Finding]]:
    """Compare torch's settings and the filters of warnings with those before.

    Args:
        before: as `settings` read them.
        words: what was done meanwhile.
    """
    now = settings()
    changed = [name for name, value in before.items() if now[name] != value]
    wrong = f"{words} changes {', '.join(changed)}" if changed else None
    yield "state.settings", from_condition("torch's settings", wrong)


class _Edit:
    """A hook that can be referred to weakly."""

    def __init__(self) -> None:
        self.ran = 0

    def __call__(self, _value: Tensor) -> None:
        self.ran += 1


def released(calls: Calls) -> Iterator[tuple[str, Finding]]:
    """Look whether hooks, logits and switches are gone once a call of a subject is over."""
    side = calls.side
    assert isinstance(side, SubjectSide)
    gated = side.gated
    gone: dict[str, Callable[[], bool]] = {}
    names = [point.name for point in side.points]
    given = Inputs(input_ids=calls.texts.ids[:, : max(1, calls.texts.ids.shape[1] // 2)].long())
    hooks = side.subject.hooks

    def run() -> int:
        edit = _Edit()
        reference = weakref.ref(edit)
        gone["a hook"] = lambda: reference() is None
        with calls.mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an adapter may say that a switch is off
            if hooks is not None and gated:
                # To refuse a hook at a point that is off is as good as never to call it.
                with contextlib.suppress(Exception), hooks.hooked(dict.fromkeys(gated, edit), {}):
                    side.subject.forward(given)
            ran = edit.ran
            if names:
                with side.hooked(dict.fromkeys(names, edit)):
                    output = side.subject.forward(given)
            else:
                output = side.subject.forward(given)
            # Their memory, which a detached tensor shares.
            gone["the logits"] = StorageWeakRef(output.logits.untyped_storage()).expired
        return ran

    ran = run()
    if gated:
        wrong = "a point that needs it shows values while it should be off" if ran else None
        yield "hooks.gone", from_condition("a switch", wrong)
    if not all(is_gone() for is_gone in gone.values()):
        gc.collect()
    for words, is_gone in gone.items():
        wrong = None if is_gone() else "it is alive after the call's results are dropped"
        yield "state.released", from_condition(words, wrong)


def misspelt(side: SubjectSide) -> Iterator[tuple[str, Finding]]:
    """Look whether a hook at a point that there is not is refused."""
    if side.subject.hooks is None or not side.points:
        return
    name = f"{side.points[-1].name}y"
    wrong: str | None = "a hook there is taken, and nothing is raised"
    try:
        with side.subject.hooks.hooked({name: lambda _value: None}, {}):
            pass
    except all_but_interrupts():  # whatever it raises, it has refused
        wrong = None
    yield "hooks.misspelt", from_condition(name, wrong)
