"""What all cases of a process share is compared with what it was."""

from __future__ import annotations

import builtins
import contextlib
import gc
import json
import locale
import os
import random
import resource
import signal
import sys
import types
import warnings
from collections.abc import Callable

import numpy
import pytest
import torch

from verifier.judging import numerics
from verifier.reference.process_state import ProcessState, preserve_random_states, random_states

Undo = Callable[[], object]


def _handle() -> Undo:
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    return lambda: signal.signal(signal.SIGUSR2, before)


def _limit() -> Undo:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _calling(change: Callable[[], object], undo: Undo) -> Callable[[], Undo]:
    def act() -> Undo:
        change()
        return undo

    return act


def _patching(owner: object, name: str) -> Callable[[], Undo]:
    right = getattr(owner, name)
    return _calling(lambda: setattr(owner, name, lambda *given: right(*given)), lambda: setattr(owner, name, right))


def _random(change: Callable[[], object]) -> Callable[[], Undo]:
    def act() -> Undo:
        entered = contextlib.ExitStack()
        entered.enter_context(preserve_random_states())
        change()
        return entered.close

    return act


HERE, MASK, DEEP = os.getcwd(), 0o22, sys.getrecursionlimit()
CHANGES: dict[str, Callable[[], Undo]] = {
    "default dtype": _calling(
        lambda: torch.set_default_dtype(torch.float16), lambda: torch.set_default_dtype(torch.float32)
    ),
    "default device": _calling(lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)),
    "gradient mode": _calling(lambda: torch.set_grad_enabled(False), lambda: torch.set_grad_enabled(True)),
    "deterministic algorithms": _calling(
        lambda: torch.use_deterministic_algorithms(True), lambda: torch.use_deterministic_algorithms(False)
    ),
    "anomaly detection": _calling(
        lambda: torch.autograd.set_detect_anomaly(True), lambda: torch.autograd.set_detect_anomaly(False)
    ),
    "threads": _calling(lambda: torch.set_num_threads(2), lambda: torch.set_num_threads(1)),
    "filters of warnings": _calling(
        lambda: warnings.filters.append(("ignore", None, Warning, None, 7)), lambda: warnings.filters.pop()
    ),
    "working folder": _calling(lambda: os.chdir("/"), lambda: os.chdir(HERE)),
    "random numbers of torch": _random(lambda: torch.rand(1)),
    "random numbers of Python": _random(random.random),
    "random numbers of numpy": _random(lambda: numpy.random.normal(1)),
    "umask": _calling(lambda: os.umask(0o1), lambda: os.umask(MASK)),
    "locale": _calling(
        lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8"), lambda: locale.setlocale(locale.LC_ALL, "C")
    ),
    "garbage collection": _calling(gc.disable, gc.enable),
    "sys.getrecursionlimit": _calling(lambda: sys.setrecursionlimit(DEEP + 9), lambda: sys.setrecursionlimit(DEEP)),
    "RLIMIT_NOFILE": _limit,
    "handler of SIGUSR2": _handle,
    "environment variable OF_A_TEST": _calling(
        lambda: os.environ.update(OF_A_TEST="1"), lambda: os.environ.pop("OF_A_TEST")
    ),
    "json.dumps": _patching(json, "dumps"),
    "torch.zeros": _patching(torch, "zeros"),
    "torch.Tensor.clone": _calling(
        lambda: setattr(torch.Tensor, "clone", lambda tensor: tensor), lambda: delattr(torch.Tensor, "clone")
    ),
    "builtins.sorted": _patching(builtins, "sorted"),
    "verifier.judging.numerics.rms": _patching(numerics, "rms"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_named(name: str) -> None:
    mask, spoken = os.umask(MASK), locale.setlocale(locale.LC_ALL)
    locale.setlocale(locale.LC_ALL, "C")
    try:
        state = ProcessState()
        assert state.differences() == {}
        undo = CHANGES[name]()
        try:
            found = state.differences()
        finally:
            undo()
        assert next(iter(found)) == name  # torch.Storage follows the default dtype
        assert state.differences() == {}
    finally:
        os.umask(mask)
        locale.setlocale(locale.LC_ALL, spoken)


def test_it_is_said_what_became_of_a_setting() -> None:
    state = ProcessState()
    torch.set_default_dtype(torch.float16)
    try:
        assert state.differences()["default dtype"] == "torch.float32 became torch.float16"
    finally:
        torch.set_default_dtype(torch.float32)


def test_draws_that_something_else_has_told_are_no_change_and_spoil_nothing() -> None:
    with preserve_random_states():
        state = ProcessState()
        torch.manual_seed(7)
        assert list(state.differences()) == ["random numbers of torch"]
        assert not state.spoils_reference()
        state.allow_draws()
        assert state.differences() == {}


def test_a_function_that_calls_itself_equal_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Equal:
        def __call__(self) -> None: ...
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    state = ProcessState()
    monkeypatch.setattr(json, "dumps", Equal())
    assert list(state.differences()) == ["json.dumps"]


def test_what_is_imported_meanwhile_is_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    state = ProcessState()
    monkeypatch.setitem(sys.modules, "imported_meanwhile", types.ModuleType("imported_meanwhile"))
    monkeypatch.setenv("OF_AN_IMPORT", "1")
    monkeypatch.setattr(warnings, "filters", [*warnings.filters, ("ignore", None, Warning, None, 7)])
    assert state.differences() == {}
    # Later, when nothing is imported, such a change is one.
    monkeypatch.setenv("OF_AN_IMPORT", "2")
    monkeypatch.setattr(warnings, "filters", warnings.filters[:-1])
    assert list(state.differences()) == ["environment variable OF_AN_IMPORT", "filters of warnings"]
    assert not state.spoils_reference()


def test_random_states_are_put_back_whoever_has_patched_how(monkeypatch: pytest.MonkeyPatch) -> None:
    before = random_states()
    with preserve_random_states():
        torch.rand(1)
        random.random()
        numpy.random.normal()
        for owner, name in ((torch, "set_rng_state"), (random, "setstate"), (numpy.random, "set_state")):
            monkeypatch.setattr(owner, name, None)
        assert random_states() != before
    assert random_states() == before
