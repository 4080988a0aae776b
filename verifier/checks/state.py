"""Check a subject's state: subjects share nothing, and each keeps what it is told to keep and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from verifier.adapter import CHANGES, Subject
from verifier.checks import check
from verifier.checks.build import changed_by_one_forward
from verifier.checks.lifetimes import count_live_tensors, run_whole_life, use_everything, without_earlier_objects
from verifier.checks.subjects import (
    changed_in_place,
    collect_tensors,
    compute_logits,
    copied,
    copy_twin,
    steady_logits,
    ungated_names,
    wrap_other_weights,
    wrap_twin,
)
from verifier.errors import all_but_interrupts
from verifier.judging.comparison import from_condition
from verifier.judging.numerics import compare_bitwise
from verifier.judging.outcome import Finding, NotApplicable
from verifier.observing.capabilities import require
from verifier.observing.case import Case
from verifier.reference.snapshots import ModelState, Surroundings

WARM_UP, MANY = 2, 4  # subjects that may fill what is filled once, and those after which nothing may have grown


@check("state.interleaved", applies="pairwise")
def interleaved(case: Case) -> list[Finding]:
    """Two models of one config and different weights, wrapped and run in turns, each give their own logits.

    A failure means that a wrapped model answers with the weights of another one in the same process.
    """
    first = steady_logits(case)
    second = wrap_other_weights(case)
    theirs = compute_logits(case, second.subject)
    return [
        second.compare("the second model", theirs),
        compare_bitwise("the first model, after the second", compute_logits(case, case.subject.wrapped()), first),
        compare_bitwise("the second model, after the first", compute_logits(case, second.subject), theirs),
    ]


@contextlib.contextmanager
def _double_all_points(case: Case, subject: Subject, fired: list[str]) -> Iterator[None]:
    """Edit all of a subject's hook points that need no switch, and note which edits run."""

    def editing(name: str) -> Callable[[Tensor], Tensor]:
        def edit(value: Tensor) -> Tensor:
            fired.append(name)
            return value * 2

        return edit

    points = ungated_names(case, subject)
    if not points:
        raise NotApplicable("there is no canonical hook point that needs no switch")
    with require(subject.hooks).hooked({name: editing(name) for name in points}, {}):
        yield


def _judge_bystanders(case: Case, where: str, hooked: Subject, others: Mapping[str, Subject]) -> Iterator[Finding]:
    """Hooks on one subject neither run in the others nor change what they give."""
    before = {name: compute_logits(case, one) for name, one in others.items()}
    fired: list[str] = []
    with _double_all_points(case, hooked, fired):
        for name, one in others.items():
            during = compute_logits(case, one)
            more = f" and {len(fired) - 1} more" if len(fired) > 1 else ""
            yield from_condition(f"{where}, {name}", f"the hook at {fired[0]}{more} runs in it too" if fired else None)
            yield compare_bitwise(f"{where}, {name}: logits", during, before[name])
            fired.clear()


@check("state.hooks", needs=["hooks"], applies="sampled")
def hooks(case: Case) -> list[Finding]:
    """Hooks on one subject neither run in another one nor change it, be its weights others or the same.

    A failure means that an intervention on one model is one on every model that is loaded.
    """
    steady_logits(case)
    beside = {"another model beside it": wrap_other_weights(case).subject, "its twin beside it": wrap_twin(case)}
    return [
        *_judge_bystanders(case, "hooks on a model", case.subject.wrapped(), beside),
        *_judge_bystanders(case, "hooks on a twin", wrap_twin(case), {"the model beside it": case.subject.wrapped()}),
    ]


@check("state.copy", needs=["modes"], applies="pairwise")
def copy(case: Case) -> list[Finding]:
    """A copy gives the original's logits bit for bit, and so does the original beside it.

    A failure means that what is tried on a copy is not tried on the model.
    """
    steady_logits(case)
    before = compute_logits(case, wrap_twin(case))
    duplicate = copy_twin(case)
    return [
        compare_bitwise("the copy", compute_logits(case, duplicate), before),
        compare_bitwise("the original, beside its copy", compute_logits(case, wrap_twin(case)), before),
    ]


@check("state.copy_hooks", needs=["modes", "hooks"], applies="sampled")
def copy_hooks(case: Case) -> list[Finding]:
    """Hooks on a model do not run in a copy that is taken meanwhile, nor a copy's hooks in the model.

    A failure means that a clean copy is not clean: it is edited by hooks that nobody put on it.
    """
    steady_logits(case)
    original = wrap_twin(case)
    before = compute_logits(case, original)
    fired: list[str] = []
    with contextlib.ExitStack() as closing:
        with _double_all_points(case, original, fired):
            duplicate = closing.enter_context(copied(original))
            during = compute_logits(case, duplicate)
        wrong = f"the original's hook at {fired[0]} runs in it" if fired else None
        found = [
            from_condition("a copy of a hooked model", wrong),
            compare_bitwise("a copy of a hooked model: logits", during, before),
        ]
        found += _judge_bystanders(case, "hooks on a copy", duplicate, {"the original beside it": original})
    after = compute_logits(case, original)
    return [*found, compare_bitwise("the original, after its copy is closed", after, before)]


