"""Check a subject's state: subjects share nothing, and each keeps what it is told to keep and nothing else."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from verifier.adapter import CHANGES, Subject
from verifier.canonical import LOGIT_AXES
from verifier.cases.spec import SEMANTIC_DTYPE, SINGLE, Scenario
from verifier.checks import check
from verifier.checks.build import changed_by_one_forward, parameters
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
from verifier.judging.comparison import from_condition
from verifier.judging.numerics import compare_bitwise, float64_judge, noise_from_float32, precision_judge, rms
from verifier.judging.outcome import Blocked, Finding, NotApplicable, Verdict
from verifier.observing import activations, interventions
from verifier.observing.capabilities import require
from verifier.observing.case import Case
from verifier.observing.reuse import memoized_for_equal_models
from verifier.reference import models
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


@check("state.acting", needs=["modes", "hooks"], applies="pairwise")
def acting(case: Case) -> list[Finding]:
    """In a copy, and in a subject that was loaded, trained, evaluated or cast, edits act as they did; a copy shows the
    original's weights.

    A failure means that hooks are attached to nothing, or to another model, as soon as a subject is handled.
    """
    steady_logits(case)
    original, duplicate = wrap_twin(case), copy_twin(case)
    names = [point for point in ungated_names(case, original) if point in activations.hook_points(case)]
    if not names:
        raise NotApplicable("there is no canonical hook point that needs no switch")

    # By numbers of their own: a norm's halved scale and copied_weights halved output would be the norm again.
    edits = interventions.scaling_edits([point for point in case.reference.points if point.name in names])

    def scaled(subject: Subject) -> Tensor:
        with activations.hooked(case, subject, forward=edits):
            return compute_logits(case, subject)

    wanted, modes = scaled(original), require(original.modes)
    if torch.equal(wanted, compute_logits(case, original)):
        raise Blocked("intervene.replace")
    found = [compare_bitwise("edits of a copy", scaled(duplicate), wanted)]
    if original.weights is not None:
        weights, copied_weights = original.weights.canonical(), require(duplicate.weights).canonical()
        found += _compare_all("a copy", copied_weights, weights)
    modes.load_state_dict({name: one.detach().clone() for name, one in modes.state_dict().items()})
    found.append(compare_bitwise("edits after its own state was loaded", scaled(original), wanted))
    modes.train(True)
    modes.train(False)
    found.append(compare_bitwise("edits after training and evaluation mode", scaled(original), wanted))
    subject = case.subject.wrap(case.reference.build_for_adapter())
    compute_logits(case, subject)
    require(subject.modes).to(dtype=getattr(torch, SINGLE))
    dead = torch.equal(scaled(subject), compute_logits(case, subject))
    return [*found, from_condition("edits after a cast", "they change nothing" if dead else None)]


@check("state.written", needs=["components"], applies="pairwise")
def written(case: Case) -> list[Finding]:
    """Parameters that are multiplied in place where the components show them, after a run, make it the model that HF's
    is with the same multiplied.

    A failure means that what is trained or ablated is not what is computed with: a copy, or what was worked out before.
    """
    steady_logits(case)
    if parameters.run(case).verdict is not Verdict.PASS:
        raise Blocked("build.parameters")
    subject = case.subject.wrap(case.reference.build_for_adapter())
    compute_logits(case, subject)
    modules = require(subject.components).modules()
    _multiply_parameters({id(one): one for module in modules.values() for one in module.parameters()}.values())
    truth, noise = _run_multiplied_reference(case)
    rows = case.subject.agreeing_rows()[:, None, None]
    found = float64_judge(noise).compare("logits", compute_logits(case, subject), truth, defined=rows, axes=LOGIT_AXES)
    if found.verdict is Verdict.FAIL and torch.equal(compute_logits(case, subject), case.subject.output().logits):
        found = replace(found, message="what is written into its parameters changes nothing")
    return [found]


@torch.no_grad()
def _multiply_parameters(parameters: Iterable[Tensor]) -> None:
    for one in parameters:
        one.mul_(5 / 4)


@memoized_for_equal_models
def _run_multiplied_reference(case: Case) -> tuple[Tensor, float]:
    """HF's logits with every parameter multiplied, and their noise."""

    def run(dtype: str) -> Tensor:
        model = case.reference.build(dtype)
        _multiply_parameters(model.parameters())
        with torch.no_grad():
            return models.forward(model, case.reference.inputs(dtype=dtype)).logits

    true = run(SEMANTIC_DTYPE)
    return true, noise_from_float32(true, run(SINGLE))


