"""Checks of earlier versions that are gone, each with the observables, and the circumstances, that took its place.

Records, baselines and command lines of before still name them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from verifier.cases.circumstances import Circumstance, has_met
from verifier.output.text import first_of

Place = tuple[str, Circumstance]
"""An observable, and what a circumstance must have beyond what the observable itself needs."""

_MOST_NAMED = 3

_OUTPUTS = "forward.outputs"

SUPERSEDED: Mapping[str, Sequence[Place]] = {
    "forward.lengths": [(_OUTPUTS, {"length": "one"}), (_OUTPUTS, {"length": "long"})],
    "forward.left_padding": [(_OUTPUTS, {"mask": "left"})],
    "forward.right_padding": [(_OUTPUTS, {"mask": "right"})],
    "forward.gaps": [(_OUTPUTS, {"mask": "gaps"})],
    "forward.mixed_padding": [(_OUTPUTS, {"mask": "mixed"})],
    "forward.position_ids": [(_OUTPUTS, {"positions": "given"})],
    "forward.padded_position_ids": [(_OUTPUTS, {"mask": "mixed", "positions": "given"})],
    "forward.inputs_embeds": [(_OUTPUTS, {"tokens": "embeddings", "mask": "left"})],
    "forward.loss": [("forward.losses", {"labels": "some"}), ("forward.losses", {"labels": "some", "mask": "mixed"})],
    "forward.patterns": [("hooks.shown", {"mask": "mixed"})],
    "forward.batch": [(_OUTPUTS, {"rows": "one"})],
    "forward.gradients": [(_OUTPUTS, {"grad": "grad"})],
    "forward.inference_mode": [(_OUTPUTS, {"grad": "inference"}), (_OUTPUTS, {"history": "inference"})],
    "forward.inputs": [("state.caller", {})],
    "forward.twice": [("forward.repeated", {})],
    "forward.training": [(_OUTPUTS, {"mode": "train"})],
    "forward.dropout": [(_OUTPUTS, {"mode": "dropout"})],
    "forward.float32": [(_OUTPUTS, {"dtype": "float32"})],
    "forward.bfloat16": [(_OUTPUTS, {"dtype": "bfloat16"})],
    "forward.float16": [(_OUTPUTS, {"dtype": "float16"})],
    "cache.apart": [("cache.repeated", {"past": "chunk"})],
    "cache.given": [(_OUTPUTS, {"past": "asked"})],
    "cache.stepwise": [(_OUTPUTS, {"past": "token"})],
    "cache.chunks": [(_OUTPUTS, {"past": "chunk"})],
    "cache.padding": [(_OUTPUTS, {"mask": "mixed", "past": "token"})],
    "cache.position_ids": [(_OUTPUTS, {"positions": "given", "past": "token"})],
    "cache.padded_position_ids": [
        (_OUTPUTS, {"mask": "mixed", "past": "token"}),
        (_OUTPUTS, {"positions": "given", "past": "token"}),
    ],
    "cache.inputs_embeds": [(_OUTPUTS, {"tokens": "embeddings", "past": "token"})],
    "cache.long": [(_OUTPUTS, {"length": "long", "past": "token"})],
    "cache.precision": [(_OUTPUTS, {"dtype": dtype, "past": "token"}) for dtype in ("float32", "bfloat16", "float16")],
    "cache.hooks": [("hooks.shown", {"past": "token"})],
    "cache.greedy": [("cache.generated", {})],
    "cache.greedy_padded": [("cache.generated", {"mask": "left"})],
    "cache.batch": [(_OUTPUTS, {"rows": "one", "past": "token"})],
    "hooks.given_back": [("hooks.kept_values", {})],
    "hooks.twice": [("hooks.shown", {"history": "longer"})],
    "hooks.precision": [("hooks.shown", {"dtype": dtype}) for dtype in ("float32", "bfloat16", "float16")],
    "hooks.kept": [("hooks.kept_values", {})],
    "hooks.nested": [("intervene.nested", {})],
    "hooks.exception": [("state.misuse", {"history": "raised"}), (_OUTPUTS, {"history": "raised"})],
    "intervene.replace": [("intervene.each_point", {})],
    "intervene.add": [("intervene.one_point", {})],
    "intervene.zero": [("intervene.each_point", {})],
    "intervene.swap": [("intervene.each_point", {})],
    "intervene.rows": [("intervene.each_point", {})],
    "intervene.in_place": [("intervene.layouts", {})],
    "intervene.alone": [("intervene.one_point", {})],
    "intervene.calls": [
        ("intervene.effects", {"mask": "mixed"}),
        ("intervene.effects", {"positions": "given"}),
        ("intervene.effects", {"tokens": "embeddings"}),
        ("intervene.effects", {"past": "token"}),
        ("intervene.effects", {"grad": "grad"}),
        ("intervene.effects", {"rows": "one"}),
    ],
    "intervene.layers": [("intervene.each_point", {"depth": "eleven"})],
    "intervene.generation": [("cache.generated_edits", {})],
    "backward.hooks": [("backward.shown", {})],
    "backward.alone": [("backward.shown", {})],
    "backward.parameters": [("backward.weights", {})],
    "backward.inputs_embeds": [("backward.weights", {"tokens": "embeddings"})],
    "backward.replace": [("backward.effects", {})],
    "backward.interleaved": [("backward.shown", {"history": "nested"})],
    "backward.checkpointing": [
        ("backward.shown", {"checkpointing": "on"}),
        ("backward.weights", {"checkpointing": "on"}),
        ("backward.behind_edits", {"checkpointing": "on"}),
    ],
    "backward.edited": [("backward.behind_edits", {}), ("backward.effects", {})],
    "backward.float32": [("backward.weights", {"dtype": "float32"})],
    "backward.bfloat16": [("backward.weights", {"dtype": "bfloat16"})],
    "backward.float16": [("backward.weights", {"dtype": "float16"})],
    "state.acting": [
        ("intervene.effects", {"model": "copied"}),
        ("intervene.effects", {"model": "loaded"}),
        ("intervene.effects", {"model": "cast"}),
        ("weights.current", {"model": "copied"}),
    ],
    "state.written": [(_OUTPUTS, {"model": "written"})],
    "state.state_dict": [(_OUTPUTS, {"model": "loaded"}), ("weights.current", {"model": "loaded"})],
    "state.to": [(_OUTPUTS, {"dtype": "float32", "model": "cast"})],
    "state.eval": [(_OUTPUTS, {"history": "trained"})],
}
"""By the id of a check that is gone, all that took its place; no id is one of a check that there is."""


def is_taken_over(check: str, circumstances: Iterable[Circumstance]) -> bool:
    """Whether a case with these circumstances is looked at in all that took the place of a check.

    Args:
        check: an id in `SUPERSEDED`.
        circumstances: of a case, each with a value for every axis that is not plain.
    """
    met = list(circumstances)
    return all(
        has_met(observable, met, {axis: (value,) for axis, value in needed.items()})
        for observable, needed in SUPERSEDED[check]
    )


def name_successors(checks: Sequence[str]) -> str:
    """Say how to ask for what took the place of checks, in a clause of one line.

    Args:
        checks: ids in `SUPERSEDED`.

    Returns:
        For the first few, `forward.gaps is now --only forward.outputs --where mask=gaps`.
    """
    return first_of([f"{check} is now {_name_places(SUPERSEDED[check])}" for check in checks], _MOST_NAMED)


def _name_places(places: Sequence[Place]) -> str:
    """Write places as the options that ask for them: `--only forward.outputs --where mask=left`."""
    options = []
    for observable, needed in places:
        where = ",".join(f"{axis}={value}" for axis, value in needed.items())
        options.append(f"`--only {observable}{' --where ' if where else ''}{where}`")
    return first_of(options, _MOST_NAMED, " and ")
