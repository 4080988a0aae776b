"""Choose the inputs that a script makes: those of `verifier.cases.inputs` on which a check failed."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from verifier.cases.spec import Scenario
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
    RANDOM = "random mask "
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


INPUTS: Mapping[str, ScriptInputs] = {
    "build.forward": ScriptInputs.PLAIN,
    "forward.logits": ScriptInputs.PLAIN,
    "forward.lengths": ScriptInputs.LONG,
    "forward.left_padding": ScriptInputs.LEFT,
    "forward.right_padding": ScriptInputs.RIGHT,
    "forward.gaps": ScriptInputs.GAPS,
    "forward.mixed_padding": ScriptInputs.MIXED,
    "forward.position_ids": ScriptInputs.POSITION_IDS,
    "forward.padded_position_ids": ScriptInputs.PADDED_POSITION_IDS,
    "forward.inputs_embeds": ScriptInputs.INPUTS_EMBEDS,
}
"""The inputs of each check that compares logits alone."""

ROWS = (ScriptInputs.LEFT, ScriptInputs.RIGHT, ScriptInputs.GAPS, ScriptInputs.MIXED)
"""The rows of padded inputs, of which a check names the worst; a row with a random mask has a number too."""


def logit_inputs(outcome: Outcome) -> ScriptInputs:
    """Choose the inputs on which a check of logits or of the wrapping failed."""
    inputs = INPUTS.get(outcome.check, ScriptInputs.PLAIN)
    failed_on = (outcome.where, (outcome.message or "").partition(":")[0])
    is_short = inputs is ScriptInputs.LONG and Scenario.ONE_TOKEN in failed_on
    return ScriptInputs.ONE_TOKEN if is_short else inputs


def activation_inputs(outcome: Outcome) -> ScriptInputs:
    """Choose the inputs of the worst row of those in which `hooks.values` compares activations."""
    _, _, worst = (outcome.message or "").partition(", most in ")
    if worst.startswith(ScriptInputs.RANDOM):
        return ScriptInputs.RANDOM
    return next((row for row in ROWS if worst.startswith(f"{row};")), ScriptInputs.PLAIN)
