"""A snapshot of what all cases of a process share: torch's settings, Python's, the system's, and the code itself.

An adapter that changes any of it while it is at one case makes the next ones fail, which are innocent.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import locale
import operator
import os
import random
import resource
import signal
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor, nn

_BACKENDS: Mapping[str, tuple[str, ...]] = {
    "cuda": ("flash_sdp_enabled", "mem_efficient_sdp_enabled", "math_sdp_enabled", "cudnn_sdp_enabled"),
    "cudnn": ("enabled", "benchmark", "deterministic", "allow_tf32"),
    "mkldnn": ("enabled",),
}
_LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]
_OF_SYS = ("excepthook", "unraisablehook", "displayhook", "getswitchinterval", "getrecursionlimit", "gettrace")

_SIGNALS = sorted(signal.valid_signals())

Read = Callable[[], Any]


def torch_settings() -> dict[str, Any]:
    """Read torch's global settings by name."""
    found: dict[str, Any] = {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "gradient mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
    }
    for name, attributes in _BACKENDS.items():
        backend = getattr(torch.backends, name)
        for attribute in attributes:
            value = getattr(backend, attribute, None)
            found[f"torch.backends.{name}.{attribute}"] = value() if callable(value) else value
    return found


_numpys, _set_numpys = numpy.random.get_bit_generator, numpy.random.set_bit_generator  # type: ignore[attr-defined]


class _Numpys(NamedTuple):
    generator: Any
    state: Any


def _read_numpy() -> _Numpys:
    generator = _numpys()
    return _Numpys(generator, generator.state)


def _put_numpy(held: _Numpys) -> None:
    held.generator.state = held.state
    _set_numpys(held.generator)


# How the state of each generator (torch's of the CPU) is read and put back; held here, because an adapter may patch it.
_GENERATORS: Mapping[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "random numbers of torch": (torch.get_rng_state, torch.set_rng_state),
    "random numbers of Python": (random.getstate, random.setstate),
    "random numbers of numpy": (_read_numpy, _put_numpy),
}


def random_states() -> dict[str, object]:
    """Read the states of the random generators of torch, of Python and of numpy, by name, as what can be compared."""
    return {name: _comparable(read()) for name, (read, _) in _GENERATORS.items()}


def _comparable(state: Any) -> object:
    if isinstance(state, Mapping):
        return {name: _comparable(one) for name, one in state.items()}
    if isinstance(state, Tensor):
        state = state.numpy()
    if isinstance(state, _Numpys):
        return state.generator, _comparable(state.state)
    return state.tobytes() if isinstance(state, numpy.ndarray) else state


@contextlib.contextmanager
def preserve_random_states() -> Iterator[None]:
    """Put the random generators of torch, of Python and of numpy back to where they were."""
    states = [(put, read()) for read, put in _GENERATORS.values()]
    try:
        yield
    finally:
        for put, state in states:
            put(state)


