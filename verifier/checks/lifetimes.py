"""Run a subject through its whole life: build, use everything it offers, close, drop; and count what is left."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from verifier.adapter import Subject, offered_points
from verifier.checks.subjects import ungated_names
from verifier.observing.capabilities import require
from verifier.observing.case import Case
from verifier.observing.closing import close_quietly


def use_everything(case: Case, subject: Subject) -> None:
    """Use everything once that the subject offers: reads, switches, edits, gradients, decoding, train and eval mode.

    Args:
        case: of the inputs and the hook points.
        subject: the subject to use; it is left in eval mode, where it has modes.
    """
    inputs = case.reference.inputs()
    assert inputs.input_ids is not None
    with torch.no_grad(), _read_all_points(case, subject):
        subject.forward(inputs)
    with torch.enable_grad(), _edit_first_point(case, subject):
        subject.forward(inputs).logits.sum().backward()
    if subject.cache is not None:
        half = case.spec.length // 2
        with torch.no_grad():
            prompt = subject.forward(replace(inputs, input_ids=inputs.input_ids[:, :half], use_cache=True))
            if prompt.cache is not None:
                subject.forward(replace(inputs, input_ids=inputs.input_ids[:, half:], cache=prompt.cache))
        subject.cache.generate(inputs.input_ids, max_new_tokens=2)
    if subject.modes is not None:
        for mode in (True, False):
            subject.modes.train(mode)


@contextlib.contextmanager
def _read_all_points(case: Case, subject: Subject) -> Iterator[None]:
    """Read every canonical point inside the context, with its switch on where it has one."""
    if subject.hooks is None:
        yield
        return
    hooks: Any = subject.hooks
    names = frozenset(one.name for one in case.reference.points) & offered_points(subject.hooks).keys()
    with hooks.switched(names), hooks.hooked(dict.fromkeys(names, _read), {}):
        yield


@contextlib.contextmanager
def _edit_first_point(case: Case, subject: Subject) -> Iterator[None]:
    """Edit the first canonical point inside the context."""
    points = ungated_names(case, subject)
    if not points:
        yield
        return
    with require(subject.hooks).hooked({points[0]: _double}, {}):
        yield


def _read(_value: Tensor) -> None: ...


def _double(value: Tensor) -> Tensor:
    return value * 2


def run_whole_life(case: Case) -> weakref.ref[Any]:
    """Build, use and close a subject that nobody keeps, and return a weak reference to its model."""
    model = case.reference.build()
    subject = case.subject.adapter.wrap(model)
    use_everything(case, subject)
    close_quietly(subject)
    return weakref.ref(model)


@contextlib.contextmanager
def without_earlier_objects() -> Iterator[None]:
    """Freeze all existing objects, so that inside the context the garbage collector only visits new ones, and is fast.

    Where the process froze its objects at its start, nothing is done.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def count_live_tensors() -> int:
    """Collect garbage, and count the tensors that are left."""
    gc.collect()
    # By `type` and not `isinstance`, which makes some of torch's objects warn.
    return sum(issubclass(type(one), Tensor) for one in gc.get_objects())
