"""What an adapter under test must look like: the protocols that its author implements, and where it is found.

An adapter wraps one Hugging Face model and gives back a *subject*, whose class derives from `Subject`. What a subject
can do beyond `forward` is a capability: an attribute with the capability's name, which is None where the subject has
none. A check that needs a capability that is None is not applicable, and counted as such.
"""

from __future__ import annotations

import inspect
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

from verifier import plugins
from verifier.errors import OutdatedAdapter, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

GROUP = "verifier.adapters"
DEFAULT = "bridge"
_ABSENT = object()

Capability = Literal["hooks", "weights", "restore", "processings", "cache", "components", "modes"]
CAPABILITIES: tuple[Capability, ...] = ("hooks", "weights", "restore", "processings", "cache", "components", "modes")

Change = Literal["modules", "forwards", "hooks", "parameters", "buffers", "config", "attention", "mode"]
# What wrapping may change in the model that it is given, by declaring it in `Subject.declared_mutations`.
CHANGES: Mapping[Change, str] = {
    "modules": "submodules are replaced or added",
    "forwards": "forwards are patched on instances",
    "hooks": "torch module hooks are registered",
    "parameters": "parameters are replaced, or their values or requires_grad change",
    "buffers": "buffers are replaced, or their values change",
    "config": "the model's own config is edited",
    "attention": "the model's attention implementation is switched",
    "mode": "train or eval mode is switched",
}


class AdapterRefusal(Exception):
    """An adapter's clear answer to a model that it cannot wrap: its message says what it cannot do, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a forward is called with; what is None is not passed on.

    Attributes:
        input_ids: `[batch, pos]`, int64; exactly one of this and `inputs_embeds` is given.
        inputs_embeds: `[batch, pos, d_model]`, in the model's dtype.
        attention_mask: `[batch, past + pos]`, int64, 1 for a token and 0 for padding.
        position_ids: `[batch, pos]`, int64.
        labels: `[batch, pos]`, int64, -100 where there is no loss; the model shifts them.
        cache: what the `Output` of the forward before this one held.
        use_cache: whether the output must hold a cache.
    """

    input_ids: Tensor | None = None
    inputs_embeds: Tensor | None = None
    attention_mask: Tensor | None = None
    position_ids: Tensor | None = None
    labels: Tensor | None = None
    cache: Any = None
    use_cache: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a forward gives.

    Attributes:
        logits: `[batch, pos, d_vocab]`.
        loss: the mean loss, a scalar, if labels came in.
        cache: opaque to the harness, if it was asked for.
        attentions: the patterns `[batch, head, query, key]`, a layer each, if HF was asked for them.
    """

    logits: Tensor
    loss: Tensor | None = None
    cache: Any = None
    attentions: tuple[Tensor, ...] | None = None


Edit = Callable[["Tensor"], "Tensor | None"]
"""Reads a tensor at a hook point; what it returns, if not None, takes the tensor's place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookInfo:
    """What an adapter says of one of its hook points.

    Attributes:
        native_name: its name in the adapter's own words.
        alias_of: the key in `Hooks.names()` of the point that this one is another name of.
        switch: what must be turned on before it fires, in the adapter's own words; None if it always fires.
        axes: its axes where they are not the canonical ones of its name.
    """

    native_name: str
    alias_of: str | None = None
    switch: str | None = None
    axes: tuple[str, ...] | None = None

    def __new__(cls, **given: object) -> HookInfo:
        if "own" in given:
            caller = sys._getframe(1)
            raise outdated(f"{caller.f_code.co_filename}: {caller.f_code.co_qualname}")
        return object.__new__(cls)


