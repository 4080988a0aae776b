"""Make the config of a case as a circumstance changes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verifier.cases.circumstances import Circumstance, steps
from verifier.family import Config, Family, Reshapes

MOST_POSITIONS = 640
"""The maximum that a config is given where a text or its positions, or a long text's far ones, go beyond 64."""

_LAYERS: Mapping[str, int] = {"three": 3, "eleven": 11}


def config_in(circumstance: Circumstance, config: Mapping[str, Any]) -> dict[str, Any]:
    """Give a config the most positions that a circumstance needs; a config that names no maximum stays as it is."""
    most = config.get("max_position_embeddings")
    needs_more = circumstance["length"] == "long" or circumstance["positions"] == "far"
    if not isinstance(most, int) or not needs_more or most >= MOST_POSITIONS:
        return dict(config)
    return {**config, "max_position_embeddings": MOST_POSITIONS}


def changed_config(family: Family, config: Config, circumstance: Circumstance) -> dict[str, Any]:
    """Give a config the positions, layers, dropouts and shapes of a circumstance.

    Args:
        family: of the config.
        config: the flags and dims of a case.
        circumstance: a value for each axis.
    """
    changed = config_in(circumstance, config)
    layers = _LAYERS.get(circumstance["depth"])
    if layers is not None:
        changed["num_hidden_layers"] = layers
    if circumstance["mode"] == "dropout" or "trained" in steps(circumstance["history"]):
        changed |= family.dropouts()
    if circumstance["dims"] in ("usual", "extreme") or not isinstance(family, Reshapes):
        return changed
    return family.reshaped(changed, circumstance["dims"]) or changed
