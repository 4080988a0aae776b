"""Check interventions by another name; those by a point's own name are looked at in circumstances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from verifier.adapter import Edit
from verifier.checks import check
from verifier.checks.subjects import compute_logits
from verifier.judging.outcome import Finding, NotApplicable, Verdict
from verifier.observing import activations, localization
from verifier.observing.case import Case
from verifier.observing.circumstances.edits import scaled


@check("intervene.aliases", needs=["hooks"], applies="pairwise")
def aliases(case: Case) -> Iterator[Finding]:
    """An edit at an alias of a point has the effect of the same edit at the point.

    A failure means that who hooks by the other name edits nothing, or something else.
    """
    points = {point.name: point for point in localization.agreeing_points(case) if not point.kind.is_discrete}
    targets = {name: info.alias_of for name, info in activations.hook_points(case).items() if info.alias_of in points}

    def logits(edits: Mapping[str, Edit]) -> Tensor:
        with activations.hooked(case, case.subject.wrapped(), forward=edits):
            return compute_logits(case, case.subject.wrapped())

    unedited, at_points = logits({}), dict[str, Tensor]()
    acts = False
    for name, target in targets.items():
        edit = scaled(points[target])
        if target not in at_points:
            at_points[target] = logits({target: edit})
        if torch.equal(at_points[target], unedited):
            continue  # an edit that does nothing there either: `intervene.each_point` tells
        acts = True
        found = case.compare_logits(name, logits({name: edit}), truth=at_points[target])
        words = (
            f"another name of {target}: its edit is another one, {found.message}"
            if found.verdict is Verdict.FAIL
            else None
        )
        yield (
            found
            if words is None
            else Finding(verdict=found.verdict, where=name, message=words, measured=found.measured, bound=found.bound)
        )
    if not acts:
        raise NotApplicable("no hook point at which edits act has a second name")