class Hooks(Protocol):
    """Activations and their gradients, read and replaced."""

    def names(self) -> Mapping[str, HookInfo]:
        """Every hook point, by its canonical name where it has one and by its own elsewhere."""
        ...

    def switched(self, names: Set[str]) -> AbstractContextManager[None]:
        """Inside it the gated ones among `names` fire too; after it all switches are as before."""
        ...

    def hooked(self, forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> AbstractContextManager[None]:
        """Inside it the edits run at their points: on values, and on the gradients with respect to them.

        Entered before the forward; a backward edit runs whenever a backward pass goes through the forward's graph
        while inside. Nothing of it is left after it, however it is left.
        """
        ...


class ProjectionLike(Protocol):
    """A linear map as `nn.Linear` lays it out."""

    @property
    def weight(self) -> Tensor:
        """`[n_heads * d_head, d_model]`."""
        ...

    @property
    def bias(self) -> Tensor | None:
        """`[n_heads * d_head]`, or None."""
        ...

    def __call__(self, x: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitQKV:
    """One layer's query, key and value projections, heads in order, key and value heads unexpanded."""

    q: ProjectionLike
    k: ProjectionLike
    v: ProjectionLike


class Weights(Protocol):
    """Parameters in canonical names and shapes (`canonical.WEIGHTS`)."""

    def split(self, layer: int) -> SplitQKV:
        """The layer's projections, as the adapter's own forward applies them."""
        ...

    def canonical(self) -> Mapping[str, Tensor]:
        """Every weight by canonical name: `blocks.0.attn.W_Q [head, d_model, d_head]`."""
        ...

    def gradients(self) -> Mapping[str, Tensor]:
        """After a backward: the gradient of every canonical weight, in its canonical shape."""
        ...


class Restore(Protocol):
    """The way back from canonical weights; the attribute `restore` itself is called."""

    def __call__(self, canonical: Mapping[str, Tensor], /) -> Mapping[str, Tensor]:
        """Canonical weights in Hugging Face's own names and shapes, as its state dict has them."""
        ...


LOGITS, LOG_PROBABILITIES = "logits", "log-probabilities"


class Processings(Protocol):
    """What a library does to weights before they are looked at: norms folded, matrices centred, biases moved."""

    def promises(self) -> Mapping[str, frozenset[str]]:
        """What each processing, by the library's own name for it, promises to keep as it is in HF's model.

        `LOGITS`, `LOG_PROBABILITIES`, and templates of canonical hook points (`blocks.{i}.attn.hook_pattern`).
        """
        ...

    def apply(self, names: Set[str]) -> Subject:
        """A new subject of the same model with all of these applied, and no other one; this one stays as it is."""
        ...


class Cache(Protocol):
    """Decoding with a key/value cache (`Inputs.cache`, `Output.cache`), and by itself."""

    def generate(self, input_ids: Tensor, *, max_new_tokens: int, attention_mask: Tensor | None = None) -> Tensor:
        """Greedy continuation with the cache, never stopped early: `[batch, pos + max_new_tokens]`."""
        ...


class Components(Protocol):
    """The bridged parts, each of which can be run alone."""

    def modules(self) -> Mapping[str, nn.Module]:
        """By canonical component name (`canonical.COMPONENTS`), whatever of them the adapter has."""
        ...

    def run(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """The component's main output for the arguments with which HF calls the module in its place."""
        ...


class Modes(Protocol):
    """What a torch module can be asked to be."""

    def train(self, mode: bool) -> None:
        """Training mode (dropouts act) or evaluation mode."""
        ...

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> None:
        """Cast or move the subject in place."""
        ...

    def checkpointing(self, enabled: bool) -> None:
        """Gradient checkpointing on or off."""
        ...

    def copy(self) -> Subject:
        """A deep copy that shares nothing with the original."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]:
        """The subject's own state dict."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what `state_dict` gave."""
        ...


@runtime_checkable
class Subject(Protocol):
    """A wrapped model. A class of subjects derives from this one, and sets the capabilities that it has.

    Attributes:
        declared_mutations: what wrapping may change in the model that it is given, in the words of `CHANGES`.
        hooks: activations and their gradients, read and replaced.
        weights: parameters in canonical names and shapes.
        restore: the way back from canonical weights.
        processings: what the library does to weights before they are looked at.
        cache: decoding with a key/value cache.
        components: the bridged parts, each of which can be run alone.
        modes: what a torch module can be asked to be.
    """

    declared_mutations: frozenset[str] = frozenset()
    hooks: Hooks | None = None
    weights: Weights | None = None
    restore: Restore | None = None
    processings: Processings | None = None
    cache: Cache | None = None
    components: Components | None = None
    modes: Modes | None = None

    @abstractmethod
    def forward(self, inputs: Inputs) -> Output:
        """One forward through the library's own code."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything."""


@runtime_checkable
class Adapter(Protocol):
    """The code under test."""

    name: str
    version: str

    def wrap(self, model: nn.Module) -> Subject:
        """Wrap a Hugging Face model, which is the adapter's from then on, to take apart as it likes.

        Raises:
            AdapterRefusal: the model is one that it cannot wrap.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """How a library is used by its users, as Python code.

    Attributes:
        imports: the statements that import what the others need.
        wrap: statements that make a `subject` of a Hugging Face `model`.
        logits: an expression for the logits that the `subject` gives.
    """

    imports: tuple[str, ...]
    wrap: tuple[str, ...]
    logits: str


@runtime_checkable
class Scripted(Protocol):
    """What an adapter may say besides: how its library is used without the harness, for `verifier repro --script`."""

    def usage(self, given: Sequence[str]) -> Usage:
        """The code of a forward that is given these of the fields of `Inputs`, each in a variable of its name."""
        ...


@runtime_checkable
class ScriptedHooks(Protocol):
    """What a `Scripted` adapter may say besides: how its users read an activation, for the same."""

    def reading(self, given: Sequence[str], point: str) -> tuple[str, ...] | None:
        """Statements after which `found` is the activation at a canonical point, in its canonical axes.

        None where its users cannot read it.

        Args:
            given: the fields of `Inputs` that the forward of the `subject` is given, each in a variable of its name.
            point: the canonical name.
        """
        ...


def is_adapter(candidate: object) -> bool:
    """Whether it has an adapter's attributes: `name`, `version` and a callable `wrap`."""
    return isinstance(candidate, Adapter) and callable(candidate.wrap)


def outdated(where: str) -> OutdatedAdapter:
    """The error of an adapter that is written for the protocol as it was: what to change.

    Args:
        where: the file, and the class or function in it.
    """
    return OutdatedAdapter(
        f"{where} is written for an older verifier: derive the class of subjects from verifier.adapter.Subject, delete "
        "`capabilities` (a capability that a subject lacks is None), call `changes` `declared_mutations`, and "
        "HookInfo's `own` `native_name`"
    )


def subject_fault(candidate: object) -> str | None:
    """Why what `wrap` gave is no subject, in one line; None where it is one.

    Raises:
        OutdatedAdapter: it is a subject of the protocol as it was.
    """
    kind = type(candidate)
    given = f"wrap gave {'an' if kind.__name__[:1].lower() in 'aeiou' else 'a'} {kind.__name__}"
    if not (callable(getattr(candidate, "forward", None)) and callable(getattr(candidate, "close", None))):
        return f"{given}, no subject: a subject has the methods `forward` and `close`"
    for old in ("capabilities", "changes"):
        if isinstance(inspect.getattr_static(candidate, old, None), Set):
            raise outdated(f"{getattr(sys.modules.get(kind.__module__), '__file__', kind.__module__)}: {kind.__name__}")
    lacking = [name for name in plugins.members(Subject) if not _has(candidate, name)]
    if lacking:
        return (
            f"{given} without {', '.join(f'`{name}`' for name in lacking)}: derive the class from "
            "verifier.adapter.Subject, where what a subject lacks is None"
        )
    subject = cast("Subject", candidate)
    unknown = sorted(set(subject.declared_mutations) - CHANGES.keys())
    if unknown:
        return f"`declared_mutations` has an unknown {unknown[0]!r}; known are {', '.join(CHANGES)}"
    return _hooks_fault(subject)


def _has(candidate: object, name: str) -> bool:
    """Whether it has the attribute; no property runs for it."""
    found = inspect.getattr_static(candidate, name, _ABSENT)
    return found is not _ABSENT or hasattr(candidate, name)


def _hooks_fault(subject: Subject) -> str | None:
    try:
        names = None if subject.hooks is None else subject.hooks.names()
    except OutdatedAdapter:
        raise
    except Exception:  # the checks of hooks, which ask again, report it
        return None
    if (names is None and subject.hooks is None) or isinstance(names, Mapping):
        return None
    return f"hooks.names() must give a mapping of names to HookInfo, got a {type(names).__name__}"


_instances: dict[str, Adapter] = {}


def register_instance(adapter: object) -> str:
    """A reference by which `load` finds this very object, in this process alone; a class is made without arguments.

    It is `module:class`, which another process may find something else by, or nothing.

    Raises:
        UsageError: it is no adapter.
        ImportFailed: making it raised.
    """
    if isinstance(adapter, type):
        adapter = plugins.made(adapter, f"an adapter of the class {adapter.__qualname__}")
    if not is_adapter(adapter):
        kind = type(adapter).__name__
        lacking = ", ".join(f"`{name}`" for name in plugins.members(Adapter) if not hasattr(adapter, name))
        raise UsageError(f"an object of the class {kind} is no adapter" + (f": it has no {lacking}" if lacking else ""))
    reference = f"{type(adapter).__module__}:{type(adapter).__qualname__}"
    named, number = reference, 1
    while _instances.get(named, adapter) is not adapter:  # another object of that class
        number += 1
        named = f"{reference}#{number}"
    _instances[named] = adapter  # type: ignore[assignment]
    return named


def is_registered_instance(reference: str) -> bool:
    """Whether the reference is of an object that this process alone has."""
    return reference in _instances


def load(reference: str) -> Adapter:
    """The adapter of that registered name or `module:object`.

    Raises:
        UsageError: nothing has that name, or it is no adapter.
        ImportFailed: it raised at import.
    """
    if reference in _instances:
        return _instances[reference]
    found: Adapter = plugins.load(
        reference, group=GROUP, kind="adapter", is_one=is_adapter, needs=plugins.members(Adapter)
    )
    return found


def require_findable(reference: str) -> None:
    """Make sure, without importing it, that there is an adapter of that name.

    Raises:
        UsageError: there is none.
    """
    plugins.require_findable(reference, group=GROUP, kind="adapter")


def registered() -> tuple[str, ...]:
    """The names of the installed adapters."""
    return plugins.names(GROUP)
