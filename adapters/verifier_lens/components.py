"""The components of a TransformerBridge, by canonical names, which are TransformerLens' own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

from verifier.canonical import COMPONENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn
    from transformer_lens.model_bridge import TransformerBridge


def components(bridge: TransformerBridge) -> dict[str, nn.Module]:
    """Find the canonical components that the bridge has: `blocks.0.attn.q` and its bridge component."""
    names = [
        template.replace("{i}", str(layer))
        for template in COMPONENTS
        for layer in (range(len(bridge.blocks)) if "{i}" in template else range(1))
    ]
    # By the registered children alone: attributes of a bridge component fall through to the module that it wraps.
    registered = {name: module for name, module in bridge.named_modules(remove_duplicate=False) if name}
    return {name: registered[name] for name in names if isinstance(registered.get(name), GeneralizedComponent)}


class LensComponents:
    """The components of one bridge, each to be run alone."""

    def __init__(self, bridge: TransformerBridge) -> None:
        self._bridge = bridge

    def modules(self) -> Mapping[str, nn.Module]:
        """Bridge components by canonical name, without those that only group an MLP's projections and cannot run."""
        # The type says that every component has a name.
        return {name: one for name, one in components(self._bridge).items() if getattr(one, "name", None) is not None}

    def run(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Call a bridge component; if it gives several outputs, take the first.

        Args:
            name: the canonical name of the component.
            args: positional arguments of the call.
            kwargs: keyword arguments of the call.

        Raises:
            KeyError: the bridge has no such component, or it cannot run.
        """
        output = self.modules()[name](*args, **kwargs)
        main: Tensor = output[0] if isinstance(output, tuple) else output
        return main
