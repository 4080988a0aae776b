"""The adapter protocol: what an author of an adapter implements, and how an adapter is found by its name.

An adapter wraps a Hugging Face model and gives back a *subject*, whose class derives from `Subject`. What a subject can
do besides `forward` is a capability: an attribute with the capability's name, which is None until the class sets it. A
check that needs a capability that is None is counted as not applicable.
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
from verifier.errors import OutdatedAdapter, UsageError, all_but_interrupts

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

GROUP = "verifier.adapters"
DEFAULT = "bridge"
_ABSENT = object()

Capability = Literal["hooks", "weights", "restore", "processings", "cache", "components", "modes", "facts"]

Change = Literal["modules", "forwards", "hooks", "parameters", "buffers", "config", "attention", "mode"]
# What wrapping and running may change in the model, if `Subject.declared_mutations` declares it.
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
    """The adapter cannot wrap a model, or has no such call; the message says what is not supported, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The arguments of a forward; an argument that is None is not given.

    Attributes:
        input_ids: `[batch, pos]`, int64 or int32; exactly one of this and `inputs_embeds` is given.
        inputs_embeds: `[batch, pos, d_model]`, in the model's dtype.
        attention_mask: `[batch, past + pos]`, int64 or bool, 1 for a token and 0 for padding; or `[batch, 1, pos, pos]`
            in the model's dtype, which is added to the attention scores in the place of every other mask.
        position_ids: `[batch, pos]`, int64.
        labels: `[batch, pos]`, int64, -100 where there is no loss; a model without an encoder shifts them.
        decoder_input_ids: `[batch, decoder_pos]`, int64, for a model with an encoder, whose `input_ids` the encoder
            reads; labels and logits then have the decoder's positions.
        decoder_attention_mask: `[batch, past + decoder_pos]`, int64 or bool, 1 for a token of the decoder's and 0 for
            padding.
        cache: the `cache` of an earlier `Output`, whose positions come before these.
        use_cache: whether the output must hold a cache.
    """

    input_ids: Tensor | None = None
    inputs_embeds: Tensor | None = None
    attention_mask: Tensor | None = None
    position_ids: Tensor | None = None
    labels: Tensor | None = None
    cache: Any = None
    use_cache: bool = False
    decoder_input_ids: Tensor | None = None
    decoder_attention_mask: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The result of a forward.

    Attributes:
        logits: `[batch, pos, d_vocab]`.
        loss: the mean loss, a scalar, if labels came in.
        cache: the cache, if it was asked for; the harness only hands it on to the next forward.
        attentions: a pattern `[batch, head, query, key]` for each layer, if HF was asked for them.
    """

    logits: Tensor
    loss: Tensor | None = None
    cache: Any = None
    attentions: tuple[Tensor, ...] | None = None


