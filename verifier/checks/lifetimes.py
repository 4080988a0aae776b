"""A subject's whole life: built, asked for everything that it offers, closed, dropped; and what is left of it."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from verifier.adapter import Subject
from verifier.checks.subjects import open_points
from verifier.observing.capabilities import require
from verifier.observing.case import Case


def exercise(case: Case, subject: Subject) -> None:
    """Have everything done once that the subject offers: read, switch, edit, differentiate, decode, train, evaluate."""
    inputs = case.reference.inputs()
    assert inputs.input_ids is not None
    with torch.no_grad(), _reading(case, subject):
        subject.forward(inputs)
    with torch.enable_grad(), _editing(case, subject):
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
def _reading(case: Case, subject: Subject) -> Iterator[None]:
    """Every canonical point is read, with its switch turned on where it has one."""
    if subject.hooks is None:
        yield
        return
    hooks: Any = subject.hooks
    names = frozenset(one.name for one in case.reference.points) & hooks.names().keys()
    with hooks.switched(names), hooks.hooked(dict.fromkeys(names, _read), {}):
        yield


@contextlib.contextmanager
def _editing(case: Case, subject: Subject) -> Iterator[None]:
    """The first canonical point is edited."""
    points = open_points(case, subject)
    if not points:
        yield
        return
    with require(subject.hooks).hooked({points[0]: _doubled}, {}):
        yield


def _read(_value: Tensor) -> None: ...


def _doubled(value: Tensor) -> Tensor:
    return value * 2


def live_and_die(case: Case) -> weakref.ref[Any]:
    """A subject that nobody keeps; what is given back is whether its model is still there."""
    model = case.reference.build()
    subject = case.subject.adapter.wrap(model)
    exercise(case, subject)
    subject.close()
    return weakref.ref(model)


@contextlib.contextmanager
def apart_from_all_before() -> Iterator[None]:
    """Inside it only what comes now is looked at when memory is gone through: that is fast, where all of it is slow.

    Where the process has set its beginnings apart already, they stay so, and little else is there.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def live_tensors() -> int:
    """How many tensors there are, when all that can go has gone."""
    gc.collect()
    # By the type alone: asking some objects of torch for their class warns.
    return sum(issubclass(type(one), Tensor) for one in gc.get_objects())
