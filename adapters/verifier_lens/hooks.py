"""Hook points of a TransformerBridge: their names, aliases and switches, with hooks attached as users attach them."""

from __future__ import annotations

import warnings
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from verifier.adapter import Edit, HookInfo, Inputs, Output
from verifier.canonical import KINDS, template_of
from verifier.errors import one_line
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
    `hook_pos_embed` is canonical where there are position embeddings: TransformerLens gives it to a table of rotary
    positions too, as another name.

    A point whose switch TransformerLens refuses for the architecture is not offered. Called while all switches are off:
    TransformerLens tells only then which switch a point waits for.
    """
    points: dict[str, HookPoint] = bridge.hook_dict
    # By the rule by which it refuses a hook there.
    switches = {name: bridge._gated_hook_reason(point.name or name) for name, point in points.items()}
    refused = refusals(bridge, {switch for switch in switches.values() if switch is not None})
    ranks = dict(_CANONICAL)
    if "pos_embed.hook_out" not in points:
        del ranks["hook_pos_embed"]
    first: dict[int, str] = {}
    for name in sorted(points, key=lambda name: ranks.get(template_of(name), len(ranks))):
        first.setdefault(id(points[name]), name)
    return {
        name: HookInfo(
            native_name=name if point.name is None else point.name,
            alias_of=None if first[id(point)] == name else first[id(point)],
            switch=switches[name],
            not_offered=refused.get(switches[name] or ""),
        )
        for name, point in points.items()
    }


def refusals(bridge: TransformerBridge, switches: Set[str]) -> dict[str, str]:
    """Find the switches that TransformerLens refuses for the bridge's architecture, and its reasons, each in a line.

    Each switch is turned on once, by itself, and off again. A setter notes in the configs of the bridge's modules, of
    which some are Hugging Face's, that the switch is off; they are put back as nobody had asked.
    """
    found: dict[str, str] = {}
    for switch in sorted(switches):
        turn = _setter(bridge, switch)
        with _same_configs(bridge), warnings.catch_warnings(action="ignore"):  # it warns again where it is turned on
            try:
                turn(True)
            except NotImplementedError as error:
                found[switch] = one_line(error)
            finally:
                turn(False)
    return found


@contextmanager
def _same_configs(bridge: TransformerBridge) -> Iterator[None]:
    """Put the fields of every module's config back when the context is left."""
    configs = {id(config): config for one in bridge.modules() if (config := getattr(one, "config", None)) is not None}
    kept = [(vars(config), dict(vars(config))) for config in configs.values()]
    try:
        yield
    finally:
        for fields, before in kept:
            fields.clear()
            fields.update(before)


def _setter(bridge: TransformerBridge, switch: str) -> Callable[[bool], None]:
    setter: Callable[[bool], None] = getattr(bridge, f"set_{switch}")
    return setter


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
            NotImplementedError: from TransformerLens, for a point that is not offered.
        """
        wanted = sorted({switch for name in names if (switch := self._names[name].switch) is not None})
        with ExitStack() as undo:
            for switch in wanted:
                turn = _setter(self._bridge, switch)
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
