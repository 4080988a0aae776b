"""Snapshots of what an adapter may change when it wraps a model: HF's classes and modules, torch's state, the model."""

from __future__ import annotations

import contextlib
import copy
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from verifier.adapter import Adapter, Capability, Change, Subject, subject_fault
from verifier.errors import OutdatedAdapter, all_but_interrupts, type_name
from verifier.family import Family
from verifier.judging.raising import is_raised_by_harness
from verifier.reference import models
from verifier.reference.class_memos import fill_class_memos
from verifier.reference.process_state import preserve_random_states

# Names that Python and torch fill in by themselves as code runs.
_SELF_FILLED = frozenset(
    {"__warningregistry__", "__annotations__", "__annotate__", "__abstractmethods__", "_abc_impl", "__builtins__"}
)


class Surroundings:
    """A snapshot of what is outside a model: the classes it is made of, their modules, torch's global state."""

    def __init__(self, model: nn.Module) -> None:
        """Take the snapshot.

        Args:
            model: whose classes are watched, with their bases and the Hugging Face modules that define them.
        """
        kinds = frozenset(type(module) for module in model.modules())
        fill_class_memos(kinds)
        self._watched = _watched(kinds)
        # The values: while they are held, no identity is given out again.
        self._held = [list(vars(one).values()) for one in self._watched.values()]
        self._before = self._take()

    def _take(self) -> dict[str, dict[str, Any]]:
        """Read every class, module and setting of torch by label and name: a registry's contents, else an identity."""
        seen: set[int] = set()
        return {**{label: _read_names(one, seen) for label, one in self._watched.items()}, "torch": _torch_state()}

    def _changes(self, is_unchanged: Callable[[str, Any, Any], bool]) -> list[str]:
        """List the names of what is not unchanged, sorted, given each label, value before and value now."""
        now = self._take()
        return sorted(
            f"{label}: {name}"
            for label, names in self._before.items()
            if names != now[label]
            for name in names.keys() | now[label].keys()
            if not is_unchanged(label, names.get(name), now[label].get(name))
        )

    def differences(self) -> list[str]:
        """List the names of what is no longer as it was, sorted."""
        return self._changes(lambda _, before, now: bool(before == now))

    def changes(self) -> list[str]:
        """List the names of what does something else now, sorted; an addition to a module or a registry is no change.

        HF itself notes each class that it meets in registries of its own, and fills caches that were None.
        """

        def is_unchanged(label: str, before: Any, now: Any) -> bool:
            is_new = label.startswith("module ") and before in (None, id(None)) and now is not None
            return is_new or _still_in(before, now)

        return self._changes(is_unchanged)


def _read_names(namespace: Any, seen: set[int]) -> dict[str, Any]:
    """Read a class or module by name. A registry that several import is looked into where it is met first."""
    values = {name: value for name, value in vars(namespace).items() if name not in _SELF_FILLED}
    read: dict[str, Any] = _identities(values)
    for name, value in values.items():
        if _is_registry(type(value)) and id(value) not in seen:  # type: ignore[arg-type]  # a class can be hashed
            seen.add(id(value))
            read[name] = _contents(value)
    return read


@functools.cache  # asked of thousands of values, which are of few classes
def _is_registry(kind: type) -> bool:
    return issubclass(kind, list | set | frozenset | tuple | Mapping)


def _contents(value: Any) -> Any:
    """Read a registry's contents by identity, so that a new entry shows, and any other value's own identity."""
    if isinstance(value, dict):
        return _identities(value)
    if type(value) in (list, set, frozenset, tuple):
        return (type(value).__name__, tuple(map(id, value)))
    if isinstance(value, Mapping):  # a registry class of HF's, which keeps its entries in dicts of its own
        kept = [*vars(value).values(), *vars(type(value)).values()]
        return (id(value), *(_identities(one) for one in kept if isinstance(one, dict)))
    return id(value)


def _identities(names: Mapping[Any, Any]) -> dict[Any, int]:
    if isinstance(names, dict):  # `dict`'s own methods: a registry may make its entries when they are asked for
        return dict(zip(dict.keys(names), map(id, dict.values(names)), strict=True))
    return dict(zip(names, map(id, names.values()), strict=True))


def _still_in(before: Any, now: Any) -> bool:
    """Whether all that a registry held is still in it; whether any other value is the same."""
    if isinstance(before, dict) and isinstance(now, dict):
        return before.items() <= now.items()
    if isinstance(before, tuple) and isinstance(now, tuple) and len(before) == len(now):
        return all(_still_in(one, other) for one, other in zip(before, now, strict=True))
    return bool(before == now)


@functools.cache
def _watched(kinds: frozenset[type]) -> dict[str, Any]:
    """Find by label the classes of a model with their bases, and the Hugging Face modules that define them."""
    classes = {base for kind in kinds for base in kind.__mro__ if base is not object}
    modules = {one.__module__ for one in classes if _is_hf(one.__module__)}
    # Registries of activations and attention functions are in HF's other modules, which these use.
    used = [value for name in modules if name in sys.modules for value in vars(sys.modules[name]).values()]
    modules |= {str(value.__module__) for value in used if _is_hf(getattr(value, "__module__", None))}
    found: dict[str, Any] = {f"class {one.__module__}.{one.__qualname__}": one for one in classes}
    found |= {f"module {name}": sys.modules[name] for name in modules if name in sys.modules}
    return dict(sorted(found.items()))


_AT_FIRST: dict[str, Surroundings | None] = {}


