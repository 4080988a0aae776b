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
from verifier.checks.build import AFTER_ONE_FORWARD, parameters
from verifier.checks.lifetimes import apart_from_all_before, exercise, live_and_die, live_tensors
from verifier.checks.subjects import (
    copied,
    copy_of_twin,
    held,
    logits_of,
    open_points,
    other,
    steady_logits,
    twin,
    written_into,
)
from verifier.judging.comparison import from_condition, summarize
from verifier.judging.numerics import compare_bitwise, float64_judge, noise_from_float32, precision_judge, rms
from verifier.judging.outcome import Blocked, Finding, NotApplicable, Verdict
from verifier.observing import activations, interventions
from verifier.observing.capabilities import require
from verifier.observing.case import Case
from verifier.reference import models
from verifier.reference.snapshots import ModelState, Surroundings

WARM_UP, MANY = 2, 4  # subjects that may fill what is filled once, and those after which nothing may have grown


@check("state.interleaved", applies="pairwise")
def interleaved(case: Case) -> Finding:
    """Two models of one config and different weights, wrapped and run in turns, each give their own logits.

    A failure means that a wrapped model answers with the weights of another one in the same process.
    """
    first = steady_logits(case)
    second = other(case)
    theirs = logits_of(case, second.subject)
    return summarize(
        [
            second.compare("the second model", theirs),
            compare_bitwise("the first model, after the second", logits_of(case, case.subject.wrapped()), first),
            compare_bitwise("the second model, after the first", logits_of(case, second.subject), theirs),
        ]
    )


@contextlib.contextmanager
def _doubling(case: Case, subject: Subject, fired: list[str]) -> Iterator[None]:
    """Edit all of a subject's hook points that need no switch, and note which edits run."""

    def editing(name: str) -> Callable[[Tensor], Tensor]:
        def edit(value: Tensor) -> Tensor:
            fired.append(name)
            return value * 2

        return edit

    points = open_points(case, subject)
    if not points:
        raise NotApplicable("there is no canonical hook point that needs no switch")
    with require(subject.hooks).hooked({name: editing(name) for name in points}, {}):
        yield


def _bystander(case: Case, where: str, hooked: Subject, others: Mapping[str, Subject]) -> Iterator[Finding]:
    """Hooks on one subject neither run in the others nor change what they give."""
    before = {name: logits_of(case, one) for name, one in others.items()}
    fired: list[str] = []
    with _doubling(case, hooked, fired):
        for name, one in others.items():
            during = logits_of(case, one)
            more = f" and {len(fired) - 1} more" if len(fired) > 1 else ""
            yield from_condition(f"{where}, {name}", f"the hook at {fired[0]}{more} runs in it too" if fired else None)
            yield compare_bitwise(f"{where}, {name}: logits", during, before[name])
            fired.clear()


@check("state.hooks", needs=["hooks"], applies="sampled")
def hooks(case: Case) -> Finding:
    """Hooks on one subject neither run in another one nor change it, be its weights others or the same.

    A failure means that an intervention on one model is one on every model that is loaded.
    """
    steady_logits(case)
    beside = {"another model beside it": other(case).subject, "its twin beside it": twin(case)}
    return summarize(
        [
            *_bystander(case, "hooks on a model", case.subject.wrapped(), beside),
            *_bystander(case, "hooks on a twin", twin(case), {"the model beside it": case.subject.wrapped()}),
        ]
    )


@check("state.copy", needs=["modes"], applies="pairwise")
def copy(case: Case) -> Finding:
    """A copy gives the original's logits bit for bit, and so does the original beside it.

    A failure means that what is tried on a copy is not tried on the model.
    """
    steady_logits(case)
    before = logits_of(case, twin(case))
    mine = copy_of_twin(case)
    return summarize(
        [
            compare_bitwise("the copy", logits_of(case, mine), before),
            compare_bitwise("the original, beside its copy", logits_of(case, twin(case)), before),
        ]
    )


