"""Make further subjects of a case: with other weights, with the same weights, and copies."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from verifier.adapter import Subject
from verifier.canonical import LOGIT_AXES
from verifier.judging.numerics import compare_bitwise, float64_judge, measured_noise, unit
from verifier.judging.outcome import Blocked, Finding, Verdict
from verifier.observing.capabilities import require
from verifier.observing.case import Case
from verifier.reference import models
from verifier.reference.perturbation import PERTURBATION_SEED, Perturbation
from verifier.reference.random_weights import randomise


def logits_of(case: Case, subject: Subject) -> Tensor:
    """Run a subject on plain tokens in float64, and copy its logits `[batch, pos, d_vocab]`."""
    with torch.no_grad():
        return subject.forward(case.reference.inputs()).logits.clone()


def steady_logits(case: Case) -> Tensor:
    """The subject's logits on plain tokens, which agree with HF in some row and are repeatable bit for bit.

    Raises:
        Blocked: they do not agree, or are not repeatable; the message names the check that reports it.
    """
    case.subject.agreeing_rows()
    first = case.subject.output().logits

    def again() -> bool:
        return compare_bitwise("logits", logits_of(case, case.subject.wrapped()), first).verdict is Verdict.PASS

    if not case.memo.memoize(("steady",), again):
        raise Blocked("forward.twice")
    return first


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
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
        """Judge logits `[batch, pos, d_vocab]` on plain tokens that must be this model's."""
        # The unit is part of the noise: an error within the unit alone needs no measured noise.
        here = self.rows[:, None, None]
        nearest = float64_judge(unit(self.truth, torch.float64)).compare(
            where, logits, self.truth, defined=here, axes=LOGIT_AXES
        )
        if nearest.verdict is Verdict.PASS:
            return nearest
        return float64_judge(self.noise()).compare(where, logits, self.truth, defined=here, axes=LOGIT_AXES)


def other(case: Case) -> Other:
    """Wrap a model with other weights, while the case's own subject lives."""

    def another() -> Any:
        model = case.reference.build()
        randomise(model, case.spec.seed + 1)
        return model

    def noise_of(truth: Tensor) -> float:
        with torch.no_grad(), Perturbation(torch.float64, PERTURBATION_SEED):
            moved = models.forward(another(), case.reference.inputs()).logits
        return measured_noise(truth, None, [moved], torch.float64)

    def make() -> Other:
        model = another()
        with torch.no_grad():
            truth = models.forward(model, case.reference.inputs()).logits
        return Other(
            subject=case.subject.wrap(model),
            truth=truth,
            rows=case.subject.agreeing_rows(),
            noise=lambda: case.memo.memoize(("noise", "other weights"), lambda: noise_of(truth)),
        )

    case.subject.wrapped()
    return case.memo.memoize(("subject", "other weights"), make, is_model=True)


def twin(case: Case) -> Subject:
    """Wrap a model with the same weights, and with dropouts that act in train mode."""
    case.subject.wrapped()

    def make() -> Subject:
        return case.subject.wrap(case.reference.build_for_adapter(**case.family.dropouts()))

    return case.memo.memoize(("subject", "twin"), make, is_model=True)


def copy_of_twin(case: Case) -> Subject:
    """Copy the twin with its own `modes.copy`."""

    def make() -> Subject:
        return case.subject.keep(require(twin(case).modes).copy())

    return case.memo.memoize(("subject", "copy"), make, is_model=True)


@contextlib.contextmanager
def copied(subject: Subject) -> Iterator[Subject]:
    """Copy a subject with its own `modes.copy`, and close the copy at the end."""
    copy: Subject = require(subject.modes).copy()
    try:
        yield copy
    finally:
        copy.close()


def open_points(case: Case, subject: Subject) -> list[str]:
    """The canonical hook points of a subject that need no switch, in causal order; empty where it has no hooks."""
    if subject.hooks is None:
        return []
    offered = subject.hooks.names()
    return [one.name for one in case.reference.points if one.name in offered and offered[one.name].switch is None]


def held(subject: Subject) -> dict[str, Tensor]:
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
def written_into(tensors: Mapping[str, Tensor]) -> Iterator[None]:
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
