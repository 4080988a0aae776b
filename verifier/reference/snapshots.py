"""What an adapter changes when it is given a model: of HF's classes and modules, of torch's state, of the model."""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from verifier.adapter import Adapter, Change, Subject, subject_fault
from verifier.errors import one_line
from verifier.family import Family
from verifier.reference import models

# Names that Python and torch fill in by themselves as code runs.
_SELF_FILLED = frozenset(
    {"__warningregistry__", "__annotations__", "__annotate__", "__abstractmethods__", "_abc_impl", "__builtins__"}
)


def _contents(value: Any) -> Any:
    """A registry's contents by identity, so that what is put into it shows; any other thing's identity."""
    if isinstance(value, dict):
        return _entries(value)
    if type(value) in (list, set, frozenset, tuple):
        return (type(value).__name__, tuple(map(id, value)))
    if isinstance(value, Mapping):  # a registry class of HF's, which keeps its entries in dicts of its own
        kept = [*vars(value).values(), *vars(type(value)).values()]
        return (id(value), *(_entries(one) for one in kept if isinstance(one, dict)))
    return id(value)


def _entries(registry: dict[Any, Any]) -> Any:
    # `dict`'s own methods, because a registry may make its entries when they are asked for. Two tuples, because a set
    # of pairs takes three times as long, and there are hundreds of registries.
    return _Entries((tuple(dict.keys(registry)), tuple(map(id, dict.values(registry)))))


class _Entries(tuple[tuple[Any, ...], tuple[int, ...]]):
    """A registry's keys, and the identities of their values."""

    __slots__ = ()

    @property
    def pairs(self) -> frozenset[tuple[Any, int]]:
        return frozenset(zip(*self, strict=True))


def _still_in(before: Any, now: Any) -> bool:
    if isinstance(before, _Entries) and isinstance(now, _Entries):
        return before.pairs <= now.pairs
    if isinstance(before, tuple) and isinstance(now, tuple) and len(before) == len(now):
        return all(_still_in(one, other) for one, other in zip(before, now, strict=True))
    return bool(before == now)