@check("state.copy_hooks", needs=["modes", "hooks"], applies="sampled")
def copy_hooks(case: Case) -> Finding:
    """Hooks on a model do not run in a copy that is taken meanwhile, nor a copy's hooks in the model.

    A failure means that a clean copy is not clean: it is edited by hooks that nobody put on it.
    """
    steady_logits(case)
    original = twin(case)
    before = logits_of(case, original)
    fired: list[str] = []
    with contextlib.ExitStack() as closing:
        with _doubling(case, original, fired):
            mine = closing.enter_context(copied(original))
            during = logits_of(case, mine)
        words = f"the original's hook at {fired[0]} runs in it" if fired else None
        found = [
            from_condition("a copy of a hooked model", words),
            compare_bitwise("a copy of a hooked model: logits", during, before),
        ]
        found += _bystander(case, "hooks on a copy", mine, {"the original beside it": original})
    return summarize(
        [*found, compare_bitwise("the original, after its copy is closed", logits_of(case, original), before)]
    )


@check("state.copy_weights", needs=["modes"], applies="pairwise")
def copy_weights(case: Case) -> Finding:
    """A copy shares no memory with the original; writing into every weight of the one changes nothing of the other.

    A failure means that training or ablating a copy trains or ablates the model.
    """
    steady_logits(case)
    original, mine = twin(case), copy_of_twin(case)
    before, first = logits_of(case, original), logits_of(case, mine)
    ours, its = held(original), held(mine)
    memories = {one.untyped_storage().data_ptr(): name for name, one in ours.items()}
    found = [
        from_condition(f"the copy's {name}", f"it is in the memory of the original's {theirs}")
        for name, one in its.items()
        if (theirs := memories.get(one.untyped_storage().data_ptr())) is not None
    ]
    with written_into(ours):
        changed = logits_of(case, original)
        found.append(compare_bitwise("the copy, when the original is written into", logits_of(case, mine), first))
    if torch.equal(changed, before):
        raise NotApplicable("nothing of what it gives out as its weights is what it computes with")
    with written_into(its):
        found.append(compare_bitwise("the original, when the copy is written into", logits_of(case, original), before))
    return summarize(found)


@check("state.acting", needs=["modes", "hooks"], applies="pairwise")
def acting(case: Case) -> Finding:
    """In a copy, and in a subject that was loaded, trained, evaluated or cast, edits act as they did; a copy shows the
    original's weights.

    A failure means that hooks are attached to nothing, or to another model, as soon as a subject is handled.
    """
    steady_logits(case)
    mine, copy = twin(case), copy_of_twin(case)
    names = [point for point in open_points(case, mine) if point in activations.hook_points(case)]
    if not names:
        raise NotApplicable("there is no canonical hook point that needs no switch")

    # By numbers of their own: a norm's halved scale and its halved output would be the norm again.
    edits = interventions.scaling_edits([point for point in case.reference.points if point.name in names])

    def scaled(subject: Subject) -> Tensor:
        with activations.hooked(case, subject, forward=edits):
            return logits_of(case, subject)

    wanted, modes = scaled(mine), require(mine.modes)
    if torch.equal(wanted, logits_of(case, mine)):
        raise Blocked("intervene.replace")
    found = [compare_bitwise("edits of a copy", scaled(copy), wanted)]
    if mine.weights is not None:
        theirs, its = mine.weights.canonical(), require(copy.weights).canonical()
        found += _all_same("a copy", its, theirs)
    modes.load_state_dict({name: one.detach().clone() for name, one in modes.state_dict().items()})
    found.append(compare_bitwise("edits after its own state was loaded", scaled(mine), wanted))
    modes.train(True)
    modes.train(False)
    found.append(compare_bitwise("edits after training and evaluation mode", scaled(mine), wanted))
    subject = case.subject.wrap(case.reference.build_for_adapter())
    logits_of(case, subject)
    require(subject.modes).to(dtype=getattr(torch, SINGLE))
    dead = torch.equal(scaled(subject), logits_of(case, subject))
    return summarize([*found, from_condition("edits after a cast", "they change nothing" if dead else None)])


