"""Check interventions: an edit at a hook point changes the logits as the same edit in Hugging Face's model does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from verifier.adapter import Edit, Inputs, Subject
from verifier.canonical import LOGIT_AXES
from verifier.checks import check
from verifier.judging.numerics import float64_judge
from verifier.judging.outcome import Finding, NotApplicable, Verdict
from verifier.observing import activations, edited_runs, interventions, localization
from verifier.observing.activations import hooked
from verifier.observing.case import Case
from verifier.observing.edited_runs import Experiment
from verifier.observing.interventions import Intervention, Kind
from verifier.observing.memo import memoized

_WHOLE = ("replace", "everywhere")


def _edited_logits(case: Case, subject: Subject, ids: Tensor, edits: Mapping[str, Edit]) -> Tensor:
    with torch.no_grad(), hooked(case, subject, forward=edits):
        return subject.forward(Inputs(input_ids=ids)).logits


@memoized
def _run_all_interventions(case: Case) -> Mapping[int, Tensor]:
    """By row: the subject's logits with every edit at the points that agree without one."""
    case.subject.agreeing_rows()
    return _run_in_subject(case)


def _run_in_subject(case: Case, **how: Any) -> Mapping[int, Tensor]:
    """Run the interventions in the subject, at the points that agree; `how` is for `edited_runs.run_in_subject`."""
    run = partial(_edited_logits, case, case.subject.wrapped())
    points = localization.agreeing_points(case)
    return edited_runs.run_in_subject(case, edited_runs.run_interventions(case), points, run, **how)


def _judge_intervention(experiment: Experiment, given: Mapping[int, Tensor], one: Intervention) -> Finding:
    where = f"{one.point.name}, {one.extent}" if one.extent != "everywhere" else one.point.name
    judge = float64_judge(float(experiment.noise[one.row]))
    made = judge.compare(where, given[one.row], experiment.results[one.row], axes=LOGIT_AXES[1:])
    if made.verdict is not Verdict.FAIL:
        return made
    unedited = float64_judge(float(experiment.noise[0])).compare(
        where, given[one.row], experiment.results[0], axes=LOGIT_AXES[1:]
    )
    words = "the edit changes nothing" if unedited.verdict is not Verdict.FAIL else f"after the edit {made.message}"
    return replace(made, message=words)


def _report_points_once(comparisons: Sequence[Finding]) -> list[Finding]:
    """Report a point at which several edits go wrong once, by the first of them."""
    failing: set[str] = set()
    kept = []
    for one in comparisons:
        point = (one.where or "").partition(",")[0]
        if one.verdict is Verdict.FAIL:
            if point in failing:
                continue
            failing.add(point)
        kept.append(one)
    return kept


def _judge_interventions(case: Case, kind: Kind) -> list[Finding]:
    """Judge the effects of all edits of one kind."""
    experiment, given = edited_runs.run_interventions(case), _run_all_interventions(case)
    # Nothing is proved by an edit that does nothing in HF's model either.
    acting = [one for one in experiment.interventions if one.kind == kind and bool(experiment.acts[one.row])]
    made = [_judge_intervention(experiment, given, one) for one in acting if one.row in given]
    return _report_points_once(made)


@check("intervene.replace", needs=["hooks"])
def replaced(case: Case) -> list[Finding]:
    """A random activation in the place of the model's, everywhere and in one head at one position, has HF's effect on
    the logits at every point.

    The same edit is made in HF's model through its taps. A failure means that what an edit is said to cause is not
    what it causes.
    """
    return _judge_interventions(case, "replace")


@check("intervene.add", needs=["hooks"])
def added(case: Case) -> list[Finding]:
    """A random vector added to an activation, everywhere and in one head at one position, has HF's effect on the logits
    at every point.

    The same edit is made in HF's model through its taps. A failure means that steering acts on another model, or
    twice, or not at all.
    """
    return _judge_interventions(case, "add")


@check("intervene.zero", needs=["hooks"])
def zeroed(case: Case) -> list[Finding]:
    """An activation set to zero, everywhere and in one head at one position, has HF's effect on the logits at every
    point.

    The same edit is made in HF's model through its taps. A failure means that ablations say which parts matter in a
    model that is not.
    """
    return _judge_interventions(case, "zero")


