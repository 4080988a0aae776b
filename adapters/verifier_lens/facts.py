"""What TransformerLens says of a model: the fields of its `cfg`, whose names are the canonical ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.canonical import FACTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformer_lens.model_bridge import TransformerBridge


def facts(bridge: TransformerBridge) -> Mapping[str, object]:
    """Give the fields of `cfg` that are facts, as its documentation explains them."""
    found = {name: getattr(bridge.cfg, name) for name in FACTS if getattr(bridge.cfg, name, None) is not None}
    # None there means that each head has a key and a value of its own.
    return {"n_key_value_heads": bridge.cfg.n_heads, **found}