@check("state.written", needs=["components"], applies="pairwise")
def written(case: Case) -> Finding:
    """Parameters that are multiplied in place where the components show them, after a run, make it the model that HF's
    is with the same multiplied.

    A failure means that what is trained or ablated is not what is computed with: a copy, or what was worked out before.
    """
    steady_logits(case)
    if parameters.run(case).verdict is not Verdict.PASS:
        raise Blocked("build.parameters")
    subject = case.subject.wrap(case.reference.build_for_adapter())
    logits_of(case, subject)
    modules = require(subject.components).modules()
    _multiply({id(one): one for module in modules.values() for one in module.parameters()}.values())
    truth, noise = case.shared_reference.memoize("multiplied in place", lambda: _multiplied(case))
    rows = case.subject.agreeing_rows()[:, None, None]
    found = float64_judge(noise).compare("logits", logits_of(case, subject), truth, defined=rows, axes=LOGIT_AXES)
    if found.verdict is Verdict.FAIL and torch.equal(logits_of(case, subject), case.subject.output().logits):
        found = replace(found, message="what is written into its parameters changes nothing")
    return summarize([found])


@torch.no_grad()
def _multiply(parameters: Iterable[Tensor]) -> None:
    for one in parameters:
        one.mul_(5 / 4)


def _multiplied(case: Case) -> tuple[Tensor, float]:
    """HF's logits with every parameter multiplied, and their noise."""

    def run(dtype: str) -> Tensor:
        model = case.reference.build(dtype)
        _multiply(model.parameters())
        with torch.no_grad():
            return models.forward(model, case.reference.inputs(dtype=dtype)).logits

    true = run(SEMANTIC_DTYPE)
    return true, noise_from_float32(true, run(SINGLE))


@check("state.state_dict", needs=["modes"], applies="pairwise")
def state_dict(case: Case) -> Finding:
    """Another model's state dict makes a model that other one; its own, loaded back, makes it what it was bit for bit.

    A failure means that a checkpoint which is saved and loaded through the adapter is not the model that was saved.
    """
    steady_logits(case)
    mine, second = twin(case), other(case)
    if second.compare("", logits_of(case, second.subject)).verdict is Verdict.FAIL:
        raise Blocked("state.interleaved")
    before = logits_of(case, mine)
    _shown(mine)  # what an adapter works out at the first look it must work out anew after loading
    modes: Any = require(mine.modes)
    kept = {name: one.detach().clone() for name, one in modes.state_dict().items()}
    modes.load_state_dict(dict(require(second.subject.modes).state_dict()))
    found = [
        second.compare("another model's state loaded", logits_of(case, mine)),
        *_all_same("another model's state loaded", _shown(mine), _shown(second.subject)),
    ]
    modes.load_state_dict(kept)
    return summarize([*found, compare_bitwise("its own state loaded back", logits_of(case, mine), before)])


def _shown(subject: Subject) -> dict[str, Tensor]:
    """Copy every weight that the subject shows: canonical ones, its state dict and its components."""
    given: dict[str, Tensor] = {}
    if subject.weights is not None:
        given |= subject.weights.canonical()
    return given | held(subject)


