"""Choose the inputs that a script makes: those on which a check failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from verifier.judging.outcome import Outcome


class ScriptInputs(StrEnum):
    """The inputs of a script; `templates/inputs.py.j2` has the statements that make them.

    Inputs with padding have one row without padding, and one row that is padded in that way.
    """

    PLAIN = "plain"
    ONE_TOKEN = "one token"
    LONG = "long"
    LEFT = "left padding"
    RIGHT = "right padding"
    GAPS = "gaps"
    MIXED = "left, right and gaps"
    POSITION_IDS = "position ids"
    PADDED_POSITION_IDS = "padded position ids"
    INPUTS_EMBEDS = "inputs embeds"

    @property
    def given(self) -> tuple[str, ...]:
        """The fields of `Inputs` that are given; the script has a variable of that name for each."""
        if self in (ScriptInputs.PLAIN, ScriptInputs.ONE_TOKEN, ScriptInputs.LONG):
            return ("input_ids",)
        tokens = "inputs_embeds" if self is ScriptInputs.INPUTS_EMBEDS else "input_ids"
        positions = ("position_ids",) if self.endswith("position ids") else ()
        return (tokens, "attention_mask", *positions)


PLAIN_CHECKS = frozenset({"build.forward", "forward.logits"})
"""The checks that run a model, or compare its logits, on plain tokens alone."""

_OUTPUTS = "forward.outputs"
# What a circumstance must be about, and no other axis, for its inputs to be a few lines; the first that fits.
_OF_CIRCUMSTANCES: Sequence[tuple[Mapping[str, str], ScriptInputs]] = (
    ({"mask": "left"}, ScriptInputs.LEFT),
    ({"mask": "right"}, ScriptInputs.RIGHT),
    ({"mask": "gaps"}, ScriptInputs.GAPS),
    ({"mask": "mixed"}, ScriptInputs.MIXED),
    ({"length": "one"}, ScriptInputs.ONE_TOKEN),
    ({"length": "long"}, ScriptInputs.LONG),
    ({"mask": "ones", "positions": "given"}, ScriptInputs.POSITION_IDS),
    ({"mask": "left", "positions": "given"}, ScriptInputs.PADDED_POSITION_IDS),
    ({"tokens": "embeddings"}, ScriptInputs.INPUTS_EMBEDS),
    ({"tokens": "embeddings", "mask": "left"}, ScriptInputs.INPUTS_EMBEDS),
)


def logit_inputs(outcome: Outcome) -> ScriptInputs | None:
    """Choose the inputs on which the wrapping failed, or logits are wrong; None where a script does not make them.

    Args:
        outcome: of a check.
    """
    if outcome.check != _OUTPUTS:
        return ScriptInputs.PLAIN if outcome.check in PLAIN_CHECKS else None
    circumstance = outcome.circumstance or {}
    if outcome.measured is None:  # a dtype, say, which a script of logits does not show
        return None
    fitting = (
        inputs
        for values, inputs in _OF_CIRCUMSTANCES
        if values.keys() == circumstance.keys() and all(value in circumstance[axis] for axis, value in values.items())
    )
    return next(fitting, None)