@check("intervene.swap", needs=["hooks"])
def swapped(case: Case) -> list[Finding]:
    """The activation of another prompt in the place of its own, everywhere and in one head at one position, has HF's
    effect on the logits at every point.

    The same edit is made in HF's model through its taps. A failure means that patching between prompts finds other
    circuits.
    """
    return _judge_interventions(case, "swap")


@check("intervene.rows", needs=["hooks"])
def rows(case: Case) -> Iterator[Finding]:
    """Edits in some rows of a batch change nothing in the others.

    A failure means that an experiment on one prompt is seen by another one.
    """
    experiment, given = edited_runs.run_interventions(case), _run_all_interventions(case)
    names = ("the prompt itself", "the prompt that it is swapped with")
    for row, name in enumerate(names):
        judge = float64_judge(float(experiment.noise[row]))
        yield judge.compare(name, given[row], experiment.results[row], axes=LOGIT_AXES[1:])


@check("intervene.in_place", needs=["hooks"], applies="pairwise")
def in_place(case: Case) -> list[Finding]:
    """An edit that a hook writes into the tensor that it is given, and gives back, has the effect of one on a copy.

    A failure means that the commonest way of writing a hook (`z[:, :, head] = 0; return z`) does something else.
    """
    case.subject.agreeing_rows()
    experiment, given = edited_runs.run_interventions(case), _run_in_subject(case, kinds=("replace",), in_place=True)
    acting = [one for one in experiment.interventions if one.row in given and bool(experiment.acts[one.row])]
    return _report_points_once([_judge_intervention(experiment, given, one) for one in acting])


@check("intervene.alone", needs=["hooks"], applies="sampled")
def alone(case: Case) -> list[Finding]:
    """An edit of one point, with no hook at any other, has HF's effect too.

    Run for a few models of each kind of block. A failure means that an edit acts only while other hooks are there.
    """
    experiment, together = edited_runs.run_interventions(case), _run_all_interventions(case)
    findings = []
    for one in experiment.interventions:
        if one.kind != "replace" or one.row not in together or not bool(experiment.acts[one.row]):
            continue
        if _judge_intervention(experiment, together, one).verdict is Verdict.FAIL:
            continue  # `intervene.replace` reports it
        rows, edits = interventions.batch(experiment.changes, [one.point.name], wanted=one.row.__eq__)
        logits = _edited_logits(case, case.subject.wrapped(), experiment.ids[rows], edits)
        findings.append(_judge_intervention(experiment, {one.row: logits[rows.index(one.row)]}, one))
    return _report_points_once(findings)


@check("intervene.aliases", needs=["hooks"], applies="pairwise")
def aliases(case: Case) -> Iterator[Finding]:
    """An edit at an alias of a point has the effect of an edit at the point in HF's model.

    A failure means that who hooks by the other name edits nothing, or something else.
    """
    experiment, given = edited_runs.run_interventions(case), _run_all_interventions(case)
    whole = {one.point.name: one for one in experiment.interventions if (one.kind, one.extent) == _WHOLE}
    names: dict[str, list[str]] = {}
    for name, info in activations.hook_points(case).items():
        one = whole.get(info.alias_of or "")
        if one is None or one.row not in given or not bool(experiment.acts[one.row]):
            continue
        if _judge_intervention(experiment, given, one).verdict is not Verdict.FAIL:  # else `intervene.replace` tells
            names.setdefault(one.point.name, []).append(name)
    if not names:
        raise NotApplicable("no hook point at which edits act has a second name")

    def compare(chosen: Mapping[str, str]) -> Iterator[Finding]:
        """Yield by point one of its aliases at a time."""
        for switched in activations.by_switch(case, chosen.values()).values():
            target = {other: point for point, other in chosen.items() if other in switched}
            wanted = {whole[point].row for point in target.values()}
            rows, edits = interventions.batch(experiment.changes, list(target.values()), wanted=wanted.__contains__)
            logits = _edited_logits(
                case, case.subject.wrapped(), experiment.ids[rows], {other: edits[target[other]] for other in target}
            )
            for other, point in target.items():
                found = {whole[point].row: logits[rows.index(whole[point].row)]}
                made = _judge_intervention(experiment, found, whole[point])
                words = f"another name of {point}: {made.message}" if made.message else None
                yield replace(made, where=other, message=words)

    most = max(map(len, names.values()))
    rounds = [{point: some[turn] for point, some in names.items() if turn < len(some)} for turn in range(most)]
    return (one for chosen in rounds for one in compare(chosen))