def _all_same(where: str, actual: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[Finding]:
    return [compare_bitwise(f"{where}: {name}", actual.get(name), one) for name, one in wanted.items()]


@check("state.to", needs=["modes"], applies="pairwise")
def to(case: Case) -> Finding:
    """Cast to float32 a subject is as near to the truth as HF's model cast to float32, and so are its hooks' dtypes.

    On another device than the CPU it is moved to the CPU then, and gives the same there. A failure means that a cast
    or a move leaves something behind: a table, a split weight, a buffer.
    """
    steady_logits(case)
    single = getattr(torch, SINGLE)
    subject, inputs = case.subject.wrap(case.reference.build_for_adapter()), case.reference.inputs()
    require(subject.modes).to(dtype=single)
    truth, rows = case.noise.truth(Scenario.PLAIN, SINGLE).logits, case.subject.agreeing_rows()[:, None, None]
    logits, judge = logits_of(case, subject), case.noise.precision_judge(Scenario.PLAIN, SINGLE)
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
    found = [
        from_condition("logits: dtype", None if logits.dtype == single else f"{logits.dtype} after a cast to {single}")
    ]
    found += [*_hook_dtypes(case, subject, single), judged]
    if case.spec.device != "cpu":
        require(subject.modes).to(device="cpu")
        with torch.no_grad():
            moved = subject.forward(replace(inputs, input_ids=torch.as_tensor(inputs.input_ids).cpu())).logits
        found.append(
            from_condition("logits: device", None if moved.device.type == "cpu" else f"on {moved.device}, not cpu")
        )
        found.append(judge.compare("logits on the CPU", moved, truth, defined=rows))
    return summarize(found)


def _hook_dtypes(case: Case, subject: Subject, wanted: torch.dtype) -> Iterator[Finding]:
    """Whether what the hooks show has the dtype that it has where the model is built in it."""
    after = _dtypes(case, subject)
    others = [name for name, dtype in after.items() if dtype != wanted]
    built = _dtypes(case, case.subject.wrapped(SINGLE)) if others else {}
    for name, dtype in after.items():
        odd = name in others and built.get(name) != dtype
        yield from_condition(f"{name}: dtype", f"{dtype} after a cast to {wanted}" if odd else None)


def _dtypes(case: Case, subject: Subject) -> dict[str, torch.dtype]:
    seen: dict[str, torch.dtype] = {}

    def reading(name: str) -> Callable[[Tensor], None]:
        return lambda value: seen.update({name: value.dtype})

    points = open_points(case, subject)
    if points:
        with require(subject.hooks).hooked({name: reading(name) for name in points}, {}):
            logits_of(case, subject)
    return seen


@check("state.eval", needs=["modes"], applies="pairwise")
def evaluation(case: Case) -> Finding:
    """After training mode, in which every dropout of the model's may act, evaluation gives what it gave before.

    A failure means that a model that was trained for a while is not the one that is evaluated.
    """
    steady_logits(case)
    subject = twin(case)
    before = logits_of(case, subject)
    modes: Any = require(subject.modes)
    modes.train(True)
    with torch.random.fork_rng():
        logits_of(case, subject)
    modes.train(False)
    return summarize([compare_bitwise("after training mode", logits_of(case, subject), before)])


@check("state.changes", applies="sampled")
def changes(case: Case) -> Finding:
    """After all that it offers was used (hooks, edits, switches, a cache, a backward, training mode) the model, HF's
    classes and the weights are as they were after the first forward, but for what the adapter declares.

    A failure means that looking at a model changes it.
    """
    steady_logits(case)
    already = case.memo.memoize(AFTER_ONE_FORWARD, case.subject.wrapping.surroundings.differences)
    model = case.reference.build()
    state = ModelState(model)
    subject = case.subject.wrap(model)
    # Where parameters may be replaced, their values may still not move.
    weights = _shown(subject) if "parameters" in subject.declared_mutations else {}
    weights = {name: one.detach().clone() for name, one in weights.items()}
    before = logits_of(case, subject)
    known = {*state.changes(), *subject.declared_mutations}
    exercise(case, subject)
    around = [one for one in case.subject.wrapping.surroundings.differences() if one not in already]
    found = [
        from_condition(kind, f"not declared: {CHANGES[kind]} ({place})")
        for kind, place in state.changes().items()
        if kind not in known
    ]
    found += [from_condition(one, "it is another one now") for one in around]
    found += _all_same("weights", _shown(subject) if weights else {}, weights)
    return summarize([*found, compare_bitwise("logits", logits_of(case, subject), before)])


@check("state.memory", applies="sampled")
def memory(case: Case) -> Finding:
    """Of many subjects that were wrapped, used, closed and dropped no model and no tensor stays, and no hook on HF.

    A failure means that a loop over models runs out of memory, or that each of them runs slower than the one before.
    """
    steady_logits(case)
    around = Surroundings(case.reference.model())
    with apart_from_all_before():
        for _ in range(WARM_UP):
            live_and_die(case)
        tensors = live_tensors()
        watched = [live_and_die(case) for _ in range(MANY)]
        more = live_tensors() - tensors
    alive = sum(one() is not None for one in watched)
    changed = around.differences()
    return summarize(
        [
            from_condition("surroundings", f"changed: {', '.join(changed[:5])}" if changed else None),
            from_condition("models", f"{alive} of {MANY} are still there after they were dropped" if alive else None),
            from_condition("tensors", f"there are {more} more after {MANY} more models" if more > 0 else None),
        ]
    )