class Surroundings:
    """A snapshot of what is outside a model: the classes it is made of, their modules, torch's global state."""

    def __init__(self, model: nn.Module) -> None:
        """Take it.

        Args:
            model: whose classes are watched, with their bases and the Hugging Face modules that define them.
        """
        self._watched = _watched(frozenset(type(module) for module in model.modules()))
        self._seen, self._torch = self._look(), _torch_state()

    def _look(self) -> list[_Namespace]:
        return [_Namespace.now(label, vars(one)) for label, one in self._watched.items()]

    def _then_and_now(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Everything by name, as it was and as it is; nothing at all where both are the same."""
        torch_now = _torch_state()
        if torch_now == self._torch and all(
            seen.is_as(vars(one)) for seen, one in zip(self._seen, self._watched.values(), strict=True)
        ):
            return {}, {}
        return _named(self._seen) | self._torch, _named(self._look()) | torch_now

    def differences(self) -> list[str]:
        """What is no longer as it was, by name."""
        then, now = self._then_and_now()
        return sorted(key for key in then.keys() | now.keys() if then.get(key) != now.get(key))

    def changes(self) -> list[str]:
        """What of it does something else now, by name: not what was only added to a module or a registry.

        HF itself notes each class that it meets in registries of its own, and fills caches that were None.
        """
        then, now = self._then_and_now()
        added = {key for key in now if key.startswith("module ") and then.get(key, _NOTHING) == _NOTHING}
        return sorted(key for key in (then.keys() | now.keys()) - added if not _still_in(then.get(key), now.get(key)))


class _Namespace:
    """A class's or a module's names at one moment: whose they were, and what the registries among them held."""

    __slots__ = ("contents", "held", "identities", "label", "names")

    _last: ClassVar[dict[str, _Namespace]] = {}

    @classmethod
    def now(cls, label: str, names: Mapping[str, Any]) -> _Namespace:
        """As they are now: the last look at them, where nothing has changed since, which takes a third of a new one."""
        last = cls._last.get(label)
        if last is None or not last.is_as(names):
            last = cls._last[label] = cls(label, names)
        return last

    def __init__(self, label: str, names: Mapping[str, Any]) -> None:
        self.label = label
        self.held = list(names.values())  # so that no identity is given out again while this lives
        self.names = tuple(names)
        self.identities = tuple(map(id, self.held))
        self.contents = {
            name: _contents(value)
            for name, value in names.items()
            if name not in _SELF_FILLED and _has_contents(value)  # all of Python's builtins are in each module
        }

    def is_as(self, names: Mapping[str, Any]) -> bool:
        """Whether these names are as they were then; told without a look at each."""
        if self.names != tuple(names) or self.identities != tuple(map(id, names.values())):
            return False
        return all(_contents(names[name]) == held for name, held in self.contents.items())


def _named(seen: list[_Namespace]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    looked_into: set[int] = set()  # a registry that several modules import is looked into at the first
    for space in seen:
        for name, identity in zip(space.names, space.identities, strict=True):
            if name not in _SELF_FILLED:
                first = name in space.contents and identity not in looked_into
                named[f"{space.label}: {name}"] = space.contents[name] if first else identity
                looked_into.add(identity)
    return named


def _has_contents(value: Any) -> bool:
    return type(value) in (dict, list, set, frozenset, tuple) or isinstance(value, Mapping)


@functools.cache
def _watched(kinds: frozenset[type]) -> dict[str, Any]:
    """By label: the classes of a model with their bases, and the Hugging Face modules that define them."""
    classes = {base for kind in kinds for base in kind.__mro__ if base is not object}
    modules = {one.__module__ for one in classes if _is_hf(one.__module__)}
    # What they use of HF's other modules lives there: the registries of activations and attention functions.
    used = [value for name in modules if name in sys.modules for value in vars(sys.modules[name]).values()]
    modules |= {str(value.__module__) for value in used if _is_hf(getattr(value, "__module__", None))}
    found: dict[str, Any] = {f"class {one.__module__}.{one.__qualname__}": one for one in classes}
    found |= {f"module {name}": sys.modules[name] for name in modules if name in sys.modules}
    return dict(sorted(found.items()))


_NOTHING = id(None)

_AT_FIRST: dict[str, Surroundings | None] = {}


def remember(family: Family) -> None:
    """Note how the family's classes are now, before an adapter is imported; a second call changes nothing.

    An adapter that patches them at its import, or for the next case, changes the reference as much as the subject,
    and then the two agree. Of a family that cannot build its plainest model nothing is noted: `reference.acceptance`
    reports that.
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
            model(input_ids=torch.zeros(1, 2, dtype=torch.long))
    except Exception:
        _AT_FIRST[family.name] = None
        return
    _AT_FIRST[family.name] = Surroundings(model)


def changed_since_first(family: Family) -> list[str]:
    """What of it is no longer as it was, by name."""
    first = _AT_FIRST.get(family.name)
    return [] if first is None else first.changes()


def _is_hf(module: object) -> bool:
    return isinstance(module, str) and module.partition(".")[0] == "transformers"


def _torch_state() -> dict[str, Any]:
    return {
        "torch: default dtype": torch.get_default_dtype(),
        "torch: gradients enabled": torch.is_grad_enabled(),
        "torch: deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch: anomaly detection": torch.is_anomaly_enabled(),
        "torch: scaled_dot_product_attention": id(torch.nn.functional.scaled_dot_product_attention),
        "torch: float32 matmul precision": torch.get_float32_matmul_precision(),
        "torch: module hooks for all": tuple(
            len(getattr(torch_module, name))
            for name in sorted(vars(torch_module))
            if name.startswith("_global_") and isinstance(getattr(torch_module, name), dict)
        ),
    }


class ModelState:
    """A snapshot of a model that an adapter is about to be given."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modules = {name: id(module) for name, module in model.named_modules()}
        self._held = list(model.modules())
        # A module of another class is one with another forward.
        self._forwards = {id(module): (type(module), module.__dict__.get("forward")) for module in self._held}
        self._hooks = {id(module): _hook_counts(module) for module in self._held}
        self._modes = {id(module): module.training for module in self._held}
        self._parameters = [
            (name, one, one.detach().clone(), one.requires_grad) for name, one in model.named_parameters()
        ]
        self._buffers = [(name, one, one.detach().clone()) for name, one in model.named_buffers()]
        self._config, self._attention = _config_of(model)

    def changes(self) -> dict[Change, str]:
        """What is not as it was, each kind with its first place."""
        model = self._model
        found: dict[Change, str] = {}

        def note(kind: Change, place: str) -> None:
            found.setdefault(kind, place)

        names = {name: id(module) for name, module in model.named_modules()}
        for name in sorted(self._modules.keys() | names.keys()):
            if self._modules.get(name) != names.get(name):
                note("modules", name)
        for module in self._held:
            original, forward = self._forwards[id(module)]
            label = original.__name__
            if type(module) is not original or module.__dict__.get("forward") is not forward:
                note("forwards", label)
            if _hook_counts(module) != self._hooks[id(module)]:
                note("hooks", label)
            if module.training != self._modes[id(module)]:
                note("mode", label)
        for name, parameter, value, required in self._parameters:
            if parameter.requires_grad != required or not _unchanged(parameter, value):
                note("parameters", name)
        for name, buffer, value in self._buffers:
            if not _unchanged(buffer, value):
                note("buffers", name)
        for kind, before in (("parameters", self._parameters), ("buffers", self._buffers)):
            kept = {id(one) for one in (*model.parameters(), *model.buffers())}
            for name, one, *_ in before:
                if id(one) not in kept:
                    note(kind, name)  # type: ignore[arg-type]
        config, attention = _config_of(model)
        for key in edited_keys(self._config, config):
            note("config", key)
        if attention != self._attention:
            note("attention", f"{self._attention} became {attention}")
        return found


def edited_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The fields of a config that are not what they were, sorted."""
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _hook_counts(module: nn.Module) -> tuple[int, ...]:
    return (
        len(module._forward_hooks),
        len(module._forward_pre_hooks),
        len(module._backward_hooks),
        len(module._backward_pre_hooks),
    )


def _unchanged(tensor: Tensor, value: Tensor) -> bool:
    return tensor.dtype == value.dtype and tensor.shape == value.shape and torch.equal(tensor.detach(), value)


def _config_of(model: nn.Module) -> tuple[dict[str, Any], str | None]:
    config: Any = getattr(model, "config", None)
    if config is None:
        return {}, None
    return config.to_dict(), getattr(config, "_attn_implementation", None)


class Wrapping:
    """What happened when the adapter was given a model."""

    def __init__(self, adapter: Adapter, model: Any) -> None:
        # Taken before the adapter may replace any of it.
        self.tied = models.is_tied(model)
        self.surroundings = Surroundings(model)
        self.state = ModelState(model)
        self.subject: Subject | None = None
        self.error: Exception | None = None
        try:
            self.subject = adapter.wrap(model)
        except SystemExit as error:  # a process is not an adapter's to end
            self.error = RuntimeError(f"wrap raised {one_line(error)}").with_traceback(error.__traceback__)
        except Exception as error:
            self.error = error

    @functools.cached_property
    def fault(self) -> str | None:
        """Why what it gave back is no subject, in one line; None where it is one."""
        return subject_fault(self.subject)

    @property
    def is_subject(self) -> bool:
        """Whether what it gave back is a subject."""
        return self.fault is None