@preserve_random_states()
def remember(family: Family) -> None:
    """Take a snapshot of the family's classes before an adapter is imported; a second call changes nothing.

    An adapter that patches these classes, at its import or later, changes the reference as much as the subject, and
    the two still agree. A family that cannot build its plainest model gets no snapshot: `reference.acceptance` reports
    that.
    """
    if family.name in _AT_FIRST:
        return
    try:
        model = family.build(
            family.dims(), dtype=torch.float32, device="cpu", attention=family.reference_attention, seed=0
        )
        # What HF itself fills in when it first draws weights and first runs is filled in.
        type(model)(copy.deepcopy(model.config))
        with torch.no_grad():
            models.forward(model, models.any_tokens(model))
        with contextlib.suppress(Exception):  # a family that loads no checkpoint fills nothing in
            models.save_and_load(
                model, family, family.dims(), dtype=torch.float32, device="cpu", attention=family.reference_attention
            )
    except Exception:
        _AT_FIRST[family.name] = None
        return
    _AT_FIRST[family.name] = Surroundings(model)


def changed_since_first(family: Family) -> list[str]:
    """List the names of what an adapter changed in the family's classes since `remember`, sorted."""
    first = _AT_FIRST.get(family.name)
    return [] if first is None else first.changes()


def _is_hf(module: object) -> bool:
    return isinstance(module, str) and module.partition(".")[0] == "transformers"


def _torch_state() -> dict[str, Any]:
    return {
        "default dtype": torch.get_default_dtype(),
        "gradients enabled": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "scaled_dot_product_attention": id(torch.nn.functional.scaled_dot_product_attention),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "module hooks for all": tuple(
            len(getattr(torch_module, name))
            for name in sorted(vars(torch_module))
            if name.startswith("_global_") and isinstance(getattr(torch_module, name), dict)
        ),
    }


class ModelState:
    """A snapshot of a model that an adapter is about to be given."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._names = _module_names(model)
        self._modules = [(module, type(module).__name__, _module_state(module)) for module in model.modules()]
        named: dict[Change, Any] = {"parameters": model.named_parameters(), "buffers": model.named_buffers()}
        self._tensors = [
            (kind, name, one, one.detach().clone(), one.requires_grad)
            for kind, tensors in named.items()
            for name, one in tensors
        ]
        self._config, self._attention = _config_of(model)

    def changes(self) -> dict[Change, str]:
        """Find what is not as it was: each kind of change with the first place where it is seen."""
        first: dict[Change, str] = {}
        for kind, place in self._every_change():
            first.setdefault(kind, place)
        return first

    def _every_change(self) -> Iterator[tuple[Change, str]]:
        for name in edited_keys(self._names, _module_names(self._model)):
            yield "modules", name
        for module, label, before in self._modules:
            for aspect, value in _module_state(module).items():
                if value != before[aspect]:
                    yield aspect, label
        in_model = {id(one) for one in (*self._model.parameters(), *self._model.buffers())}
        for kind, name, tensor, value, required in self._tensors:
            frozen = kind == "parameters" and tensor.requires_grad != required
            if frozen or id(tensor) not in in_model or not _unchanged(tensor, value):
                yield kind, name
        config, attention = _config_of(self._model)
        for key in edited_keys(self._config, config):
            yield "config", key
        if attention != self._attention:
            yield "attention", f"{self._attention} became {attention}"


def _module_names(model: nn.Module) -> dict[str, int]:
    return {name: id(module) for name, module in model.named_modules()}


def _module_state(module: nn.Module) -> dict[Change, Any]:
    """Read what may change of a module itself; a module of another class has another forward."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return {
        "forwards": (type(module), module.__dict__.get("forward")),
        "hooks": tuple(map(len, hooks)),
        "mode": module.training,
    }


def edited_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """List the keys whose values differ between two mappings, sorted: of configs, the changed fields.

    Args:
        before: the values before.
        after: the values after; a missing key counts as None.
    """
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _unchanged(tensor: Tensor, value: Tensor) -> bool:
    return tensor.dtype == value.dtype and tensor.shape == value.shape and torch.equal(tensor.detach(), value)


def _config_of(model: nn.Module) -> tuple[dict[str, Any], str | None]:
    config: Any = getattr(model, "config", None)
    if config is None:
        return {}, None
    return config.to_dict(), getattr(config, "_attn_implementation", None)


class Wrapping:
    """What happened when the adapter wrapped a model.

    Attributes:
        tied: whether the model's embedding and unembedding were one parameter before.
        surroundings: what was outside the model before.
        state: the model before.
        subject: what `wrap` returned; None where it raised.
        error: what `wrap` raised, or its result as it was looked at; None where nothing did.
    """

    def __init__(self, adapter: Adapter, model: Any) -> None:
        # Taken first: the adapter may replace any of it.
        self.tied = models.is_tied(model)
        self.surroundings = Surroundings(model)
        self.state = ModelState(model)
        self.subject: Subject | None = None
        self.error: BaseException | None = None
        try:
            self.subject = adapter.wrap(model)
        except all_but_interrupts() as error:
            self.error = error

    @functools.cached_property
    def fault(self) -> str | None:
        """Why the result of `wrap` is no subject, in one line; None where it is one.

        A subject that raises where it is asked what it offers is none, and what it raises becomes `error`.
        """
        try:
            fault = subject_fault(self.subject)
            if fault is None:
                for capability in get_args(Capability):
                    getattr(self.subject, capability)
        except all_but_interrupts() as error:
            if issubclass(type(error), OutdatedAdapter) and is_raised_by_harness(error):
                raise
            self.error, fault = error, f"it raises {type_name(error)} where it is asked what it offers"
        return fault

    @property
    def is_subject(self) -> bool:
        """Whether the result of `wrap` is a subject."""
        return self.fault is None