class ProcessState:
    """A snapshot of the process.

    Invariant: what it read is held, so that no identity is given out again.
    """

    def __init__(self) -> None:
        """Take the snapshot."""
        self._torch, self._settings, self._random = torch_settings(), _settings(), random_states()
        self._allow_imports()
        self._code = {label: (owner, *_functions(owner)) for label, owner in _owners().items()}
        # What is added to a class takes the place of what it inherits; what is added to a module is an import.
        self._classes = {label: set(vars(one[0])) for label, one in self._code.items() if isinstance(one[0], type)}

    def _allow_imports(self) -> None:
        """Take what importing a module may add to: filters of warnings, and variables of the environment."""
        self._modules, self._filters, self._environment = len(sys.modules), list(warnings.filters), dict(os.environ)

    def differences(self) -> dict[str, str]:
        """Find what is no longer as it was: what became of each, by name; settings first, then variables, then code.

        What a module adds to the filters of warnings and to the environment as it is imported is no difference.
        """
        settings = _differing(self._settings, _settings()) | dict.fromkeys(self._drawn(), _OTHERS)
        found = {**self._of_reference(), **settings, **self._around_imports()}
        if not found:
            self._allow_imports()
        return found

    def spoils_reference(self) -> bool:
        """Whether something is changed by which Hugging Face's model computes something else, or does not run."""
        return bool(self._of_reference())

    def allow_draws(self) -> None:
        """Take that random numbers were drawn or seeded, which something else has told."""
        self._random = {}

    def _drawn(self) -> list[str]:
        now = random_states()
        return [name for name, state in self._random.items() if now[name] != state]

    def _of_reference(self) -> dict[str, str]:
        return {**_differing(self._torch, torch_settings()), **dict(self._each_patch())}

    def _each_patch(self) -> Iterator[tuple[str, str]]:
        for label, (owner, names, functions) in self._code.items():
            found = list(map(vars(owner).get, names))
            if any(map(operator.is_not, found, functions)):
                pairs = zip(names, found, functions, strict=True)
                yield from ((f"{label}.{name}", _OTHER) for name, one, old in pairs if one is not old)
        for label, there_before in self._classes.items():
            for name in sorted(vars(self._code[label][0]).keys() - there_before):
                yield f"{label}.{name}", "it is written into the class"

    def _around_imports(self) -> dict[str, str]:
        imported = len(sys.modules) > self._modules
        variables, filters = dict(os.environ), list(warnings.filters)
        if imported:
            variables = {name: value for name, value in variables.items() if name in self._environment}
            filters = [one for one in filters if one in self._filters]
        # Its values are nobody's business: some are secrets.
        found = {f"environment variable {name}": _OTHER for name in _differing(self._environment, variables)}
        return found if filters == self._filters else {**found, "filters of warnings": "they are others now"}


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    names = [*before, *sorted(now.keys() - before.keys())]
    return {name: _became(before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)}


_LONG, _OTHER, _OTHERS = 60, "it is another one now", "they are drawn or seeded"


def _became(before: Any, now: Any) -> str:
    words = f"{before} became {now}"
    return words if len(words) < _LONG else _OTHER


def _owners() -> dict[str, Any]:
    """Find by name the modules and classes whose functions the harness calls, its own modules among them."""
    ours = [one for name, one in list(sys.modules.items()) if name.partition(".")[0] == "verifier" and one is not None]
    used = {_module_of(value) for module in ours for value in list(vars(module).values())}
    found = {name: sys.modules[name] for name in used if name in sys.modules}
    found |= {module.__name__: module for module in ours} | {"builtins": builtins}
    classes = {"torch.Tensor": torch.Tensor, "torch.nn.Module": nn.Module, "torch.nn.Parameter": nn.Parameter}
    return dict(sorted(found.items())) | classes


def _module_of(value: Any) -> str:
    name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
    return name if isinstance(name, str) else ""


def _functions(owner: Any) -> tuple[list[str], list[Any]]:
    """Read the functions, classes and modules in a module or a class, with their names: what is data may change."""
    found = [
        (name, one) for name, one in list(vars(owner).items()) if callable(one) or isinstance(one, types.ModuleType)
    ]
    return [name for name, _ in found], [one for _, one in found]


def _settings() -> dict[str, Any]:
    """Read Python's and the system's settings by name."""
    found: dict[str, Any] = {}
    found["working folder"] = _or_error(os.getcwd)
    found["umask"] = _or_error(_umask)
    found["locale"] = _or_error(lambda: locale.setlocale(locale.LC_ALL))
    found["garbage collection"] = gc.isenabled(), gc.get_threshold()
    for name in _OF_SYS:
        value = getattr(sys, name)
        found[f"sys.{name}"] = value() if name.startswith("get") else value
    for name in _LIMITS:
        found[name] = resource.getrlimit(getattr(resource, name))
    for number in _SIGNALS:
        found[f"handler of {_signal_name(number)}"] = signal.getsignal(number)
    return found


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _signal_name(number: int) -> str:
    return number.name if isinstance(number, signal.Signals) else str(number)


def _or_error(read: Read) -> Any:
    """What a function gives, or what it raises, in words: a working folder may be gone, which is a state too."""
    try:
        return read()
    except Exception as error:
        return repr(error)
