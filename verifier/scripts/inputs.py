"""The inputs of a script, as `scenarios` has them: statements that make those on which a check failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from verifier.cases.spec import CaseSpec, Scenario
from verifier.judging.outcome import Outcome
from verifier.scripts.literals import literal

Made = tuple[tuple[str, ...], list[str]]
"""Which inputs are given, and statements that make a variable of that name for each, for the model `reference`."""


def _ids(batch: int, length: int) -> list[str]:
    return [
        "vocab = reference.get_input_embeddings().num_embeddings",
        f"input_ids = torch.randint(vocab, ({literal(batch)}, {literal(length)}))",
    ]


def plain(spec: CaseSpec, outcome: Outcome) -> Made:
    return ("input_ids",), _ids(spec.batch, spec.length)


def _lengths(spec: CaseSpec, outcome: Outcome) -> Made:
    one = Scenario.ONE_TOKEN in (outcome.where, (outcome.message or "").partition(":")[0])
    return ("input_ids",), _ids(spec.batch, 1) if one else _ids(1, spec.long)


def _padding(way: str) -> Callable[[CaseSpec, Outcome], Made]:
    """A row without padding, and one with padding of that way."""

    def made(spec: CaseSpec, outcome: Outcome) -> Made:
        third = max(1, spec.length // 3)
        left_out = {
            "left": [f":{third}"],
            "right": [f"-{third}:"],
            "gaps": [f"{third}:{2 * third}:2"],
            "mixed": [f":{third - 1}", f"{third + 1}", "-1:"],
        }
        lines = [*_ids(2, spec.length), "attention_mask = torch.ones_like(input_ids)"]
        lines += [f"attention_mask[1, {places}] = 0" for places in left_out[way]]
        return ("input_ids", "attention_mask"), lines

    return made


def _position_ids(spec: CaseSpec, outcome: Outcome) -> Made:
    return ("input_ids", "attention_mask", "position_ids"), [
        *_ids(spec.batch, spec.length),
        "attention_mask = torch.ones_like(input_ids)",
        "position_ids = torch.randint(1, 4, input_ids.shape).cumsum(-1)",
    ]


def _padded_position_ids(spec: CaseSpec, outcome: Outcome) -> Made:
    given, lines = _padding("mixed")(spec, outcome)
    return (*given, "position_ids"), [*lines, "position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)"]


def _inputs_embeds(spec: CaseSpec, outcome: Outcome) -> Made:
    batch, length = literal(spec.batch), literal(spec.length)
    return ("inputs_embeds", "attention_mask"), [
        "d_model = reference.get_input_embeddings().embedding_dim",
        f"inputs_embeds = torch.randn({batch}, {length}, d_model).double()",
        f"left_out = torch.arange({batch}).clamp(max={literal(spec.length - 1)})",
        f"attention_mask = (torch.arange({length}) >= left_out[:, None]).long()",
    ]


# What `scenarios` calls the rows of its padded inputs, one of which a check names where it is the worst.
ROWS: Mapping[str, str] = {
    "left": "left padding",
    "right": "right padding",
    "gaps": "gaps",
    "mixed": "left, right and gaps",
}
RANDOM_ROW = "random mask "


def of_activations(spec: CaseSpec, outcome: Outcome) -> Made:
    """Those in which the check saw the worst row, of all that it looks at activations in."""
    _, _, worst = (outcome.message or "").partition(", most in ")
    for way, row in ROWS.items():
        if worst.startswith(f"{row};"):
            return _padding(way)(spec, outcome)
    return (_random_masks if worst.startswith(RANDOM_ROW) else plain)(spec, outcome)


def _random_masks(spec: CaseSpec, outcome: Outcome) -> Made:
    return ("input_ids", "attention_mask"), [
        *_ids(spec.batch, spec.length),
        "attention_mask = torch.randint(2, input_ids.shape)",
        "attention_mask[:, -1] = 1",
    ]


INPUTS: Mapping[str, Callable[[CaseSpec, Outcome], Made]] = {
    "build.forward": plain,
    "forward.logits": plain,
    "forward.lengths": _lengths,
    "forward.left_padding": _padding("left"),
    "forward.right_padding": _padding("right"),
    "forward.gaps": _padding("gaps"),
    "forward.mixed_padding": _padding("mixed"),
    "forward.position_ids": _position_ids,
    "forward.padded_position_ids": _padded_position_ids,
    "forward.inputs_embeds": _inputs_embeds,
}