Edit = Callable[["Tensor"], "Tensor | None"]
"""A hook: it reads a tensor at a hook point, and returns None or the tensor that replaces it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookInfo:
    """The description of one hook point.

    Attributes:
        native_name: the point's name in the library under test.
        alias_of: the key in `Hooks.names()` of the point that this is another name for.
        switch: the library's name of what must be turned on before the point fires; None if it always fires.
        axes: the point's axes, if they are not the canonical axes of its name.
        not_offered: why the library does not have the point in this model, in a line: it refuses the point's switch for
            the architecture, say. The point is counted as not offered, and no hook is put there. None if it has it.
    """

    native_name: str
    alias_of: str | None = None
    switch: str | None = None
    axes: tuple[str, ...] | None = None
    not_offered: str | None = None

    def __new__(cls, **given: object) -> HookInfo:
        if "own" in given:
            caller = sys._getframe(1)
            raise outdated(f"{caller.f_code.co_filename}: {caller.f_code.co_qualname}")
        return object.__new__(cls)


class Hooks(Protocol):
    """The capability `hooks`: read and replace activations and their gradients."""

    def names(self) -> Mapping[str, HookInfo]:
        """List every hook point by its canonical name, or by the library's name if it has no canonical one.

        A point that the library has in other models and not in this one is listed too, with the reason.
        """

    def switched(self, names: Set[str]) -> AbstractContextManager[None]:
        """Turn on what gates these points; when the context is left, every switch is as it was before."""

    def hooked(self, forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> AbstractContextManager[None]:
        """Attach edits by the names of their points: `forward` to activations, `backward` to their gradients.

        The context is entered before the forward. A backward edit runs whenever a backward pass goes through that
        forward's graph inside the context. When the context is left, also by an exception, no edit stays attached.

        Args:
            forward: by the keys of `names()`, edits of activations, in the axes that the point's `HookInfo` says.
            backward: by the keys of `names()`, edits of the gradients of activations, in the same axes.
        """


def offered_points(hooks: Hooks | None) -> dict[str, HookInfo]:
    """List the points that an adapter offers in a model: those of `names()` but for what the library lacks there.

    Args:
        hooks: of a subject; a subject without hooks offers none.
    """
    names = {} if hooks is None else hooks.names()
    lacking = {name for name, info in names.items() if info.not_offered is not None}
    return {name: info for name, info in names.items() if lacking.isdisjoint((name, info.alias_of))}


@runtime_checkable
class DeclaresPoints(Protocol):
    """A `Hooks` that also says which of the canonical points its library has, where that is not all of them."""

    def points(self) -> Set[str]:
        """List the canonical points that are offered in every model that has them.

        By name, or by template for every layer: `blocks.0.attn.hook_q`, `blocks.{i}.attn.hook_q`.
        """


@runtime_checkable
class RunsWithCache(Protocol):
    """A `Hooks` that also has the library's own way of collecting activations."""

    def run_with_cache(self, inputs: Inputs, names: Set[str]) -> tuple[Output, Mapping[str, Tensor]]:
        """Run one forward, and collect the activations at these points, which are switched on.

        Edits that are attached stay so, and act.

        Args:
            inputs: of the forward.
            names: keys of `names()`.

        Returns:
            The forward's output, and by name the activations, in the axes that the point's `HookInfo` says.
        """


