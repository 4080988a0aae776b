"""The registry of architectures that can be bridged, by the name of the Hugging Face class."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from verifier_bridge import falcon
from verifier_bridge.architecture import Architecture
from verifier_bridge.errors import BridgeRefusal

Describe = Callable[[nn.Module], Architecture]
"""Describes a model of its class; raises BridgeRefusal where that one cannot be bridged."""

_DESCRIBES: dict[str, Describe] = {"FalconForCausalLM": falcon.describe}


def register(class_name: str, describe: Describe) -> None:
    """Make models of that class bridgeable.

    Args:
        class_name: the name of the model's class; a description that it already has is replaced.
        describe: describes a model of that class.
    """
    _DESCRIBES[class_name] = describe


def describe(model: nn.Module) -> Architecture:
    """Describe a model by its class.

    Raises:
        BridgeRefusal: its class is unknown, or it is one that its own class cannot run.
    """
    name = type(model).__name__
    if name not in _DESCRIBES:
        known = ", ".join(sorted(_DESCRIBES))
        raise BridgeRefusal(f"{name} is not an architecture that can be bridged; these are: {known}")
    return _DESCRIBES[name](model)
