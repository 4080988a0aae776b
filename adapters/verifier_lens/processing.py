"""TransformerLens' weight processings, and what its documentation promises of each.

What it promises stands in `docs/source/content/compatibility_mode.md` of its repository (the table "What each flag
does"), in the docstrings of `transformer_lens.weight_processing.ProcessWeights`, and in those of
`HookedTransformer.from_pretrained`, whose processing `TransformerBridge.enable_compatibility_mode` says that it is
equivalent to. They speak of logits and log-probabilities, and of a hook point only where `PROMISES` has one.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Protocol

from verifier.adapter import LOG_PROBABILITIES, LOGITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from transformer_lens.model_bridge import TransformerBridge

    from verifier.adapter import Subject

WHOLE = "enable_compatibility_mode"
"""All that it does by default, as one."""

_BOTH = frozenset({LOGITS, LOG_PROBABILITIES})
PROMISES: Mapping[str, frozenset[str]] = {
    # "Folds LayerNorm scale + bias into the subsequent linear weights …; mathematically equivalent" (the table).
    "fold_ln": _BOTH,
    # "Due to LayerNorm this doesn't change the computation" (HookedTransformer.from_pretrained).
    "center_writing_weights": _BOTH,
    # "this changes the logits but not the log probs" (ProcessWeights.center_unembed).
    "center_unembed": frozenset({LOG_PROBABILITIES}),
    # "Same numerics" (the table); value biases have "a constant effect on the *layer's* output", which the output's
    # bias takes over (ProcessWeights.fold_value_biases).
    "fold_value_biases": _BOTH | {"blocks.{i}.hook_attn_out"},
    # "(x @ W_V + b_V) @ W_O + b_O to be preserved", and "the bilinear form of (x @ W_Q + b_Q) * (y @ W_K + b_K)"
    # (ProcessWeights.refactor_factored_attn_matrices).
    "refactor_factored_attn_matrices": _BOTH | {"blocks.{i}.attn.hook_pattern", "blocks.{i}.hook_attn_out"},
    # With `center_unembed` among what it does: "logits will not match HF" (the page of the table).
    WHOLE: frozenset({LOG_PROBABILITIES}),
}


class Process(Protocol):
    """Makes a subject of the model as it was given, with the flags that are true applied and no other."""

    def __call__(self, flags: Mapping[str, bool], /) -> Subject: ...


class LensProcessings:
    """What can be done to the weights of one bridge: each flag of `process_weights`, and compatibility mode."""

    def __init__(self, bridge: TransformerBridge, process: Process) -> None:
        self._bridge = bridge
        self._process = process

    def promises(self) -> Mapping[str, frozenset[str]]:
        """List what TransformerLens' documentation promises of each flag that the installed version has."""
        names = [*self._flags(), WHOLE]
        if self._bridge.cfg.positional_embedding_type == "rotary":
            # "You can't refactor the QK circuit when using rotary embeddings" (its own assertion says so).
            names.remove("refactor_factored_attn_matrices")
        return {name: PROMISES[name] for name in names if name in PROMISES}

    def apply(self, names: Set[str]) -> Subject:
        """Run `enable_compatibility_mode` with these flags, and with its default ones if `WHOLE` is among the names.

        Raises:
            KeyError: there is no such processing.
        """
        defaults = self._flags()
        unknown = names - defaults.keys() - {WHOLE}
        if unknown:
            raise KeyError(sorted(unknown)[0])
        return self._process({flag: flag in names or (WHOLE in names and on) for flag, on in defaults.items()})

    def _flags(self) -> dict[str, bool]:
        """List the flags of the installed TransformerLens, and whether each is on by default."""
        parameters = inspect.signature(self._bridge.process_weights).parameters.values()
        return {one.name: one.default for one in parameters if isinstance(one.default, bool) and one.name != "verbose"}