class ProjectionLike(Protocol):
    """A linear map whose weight is laid out as that of `nn.Linear`."""

    @property
    def weight(self) -> Tensor:
        """`[n_heads * d_head, d_model]`."""

    @property
    def bias(self) -> Tensor | None:
        """`[n_heads * d_head]`, or None."""

    def __call__(self, x: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitQKV:
    """The query, key and value projections of one layer: heads in order, key and value heads not repeated."""

    q: ProjectionLike
    k: ProjectionLike
    v: ProjectionLike


class Weights(Protocol):
    """The capability `weights`: parameters in canonical names and shapes (`canonical.WEIGHTS`)."""

    def split(self, layer: int) -> SplitQKV:
        """Give the projections of one layer, as the adapter's own forward applies them."""

    def canonical(self) -> Mapping[str, Tensor]:
        """Give every weight by canonical name: `blocks.0.attn.W_Q` is `[head, d_model, d_head]`."""

    def gradients(self) -> Mapping[str, Tensor]:
        """Give the gradient of every canonical weight, in its canonical shape, after a backward pass."""


class Restore(Protocol):
    """The capability `restore`: a callable that turns canonical weights back into Hugging Face's."""

    def __call__(self, canonical: Mapping[str, Tensor], /) -> Mapping[str, Tensor]:
        """Turn canonical weights into a state dict with Hugging Face's names and shapes."""


LOGITS, LOG_PROBABILITIES = "logits", "log-probabilities"


class Processings(Protocol):
    """The capability `processings`: the library's weight processings, such as folding norms or centring matrices."""

    def promises(self) -> Mapping[str, frozenset[str]]:
        """Say what each processing, by the library's name for it, promises to leave as it is in HF's model.

        A promise is `LOGITS`, `LOG_PROBABILITIES` or the template of a canonical hook point
        (`blocks.{i}.attn.hook_pattern`).
        """

    def apply(self, names: Set[str]) -> Subject:
        """Make a new subject of the same model with exactly these processings applied; this subject does not change."""


class Cache(Protocol):
    """The capability `cache`: decoding with a key/value cache (`Inputs.cache`, `Output.cache`), and generation."""

    def generate(self, input_ids: Tensor, *, max_new_tokens: int, attention_mask: Tensor | None = None) -> Tensor:
        """Continue greedily with the cache, and never stop early: `[batch, pos + max_new_tokens]`.

        Args:
            input_ids: `[batch, pos]`, int64, the prompts.
            max_new_tokens: how many tokens to add to each row.
            attention_mask: `[batch, pos]`, int64, 1 for a token and 0 for padding; None where all are tokens.

        Returns:
            The prompts and the new tokens after them, `[batch, pos + max_new_tokens]`, int64.
        """


@runtime_checkable
class CropsCache(Protocol):
    """A `Cache` that can also cut a cache to fewer positions, as HF's `crop` does."""

    def crop(self, cache: Any, length: int) -> Any:
        """Give the cache of the first positions of a text.

        Args:
            cache: the `cache` of an `Output`.
            length: how many positions are left.
        """


class Components(Protocol):
    """The capability `components`: the parts of the wrapped model, each of which can be run alone."""

    def modules(self) -> Mapping[str, nn.Module]:
        """Give the components that the adapter has, by canonical name (`canonical.COMPONENTS`)."""

    def run(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Run one component with the arguments that HF's forward passes to its own module; give its main output.

        Args:
            name: a key of `modules()`.
            args: the positional arguments.
            kwargs: the keyword arguments.

        Returns:
            The component's output; the first of them if it gives several.
        """


class Modes(Protocol):
    """The capability `modes`: what a torch module can do, such as train, cast, be copied and load a state."""

    def train(self, mode: bool) -> None:
        """Switch to training mode, in which dropouts act, or to evaluation mode."""

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> None:
        """Cast or move the subject in place.

        Args:
            dtype: the dtype of parameters from now on; None leaves it as it is.
            device: where the subject is from now on, as torch names it; None leaves it where it is.
        """

    def checkpointing(self, enabled: bool) -> None:
        """Switch gradient checkpointing on or off."""

    def copy(self) -> Subject:
        """Make a deep copy that shares nothing with the original."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Give the subject's state dict, in the library's own keys."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load a state dict that `state_dict` gave."""


class Facts(Protocol):
    """The capability `facts`: a callable that gives what the library says of the model, which people's code reads."""

    def __call__(self) -> Mapping[str, object]:
        """Give numbers, texts, True and False by the names of `verifier.canonical.FACTS`, as far as they are told."""


@runtime_checkable
class Subject(Protocol):
    """A wrapped model: the base class of subjects, which set the capabilities that they have.

    Attributes:
        declared_mutations: what wrapping and running may change in the model, as keys of `CHANGES`.
        hooks: activations and their gradients, read and replaced.
        weights: parameters in canonical names and shapes.
        restore: the way back from canonical weights.
        processings: what the library does to weights before they are looked at.
        cache: decoding with a key/value cache.
        components: the bridged parts, each of which can be run alone.
        modes: what a torch module can be asked to be.
        facts: what the library says of the model.
    """

    declared_mutations: frozenset[str] = frozenset()
    hooks: Hooks | None = None
    weights: Weights | None = None
    restore: Restore | None = None
    processings: Processings | None = None
    cache: Cache | None = None
    components: Components | None = None
    modes: Modes | None = None
    facts: Facts | None = None

    @abstractmethod
    def forward(self, inputs: Inputs) -> Output:
        """Run one forward through the library's own code.

        Raises:
            AdapterRefusal: the library has no such call; it is counted as not offered. A plain call it must have.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the model and everything else that the subject holds."""


@runtime_checkable
class Adapter(Protocol):
    """The code under test: it wraps models."""

    name: str
    version: str

    def wrap(self, model: nn.Module) -> Subject:
        """Wrap a Hugging Face model. From then on the model is the adapter's own, which may take it apart.

        Raises:
            AdapterRefusal: the adapter cannot wrap this model.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Python code that uses a library as its users do.

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
    """An adapter that can also say how its library is used without the harness, for `verifier repro --script`."""

    def usage(self, given: Sequence[str]) -> Usage:
        """Give the code of a forward with these fields of `Inputs`, each in a variable of its name."""


@runtime_checkable
class ScriptedHooks(Protocol):
    """A `Scripted` adapter that can also say how its users read an activation, for `verifier repro --script`."""

    def reading(self, given: Sequence[str], point: str) -> tuple[str, ...] | None:
        """Statements after which `found` is the activation at a canonical point, in its canonical axes.

        None where its users cannot read it.

        Args:
            given: the fields of `Inputs` that the forward of the `subject` is given, each in a variable of its name.
            point: the canonical name.
        """


def is_adapter(candidate: object) -> bool:
    """Whether an object has an adapter's attributes: `name`, `version` and a callable `wrap`."""
    return isinstance(candidate, Adapter) and callable(candidate.wrap)


def outdated(where: str) -> OutdatedAdapter:
    """Make the error of an adapter that is written for the older protocol; the message says what to change.

    Args:
        where: the file, and the class or function in it.
    """
    return OutdatedAdapter(
        f"{where} is written for an older verifier: derive the class of subjects from verifier.adapter.Subject, delete "
        "`capabilities` (a capability that a subject lacks is None), call `changes` `declared_mutations`, and "
        "HookInfo's `own` `native_name`"
    )


def subject_fault(candidate: object) -> str | None:
    """Say in one line why an object that `wrap` gave is no subject; None if it is one.

    Raises:
        OutdatedAdapter: the object is a subject of the older protocol.
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
    """Whether an object has an attribute, without running a property."""
    attribute = inspect.getattr_static(candidate, name, _ABSENT)
    return attribute is not _ABSENT or hasattr(candidate, name)


def _hooks_fault(subject: Subject) -> str | None:
    try:
        names = None if subject.hooks is None else subject.hooks.names()
    except OutdatedAdapter:
        raise
    except all_but_interrupts():  # the checks of hooks, which ask again, report it
        return None
    if names is None and subject.hooks is None:
        return None
    wanted = "hooks.names() must give a mapping of names to HookInfo, got"
    if not isinstance(names, Mapping):
        return f"{wanted} a {type(names).__name__}"
    for name, info in names.items():
        if not isinstance(info, HookInfo):
            return f"{wanted} a {type(info).__name__} for {name!r}"
    return None


_instances: dict[str, Adapter] = {}


def register_instance(adapter: object) -> str:
    """Register an adapter object, and give the reference by which `load` finds that same object.

    The reference is `module:class` and holds in this process alone: another process may find another object by it, or
    none. A class is instantiated without arguments.

    Raises:
        UsageError: the object is no adapter.
        ImportFailed: instantiating the class raised.
    """
    if isinstance(adapter, type):
        adapter = plugins.instantiate(adapter, f"an adapter of the class {adapter.__qualname__}")
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
    """Whether a reference names an object that was registered in this process."""
    return reference in _instances


def load(reference: str) -> Adapter:
    """Load an adapter by its registered name or as `module:object`.

    Raises:
        UsageError: nothing has that name, or the object is no adapter.
        ImportFailed: importing it raised.
    """
    if reference in _instances:
        return _instances[reference]
    needs = plugins.members(Adapter)
    adapter: Adapter = plugins.load(reference, group=GROUP, kind="adapter", is_one=is_adapter, needs=needs)
    return adapter


def require_findable(reference: str) -> None:
    """Make sure that there is an adapter of that name, without importing it.

    Raises:
        UsageError: there is no adapter of that name.
    """
    plugins.require_findable(reference, group=GROUP, kind="adapter")


def registered() -> tuple[str, ...]:
    """List the names of the installed adapters."""
    return plugins.names(GROUP)
