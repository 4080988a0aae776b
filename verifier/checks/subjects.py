"""Make further subjects of a case: with other weights, with the same weights, and copies."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from verifier.adapter import Inputs, Subject, offered_points
from verifier.canonical import LOGIT_AXES
from verifier.cases.spec import Scenario
from verifier.judging.numerics import compare_bitwise, float64_judge, measured_noise, unit
from verifier.judging.outcome import Blocked, Finding, Verdict
from verifier.observing.capabilities import require
from verifier.observing.case import Case
from verifier.observing.closing import close_quietly
from verifier.observing.memo import memoized
from verifier.reference import models
from verifier.reference.perturbation import PERTURBATION_SEED, Perturbation
from verifier.reference.random_weights import randomise


def compute_logits(case: Case, subject: Subject, inputs: Inputs | None = None) -> Tensor:
    """Run a subject without gradients, by default on plain tokens in float64, and copy its logits.

    Args:
        case: of the default inputs.
        subject: to run.
        inputs: of the forward; the case's plain tokens if not given.

    Returns:
        `[batch, pos, d_vocab]`.
    """
    with torch.no_grad():
        logits = subject.forward(case.reference.inputs() if inputs is None else inputs).logits
    return logits.clone() if isinstance(logits, Tensor) else logits  # the comparison reports what is no tensor


def real_logits(case: Case, scenario: Scenario = Scenario.PLAIN) -> Tensor:
    """Select the logits that are compared: those of real tokens, in the rows where the subject agrees with HF.

    Args:
        case: the case.
        scenario: of the logits.

    Returns:
        `[batch, pos, 1]`, of booleans.

    Raises:
        Blocked: no row agrees; the message names the check that reports it.
    """
    real, rows = case.reference.scenario(scenario).real, case.subject.agreeing_rows(scenario)
    return (real & rows[:, None])[..., None]


def require_findings(findings: Iterable[Finding], reported_by: str) -> list[Finding]:
    """List the findings of a check, which compares what another check does not report.

    Args:
        findings: of the check.
        reported_by: the check that reports why there are none.

    Raises:
        Blocked: there is none; the message names the check that reports the reason.
    """
    found = list(findings)
    if not found:
        raise Blocked(reported_by)
    return found


def steady_logits(case: Case) -> Tensor:
    """The subject's logits on plain tokens, which agree with HF in some row and are repeatable bit for bit.

    Raises:
        Blocked: they do not agree, or are not repeatable; the message names the check that reports it.
    """
    case.subject.agreeing_rows()
    if not _is_repeatable(case):
        raise Blocked("forward.repeated")
    return case.subject.output().logits


@memoized
def _is_repeatable(case: Case) -> bool:
    again = compute_logits(case, case.subject.wrapped())
    return compare_bitwise("logits", again, case.subject.output().logits).verdict is Verdict.PASS


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherModel:
    """A subject with the same config and other weights.

    Attributes:
        subject: the wrapped model.
        truth: `[batch, pos, d_vocab]`, HF's logits of that model on plain tokens, from before it was wrapped.
        noise: measures the noise of `truth`.
        rows: `[batch]`, the rows that are judged: those in which the case's own subject has HF's logits.
    """

    subject: Subject
    truth: Tensor
    noise: Callable[[], float]
    rows: Tensor

    def compare(self, where: str, logits: Tensor) -> Finding:
        """Judge logits `[batch, pos, d_vocab]` on plain tokens that must be this model's.

        Args:
            where: the place, for people and fingerprints.
            logits: `[batch, pos, d_vocab]`, the subject's.
        """

        def judge(noise: float) -> Finding:
            defined = self.rows[:, None, None]
            return float64_judge(noise).compare(where, logits, self.truth, defined=defined, axes=LOGIT_AXES)

        # The unit is part of the noise: an error within the unit alone needs no measured noise.
        nearest = judge(unit(self.truth, torch.float64))
        return nearest if nearest.verdict is Verdict.PASS else judge(self.noise())


def wrap_other_weights(case: Case) -> OtherModel:
    """Wrap a model with other weights, while the case's own subject lives."""

    def another() -> Any:
        model = case.reference.build()
        randomise(model, case.spec.seed + 1)
        return model

    def noise_of(truth: Tensor) -> float:
        with torch.no_grad(), Perturbation(torch.float64, PERTURBATION_SEED):
            moved = models.forward(another(), case.reference.inputs()).logits
        return measured_noise(truth, None, [moved], torch.float64)

    def make() -> OtherModel:
        model = another()
        with torch.no_grad():
            truth = models.forward(model, case.reference.inputs()).logits
        return OtherModel(
            subject=case.subject.wrap(model),
            truth=truth,
            rows=case.subject.agreeing_rows(),
            noise=lambda: case.memo.memoize(("noise", "other weights"), lambda: noise_of(truth)),
        )

    case.subject.wrapped()
    return case.memo.memoize(("subject", "other weights"), make, is_model=True)


def wrap_twin(case: Case) -> Subject:
    """Wrap a model with the same weights, and with dropouts that act in train mode."""
    case.subject.wrapped()

    def make() -> Subject:
        return case.subject.wrap(case.reference.build_for_adapter(**case.family.dropouts()))

    return case.memo.memoize(("subject", "twin"), make, is_model=True)


def copy_twin(case: Case) -> Subject:
    """Copy the twin with its own `modes.copy`."""

    def make() -> Subject:
        return case.subject.keep(require(wrap_twin(case).modes).copy())

    return case.memo.memoize(("subject", "copy"), make, is_model=True)


@contextlib.contextmanager
def copied(subject: Subject) -> Iterator[Subject]:
    """Copy a subject with its own `modes.copy`, and close the copy at the end."""
    copy: Subject = require(subject.modes).copy()
    try:
        yield copy
    finally:
        close_quietly(copy)


def ungated_names(case: Case, subject: Subject) -> list[str]:
    """The canonical hook points of a subject that need no switch, in causal order; empty where it has no hooks.

    Args:
        case: of the canonical points.
        subject: whose hooks are listed.
    """
    offered = offered_points(subject.hooks)
    return [one.name for one in case.reference.points if one.name in offered and offered[one.name].switch is None]


def collect_tensors(subject: Subject) -> dict[str, Tensor]:
    """Collect every floating tensor of a subject, once: named by its innermost component, else by the state dict."""
    named: list[tuple[str, Tensor]] = []
    if subject.components is not None:
        modules: Mapping[str, nn.Module] = subject.components.modules()
        for name in sorted(modules, key=lambda name: (-name.count("."), name)):
            inside = [*modules[name].named_parameters(), *modules[name].named_buffers()]
            named += [(f"{name}: {inner}", one) for inner, one in inside]
    if subject.modes is not None:
        named += subject.modes.state_dict().items()
    found: dict[tuple[object, ...], tuple[str, Tensor]] = {}
    for name, one in named:
        if one.is_floating_point() and one.numel():
            found.setdefault((one.data_ptr(), one.shape, one.stride()), (name, one.detach()))
    return dict(found.values())


@contextlib.contextmanager
def changed_in_place(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Change every value inside the context, and restore all of them after it."""
    kept = [(one, one.clone()) for one in tensors.values()]
    with torch.no_grad():
        for one, _ in kept:
            one.add_(1)
        try:
            yield
        finally:
            for one, value in reversed(kept):  # memory with two names was written into twice
                one.copy_(value)
