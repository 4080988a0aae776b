"""Write scripts that need only Hugging Face and the adapter's library: of its wrapping, its logits, and its hooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verifier.adapter import Scripted, ScriptedHooks
from verifier.canonical import Point
from verifier.cases.spec import CaseSpec
from verifier.family import Family, PointSource, ShowsPoints
from verifier.judging.outcome import Outcome
from verifier.reference.acceptance import refusal_of
from verifier.scripts.inputs import ScriptInputs, logit_inputs
from verifier.scripts.templating import render

WRAPPING, ACTIVATIONS = "build.adapter", "hooks.values"
_TEMPLATES: Mapping[str, str] = {WRAPPING: "wrapping.py.j2", ACTIVATIONS: "activation.py.j2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How an activation is read on both sides.

    Attributes:
        point: the hook point.
        source: where Hugging Face's model shows the activation.
        statements: code after which the variable `found` is the activation that the adapter shows.
    """

    point: Point
    source: PointSource
    statements: Sequence[str]


def find_reading(spec: CaseSpec, of: Family, library: object, outcome: Outcome) -> Reading | None:
    """Find how to read the activation that an outcome names.

    Args:
        spec: the case.
        of: its family.
        library: the adapter, which may say how an activation is read.
        outcome: the outcome, of which the place names the hook point.

    Returns:
        How to read it; None if the family or the adapter does not say, or the outcome names no hook point of the model.
    """
    if not isinstance(of, ShowsPoints) or not isinstance(library, ScriptedHooks):
        return None
    if refusal_of(of)(spec.config) is not None:
        return None
    # A name that the family does not know does not get into code.
    point = next((point for point in of.points(spec.config) if point.name == outcome.where), None)
    source = None if point is None else of.point_source(spec.config, point.name)
    if point is None or source is None:
        return None
    statements = library.reading(ScriptInputs.PLAIN.given, point.name)
    return None if statements is None else Reading(point=point, source=source, statements=statements)


def write_alone(spec: CaseSpec, of: Family, library: Scripted, outcome: Outcome, **rest: Any) -> str:
    """Write the script that shows an outcome again.

    Args:
        spec: the case.
        of: its family.
        library: the adapter, which says how its library is used.
        outcome: of the wrapping, of logits, or of an activation of which there is a reading.
        rest: what the templates need besides: the heading, and the function's name.
    """
    from verifier.judging.numerics import SEMANTICS_MARGIN  # imports torch, which a command needs only for a script

    reading = find_reading(spec, of, library, outcome) if outcome.check == ACTIVATIONS else None
    inputs = logit_inputs(outcome) or ScriptInputs.PLAIN
    return render(
        _TEMPLATES.get(outcome.check, "logits.py.j2"),
        spec=spec,
        family=of,
        reading=reading,
        inputs=inputs,
        given=inputs.given,
        usage=library.usage(inputs.given),
        margin=SEMANTICS_MARGIN,
        **rest,
    )