@check("state.state_dict", needs=["modes"], applies="pairwise")
def state_dict(case: Case) -> list[Finding]:
    """Another model's state dict makes a model that other one; its own, loaded back, makes it what it was bit for bit.

    A failure means that a checkpoint which is saved and loaded through the adapter is not the model that was saved.
    """
    steady_logits(case)
    subject, second = wrap_twin(case), wrap_other_weights(case)
    if second.compare("", compute_logits(case, second.subject)).verdict is Verdict.FAIL:
        raise Blocked("state.interleaved")
    before = compute_logits(case, subject)
    _shown_weights(subject)  # what an adapter works out at the first look it must work out anew after loading
    modes: Any = require(subject.modes)
    kept = {name: one.detach().clone() for name, one in modes.state_dict().items()}
    modes.load_state_dict(dict(require(second.subject.modes).state_dict()))
    found = [
        second.compare("another model's state loaded", compute_logits(case, subject)),
        *_compare_all("another model's state loaded", _shown_weights(subject), _shown_weights(second.subject)),
    ]
    modes.load_state_dict(kept)
    return [*found, compare_bitwise("its own state loaded back", compute_logits(case, subject), before)]


def _shown_weights(subject: Subject) -> dict[str, Tensor]:
    """Copy every weight that the subject shows: canonical ones, its state dict and its components."""
    given: dict[str, Tensor] = {}
    if subject.weights is not None:
        given |= subject.weights.canonical()
    return given | collect_tensors(subject)


def _compare_all(where: str, actual: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[Finding]:
    return [compare_bitwise(f"{where}: {name}", actual.get(name), one) for name, one in wanted.items()]


@check("state.to", needs=["modes"], applies="pairwise")
def to(case: Case) -> list[Finding]:
    """Cast to float32 a subject is as near to the truth as HF's model cast to float32, and so are its hooks' dtypes.

    On another device than the CPU it is moved to the CPU then, and gives the same there. A failure means that a cast
    or a move leaves something behind: a table, a split weight, a buffer.
    """
    steady_logits(case)
    single = getattr(torch, SINGLE)
    subject, inputs = case.subject.wrap(case.reference.build_for_adapter()), case.reference.inputs()
    require(subject.modes).to(dtype=single)
    truth, rows = case.noise.truth(Scenario.PLAIN, SINGLE).logits, case.subject.agreeing_rows()[:, None, None]
    logits, judge = compute_logits(case, subject), case.noise.precision_judge(Scenario.PLAIN, SINGLE)
    if judge.compare("logits", logits, truth, defined=rows).verdict is Verdict.FAIL:
        with torch.no_grad():
            cast = models.forward(case.reference.build().to(single), inputs).logits
        # What the cast itself costs HF, beside what float32 does.
        own = rms(cast.double() - truth, rows)
        judge = precision_judge(math.hypot(own, case.noise.logits(dtype=SINGLE)))
    judged = judge.compare("logits", logits, truth, defined=rows)
    if judged.verdict is Verdict.FAIL:
        built = case.subject.output(dtype=SINGLE).logits
        if judge.compare("logits", built, truth, defined=rows).verdict is Verdict.FAIL:
            raise Blocked("forward.float32")
    wrong = None if logits.dtype == single else f"{logits.dtype} after a cast to {single}"
    found = [from_condition("logits: dtype", wrong), *_judge_hook_dtypes(case, subject, single), judged]
    if case.spec.device != "cpu":
        require(subject.modes).to(device="cpu")
        moved = compute_logits(case, subject, replace(inputs, input_ids=torch.as_tensor(inputs.input_ids).cpu()))
        wrong = None if moved.device.type == "cpu" else f"on {moved.device}, not cpu"
        found.append(from_condition("logits: device", wrong))
        found.append(judge.compare("logits on the CPU", moved, truth, defined=rows))
    return found


def _judge_hook_dtypes(case: Case, subject: Subject, wanted: torch.dtype) -> Iterator[Finding]:
    """Whether what the hooks show has the dtype that it has where the model is built in it."""
    after = _read_dtypes(case, subject)
    others = [name for name, dtype in after.items() if dtype != wanted]
    built = _read_dtypes(case, case.subject.wrapped(SINGLE)) if others else {}
    for name, dtype in after.items():
        odd = name in others and built.get(name) != dtype
        yield from_condition(f"{name}: dtype", f"{dtype} after a cast to {wanted}" if odd else None)


def _read_dtypes(case: Case, subject: Subject) -> dict[str, torch.dtype]:
    seen: dict[str, torch.dtype] = {}

    def reading(name: str) -> Callable[[Tensor], None]:
        return lambda value: seen.update({name: value.dtype})

    points = ungated_names(case, subject)
    if points:
        with require(subject.hooks).hooked({name: reading(name) for name in points}, {}):
            compute_logits(case, subject)
    return seen


@check("state.eval", needs=["modes"], applies="pairwise")
def evaluation(case: Case) -> list[Finding]:
    """After training mode, in which every dropout of the model's may act, evaluation gives what it gave before.

    A failure means that a model that was trained for a while is not the one that is evaluated.
    """
    steady_logits(case)
    subject = wrap_twin(case)
    before = compute_logits(case, subject)
    modes: Any = require(subject.modes)
    modes.train(True)
    with torch.random.fork_rng():
        compute_logits(case, subject)
    modes.train(False)
    return [compare_bitwise("after training mode", compute_logits(case, subject), before)]


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
