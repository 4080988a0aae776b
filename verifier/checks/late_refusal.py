"""Ask Hugging Face about a case of which nobody knew, before its checks run."""

from __future__ import annotations

import torch

from verifier.errors import all_but_interrupts, one_line
from verifier.family import predicate_of
from verifier.judging.outcome import Blocked, as_text
from verifier.judging.raising import passed_hugging_face
from verifier.observing.case import Case
from verifier.reference.acceptance import look_up
from verifier.reference.asking import ask


def find_late_refusal(case: Case) -> str | None:
    """Say why Hugging Face refuses a case that was taken for valid because nobody knew.

    A tiny model is asked about, and the answer is kept. Another model is built for the case, whose checks need it too.

    Args:
        case: the case, of which nothing is built yet.

    Returns:
        The reason; None where HF accepts the config, or a case needs no question.
    """
    spec, family = case.spec, case.family
    if not spec.valid or predicate_of(family) is not None:
        return None
    found = look_up(family, spec.config)
    if not found.known:
        found = ask(family, spec.config)
    if found.known:
        return found.reason
    try:
        case.reference.output()
    except all_but_interrupts() as error:
        cause = error.__cause__ if isinstance(error, Blocked) and error.__cause__ is not None else error
        if passed_hugging_face(cause) and not _is_out_of_memory(cause):
            return str(as_text(one_line(cause)))
        # Whatever else it is, the checks meet it again, and tell it.
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether a model has no room here, which says nothing of its config."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
