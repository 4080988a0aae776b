"""Right adapters that offer less than the bridge does, and one that keeps a copy of its model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Set

from torch import nn
from verifier_bridge.verifier_adapter import BridgeAdapter, BridgeHooks, BridgeSubject

from verifier.adapter import HookInfo
from verifier.canonical import KINDS, template_of

TWENTY = frozenset(kind.template for kind in KINDS[:20])


class WeightsOnly(BridgeSubject):
    """A model that can be called, and whose weights can be read."""

    hooks = restore = processings = cache = components = modes = None  # type: ignore[assignment]


class NoCache(BridgeSubject):
    """A bridge without a cache."""

    cache = None


class TwentyHooks(BridgeHooks):
    """Hooks at twenty kinds of points, and it says at which."""

    def names(self) -> Mapping[str, HookInfo]:
        return {name: info for name, info in super().names().items() if template_of(name) in TWENTY}

    def points(self) -> Set[str]:
        return TWENTY


class TwentyPoints(BridgeSubject):
    """A bridge that offers twenty kinds of points."""

    @property
    def hooks(self) -> TwentyHooks:
        return TwentyHooks(bridge=self.bridge)


class Lesser(BridgeAdapter):
    """A bridge whose subjects are of another class."""

    def __init__(self, name: str, kind: type[BridgeSubject]) -> None:
        self.name = name
        self._kind = kind

    def wrap(self, model: nn.Module) -> BridgeSubject:
        return self._kind(super().wrap(model).bridge)


class CopiesInside(BridgeAdapter):
    """Bridges a deep copy of the model, which it lets go."""

    name = "copies-inside"

    def wrap(self, model: nn.Module) -> BridgeSubject:
        return super().wrap(copy.deepcopy(model))


WEIGHTS_ONLY = Lesser("weights-only", WeightsOnly)
NO_CACHE = Lesser("no-cache", NoCache)
TWENTY_POINTS = Lesser("twenty-points", TwentyPoints)
COPIES_INSIDE = CopiesInside()
