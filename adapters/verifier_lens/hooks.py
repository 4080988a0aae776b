"""Hook points of a TransformerBridge: their names, aliases and switches, with hooks attached as users attach them."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from verifier.adapter import Edit, HookInfo, Inputs, Output
from verifier.canonical import KINDS, template_of
from verifier_lens.calling import call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Set

    from torch import Tensor
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge import TransformerBridge

_CANONICAL = {kind.template: rank for rank, kind in enumerate(KINDS)}


def named(bridge: TransformerBridge) -> dict[str, HookInfo]:
    """Describe every key of `hook_dict`. Canonical names are TransformerLens', so a key is canonical if it spells one.

    A hook point with several keys is the earliest canonical one, or else the first, and the others are its aliases.
    Called while all switches are off: TransformerLens tells only then which switch a point waits for.
    """
    points: dict[str, HookPoint] = bridge.hook_dict
    first: dict[int, str] = {}
    for name in sorted(points, key=lambda name: _CANONICAL.get(template_of(name), len(_CANONICAL))):
        first.setdefault(id(points[name]), name)
    return {
        name: HookInfo(
            native_name=name if point.name is None else point.name,
            alias_of=None if first[id(point)] == name else first[id(point)],
            switch=bridge._gated_hook_reason(point.name or name),  # the rule by which it refuses a hook there
        )
        for name, point in points.items()
    }


class LensHooks:
    """The hook points of one bridge."""

    def __init__(self, bridge: TransformerBridge) -> None:
        self._bridge = bridge
        self._names = named(bridge)

    def names(self) -> Mapping[str, HookInfo]:
        """List every name in the bridge's `hook_dict`, aliases included."""
        return MappingProxyType(self._names)

    @contextmanager
    def switched(self, names: Set[str]) -> Iterator[None]:
        """Turn on what gates these points by the bridge's setters (`set_use_attn_result(True)`), and turn it back.

        Raises:
            ValueError: from TransformerLens, where two of the switches exclude each other.
            NotImplementedError: from TransformerLens, where the architecture has not got what the switch is for.
        """
        wanted = sorted({switch for name in names if (switch := self._names[name].switch) is not None})
        with ExitStack() as undo:
            for switch in wanted:
                turn: Callable[[bool], None] = getattr(self._bridge, f"set_{switch}")
                # Noted before it is turned on: a setter may raise halfway.
                undo.callback(turn, bool(getattr(self._bridge.cfg, switch)))
                turn(True)
            yield

    @contextmanager
    def hooked(self, forward: Mapping[str, Edit], backward: Mapping[str, Edit]) -> Iterator[None]:
        """Attach the edits with `bridge.hooks`, which removes these and no others.

        Args:
            forward: edits of values, by hook point name.
            backward: edits of gradients with respect to values, by hook point name.

        Raises:
            KeyError: from TransformerLens, for a name that it does not have.
            ValueError: from TransformerLens, for a point whose switch is off.
        """
        with self._bridge.hooks(
            fwd_hooks=[(name, _as_hook(edit)) for name, edit in forward.items()],
            bwd_hooks=[(name, _as_hook(edit)) for name, edit in backward.items()],
        ):
            yield

    def run_with_cache(self, inputs: Inputs, names: Set[str]) -> tuple[Output, Mapping[str, Tensor]]:
        """Run one forward with `bridge.run_with_cache`.

        Args:
            inputs: of the forward.
            names: of the hook points.

        Raises:
            AdapterRefusal: labels with a cache asked for; the bridge gives back one of the two.
        """
        found: dict[str, Tensor] = {}
        collect: Callable[..., tuple[Any, dict[str, Tensor]]] = self._bridge.run_with_cache

        def run(*args: Any, **kwargs: Any) -> Any:
            output, activations = collect(*args, names_filter=sorted(names), return_cache_object=False, **kwargs)
            found.update(activations)
            return output

        return call(run, inputs), found


def _as_hook(edit: Edit) -> Callable[..., Tensor | None]:
    """Make a hook of an edit: TransformerLens calls it with the tensor, and with its hook point by keyword."""

    def run(tensor: Tensor, hook: HookPoint) -> Tensor | None:
        return edit(tensor)

    return run