@check("state.copy_weights", needs=["modes"], applies="pairwise")
def copy_weights(case: Case) -> list[Finding]:
    """A copy shares no memory with the original; writing into every weight of the one changes nothing of the other.

    A failure means that training or ablating a copy trains or ablates the model.
    """
    steady_logits(case)
    original, duplicate = wrap_twin(case), copy_twin(case)
    before, first = compute_logits(case, original), compute_logits(case, duplicate)
    tensors, copied_tensors = collect_tensors(original), collect_tensors(duplicate)
    memories = {one.untyped_storage().data_ptr(): name for name, one in tensors.items()}
    found = [
        from_condition(f"the copy's {name}", f"it is in the memory of the original's {shared}")
        for name, one in copied_tensors.items()
        if (shared := memories.get(one.untyped_storage().data_ptr())) is not None
    ]
    with changed_in_place(tensors):
        changed = compute_logits(case, original)
        found.append(
            compare_bitwise("the copy, when the original is written into", compute_logits(case, duplicate), first)
        )
    if torch.equal(changed, before):
        raise NotApplicable("nothing of what it gives out as its weights is what it computes with")
    with changed_in_place(copied_tensors):
        found.append(
            compare_bitwise("the original, when the copy is written into", compute_logits(case, original), before)
        )
    return found


def _shown_weights(subject: Subject) -> dict[str, Tensor]:
    """Copy every weight that the subject shows: canonical ones, its state dict and its components."""
    given: dict[str, Tensor] = {}
    if subject.weights is not None:
        given |= subject.weights.canonical()
    return given | collect_tensors(subject)


def _compare_all(where: str, actual: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[Finding]:
    return [compare_bitwise(f"{where}: {name}", actual.get(name), one) for name, one in wanted.items()]


@check("state.changes", applies="sampled")
def changes(case: Case) -> list[Finding]:
    """After all that it offers was used (hooks, edits, switches, a cache, a backward, training mode) the model, HF's
    classes and the weights are as they were after the first forward, but for what the adapter declares.

    A failure means that looking at a model changes it.
    """
    steady_logits(case)
    already = changed_by_one_forward(case)
    model = case.reference.build()
    state = ModelState(model)
    subject = case.subject.wrap(model)
    # Where parameters may be replaced, their values may still not move.
    weights = _shown_weights(subject) if "parameters" in subject.declared_mutations else {}
    weights = {name: one.detach().clone() for name, one in weights.items()}
    before = compute_logits(case, subject)
    known = {*state.changes(), *subject.declared_mutations}
    use_everything(case, subject)
    around = [one for one in case.subject.wrapping.surroundings.differences() if one not in already]
    found = [
        from_condition(kind, f"not declared: {CHANGES[kind]} ({place})")
        for kind, place in state.changes().items()
        if kind not in known
    ]
    found += [from_condition(one, "it is another one now") for one in around]
    found += _compare_all("weights", _shown_weights(subject) if weights else {}, weights)
    return [*found, compare_bitwise("logits", compute_logits(case, subject), before)]


@check("state.memory", applies="sampled")
def memory(case: Case) -> list[Finding]:
    """Of many subjects that were wrapped, used, closed and dropped no model and no tensor stays, and no hook on HF.

    A failure means that a loop over models runs out of memory, or that each of them runs slower than the one before.
    """
    steady_logits(case)
    around = Surroundings(case.reference.model())
    with without_earlier_objects():
        for _ in range(WARM_UP):
            run_whole_life(case)
        tensors = count_live_tensors()
        watched = [run_whole_life(case) for _ in range(MANY)]
        more = count_live_tensors() - tensors
    alive = sum(one() is not None for one in watched)
    changed = around.differences()
    return [
        from_condition("surroundings", f"changed: {', '.join(changed[:5])}" if changed else None),
        from_condition("models", f"{alive} of {MANY} are still there after they were dropped" if alive else None),
        from_condition("tensors", f"there are {more} more after {MANY} more models" if more > 0 else None),
    ]


@check("state.process", applies="always", subject=False)
def process(case: Case) -> Finding | list[Finding]:
    """A case leaves the process as it found it: torch's and Python's settings, the environment, and everybody's code.

    A failure means that the adapter changes what is not its own, so that whatever runs after it is another program. It
    is looked at after each check; what runs in the case after a change by which Hugging Face's model computes something
    else is blocked, and the next case gets a new process.
    """
    if case.spec.valid:
        try:
            case.subject.first_output()  # if nothing else has run it
        except all_but_interrupts():  # what it raises, `build.adapter` and `build.forward` report
            pass
    case.close()
    return [from_condition(name, words) for name, words in case.process.differences().items()] or Finding()
