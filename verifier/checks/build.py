"""Check wrapping: it works, it refuses a broken config, and it changes only what the adapter declares."""

from __future__ import annotations

import copy
import reprlib
from collections.abc import Iterator, Sequence

import numpy
import torch
from torch import Tensor, nn

from verifier.adapter import CHANGES, AdapterRefusal, Change, subject_fault
from verifier.canonical import COMPONENTS, FACTS, template_of
from verifier.checks import check
from verifier.checks.configs import find_config_edits
from verifier.checks.subjects import compute_logits
from verifier.errors import all_but_interrupts, one_line
from verifier.family import TellsFacts
from verifier.judging.comparison import from_condition
from verifier.judging.outcome import Finding, NotApplicable, Verdict, failure
from verifier.judging.raising import passed_hugging_face
from verifier.observing.capabilities import component_modules, require
from verifier.observing.case import Case
from verifier.observing.memo import memoized
from verifier.output.text import nearest
from verifier.reference.process_state import preserve_random_states
from verifier.reference.snapshots import ModelState


@check("build.adapter", subject=False)
def adapter(case: Case) -> Finding:
    """The adapter wraps a model of every config that HF accepts, and returns a subject.

    A failure means that models of this config cannot be used at all. All checks of the subject are blocked then, so
    that this is one failure and not sixty.
    """
    fault = case.subject.wrapping.fault  # asked first: a subject may raise where it is looked at
    error = case.subject.wrapping.error
    if error is not None and issubclass(type(error), AdapterRefusal):
        return failure("refused", f"it refuses a config that HF accepts: {one_line(error)}")
    if error is not None:
        raise error
    if fault is not None:
        return failure("subject", fault)
    return Finding()


@check("build.forward")
def forward(case: Case) -> Finding:
    """The wrapped model runs on plain tokens and returns logits.

    A failure means that the model can be wrapped and not run. Checks that run it are blocked.
    """
    logits = case.subject.first_output().logits
    if not isinstance(logits, Tensor):
        return failure("logits", f"they are a {type(logits).__name__}, not a tensor")
    return Finding()


@check("build.refusal", applies="invalid", subject=False)
def refusal(case: Case) -> Finding:
    """Wrapping a model that HF can build but not run raises `AdapterRefusal` with a message.

    A failure means that your users learn of a broken config late, from an unrelated error, or never: then the adapter
    shows activations of a model that does not exist.
    """
    try:
        model = case.reference.build()
    except Exception as error:
        if not passed_hugging_face(error):
            raise
        raise NotApplicable("HF does not even build it") from error
    try:
        subject = case.subject.wrap(model)
    except AdapterRefusal as error:
        if str(error).strip():
            return Finding()
        return failure("wrap", "it refuses without a word of why")
    except all_but_interrupts() as error:
        return failure("wrap", f"no clear refusal, but {one_line(error)}")
    if subject_fault(subject) is not None:
        return failure("wrap", f"no refusal, but a {type(subject).__name__}")
    try:
        with torch.no_grad():
            subject.forward(case.reference.any_tokens())
    except all_but_interrupts() as error:
        return failure("forward", f"it wraps what HF refuses, and then raises {one_line(error)}")
    return failure("runs", f"it wraps and runs a model that HF refuses: {case.spec.reason}")


@check("build.surroundings", applies="pairwise")
def surroundings(case: Case) -> Finding:
    """Wrapping and running a model leave HF's classes, its modules and torch's global settings unchanged.

    A failure means that the adapter patches code that every other model in the process uses. Patch the instance.
    """
    changed = case.subject.contamination
    if not changed:
        case.subject.require_forward()
        changed = changed_by_one_forward(case)
    return failure(changed[0], f"changed: {', '.join(changed[:5])}") if changed else Finding()


@memoized
def changed_by_one_forward(case: Case) -> list[str]:
    """Name what wrapping and running the case's model changed around it, when the first check asks."""
    return case.subject.wrapping.surroundings.differences()


@check("build.changes")
def changes(case: Case) -> Finding:
    """Wrapping and running a model change only what the subject lists in `declared_mutations`.

    A failure means that something of the caller's model changes silently: a patched forward, a replaced parameter, an
    edited config.
    """
    case.subject.require_forward()
    found = {**_find_changes_in_training(case), **case.subject.wrapping.state.changes()}
    undeclared = sorted(found.keys() - case.subject.wrapped().declared_mutations)
    words = "; ".join(f"{CHANGES[kind]} ({found[kind]})" for kind in undeclared)
    return failure(undeclared[0], f"not declared: {words}") if undeclared else Finding()


def _find_changes_in_training(case: Case) -> dict[Change, str]:
    """Find what wrapping changes of a model in train mode with half of its parameters frozen.

    On a trainable model in evaluation mode, an adapter that sets both would change nothing.
    """
    if not case.spec.is_pairwise:
        return {}
    model = case.reference.build_for_adapter()
    model.train()
    for parameter in list(model.parameters())[::2]:
        parameter.requires_grad_(False)
    state = ModelState(model)
    case.subject.wrap(model)
    return state.changes()


@check("build.config", applies="pairwise")
def config(case: Case) -> Finding:
    """Wrapping does not write into the config object from which the caller built the model, unless it is declared.

    A failure means that the next model that the caller builds from this config is a different one.
    """
    given = copy.deepcopy(case.reference.model().config)
    with preserve_random_states():
        model = type(case.reference.model())(given)  # keeps the object `given`, as a caller's model does
    before = {**given.to_dict(), "attn_implementation": given._attn_implementation}
    subject = case.subject.wrap(model.to(torch.float64).eval())
    after = {**given.to_dict(), "attn_implementation": given._attn_implementation}
    if "config" in subject.declared_mutations:
        return Finding()
    declared = {"attn_implementation"} if "attention" in subject.declared_mutations else set()
    return find_config_edits(before, after, verdict=Verdict.FAIL, declared=declared) or Finding()


@check("build.facts", needs=["facts"])
def facts(case: Case) -> Iterator[Finding]:
    """What the adapter says of the model is so: its heads, widths and layers, its norms, activation and positions.

    A failure means that code which reads it, for a head's width or an epsilon, computes for another model.
    """
    if not isinstance(case.family, TellsFacts):
        raise NotApplicable("the family says no facts of its models")
    true = case.family.facts(case.reference.model())
    told = dict(require(case.subject.wrapped().facts)())
    if not told:
        raise NotApplicable("the adapter says nothing of the model")
    for name, value in told.items():
        if name not in FACTS:
            yield failure(str(name), f"there is no such fact{nearest(str(name), tuple(FACTS))}")
        elif name in true:
            right, value = true[name], value.item() if isinstance(value, numpy.generic) else value
            same = isinstance(value, bool) == isinstance(right, bool) and value == right
            said = f"it is said to be {reprlib.repr(value)}, and is {right!r}"
            yield from_condition(name, None if same else said)


@check("build.close", applies="pairwise")
def close(case: Case) -> Finding:
    """A subject can be closed after it has run.

    A failure means that `close` raises, so the subject's hooks and memory cannot be released.
    """
    case.subject.require_forward()
    subject = case.subject.wrap(case.reference.build_for_adapter())
    compute_logits(case, subject)
    subject.close()
    return Finding()


@check("build.parameters", needs=["components"])
def parameters(case: Case) -> Finding:
    """Every parameter of HF's model is in the canonical component that it belongs to, with equal values.

    A failure means that users cannot read or edit a part of the model by its name, or find another part under it.
    """
    modules = component_modules(case)
    modules = {name: module for name, module in modules.items() if template_of(name) in COMPONENTS}
    if not any(True for module in modules.values() for _ in module.parameters()):
        return failure("components", "no canonical component has a parameter")
    theirs = case.family.components(case.reference.model())
    for name in sorted(theirs.keys() & modules.keys(), key=len, reverse=True):  # what is inside first
        lost = _find_lost_parameter(theirs[name], [modules[name]])
        if lost is not None:
            return failure(name, f"it lacks {lost[1]} of HF's {lost[0]}")
    lost = _find_lost_parameter(case.reference.model(), list(modules.values()))
    return Finding() if lost is None else failure(lost[0], f"{lost[1]} are in no component")


def _find_lost_parameter(original: nn.Module, modules: Sequence[nn.Module]) -> tuple[str, str] | None:
    """Find the first parameter of the original that is missing in the modules, and word how much of it is."""
    reachable = list({id(one): one for module in modules for one in module.parameters()}.values())
    scattered = None
    for name, parameter in original.named_parameters():
        # Most parameters are there unchanged; the values of the others are searched one by one.
        if any(torch.equal(parameter, one) for one in reachable if one.shape == parameter.shape):
            continue
        if not reachable:
            return name, f"all of the {parameter.numel()} values"
        if scattered is None:
            scattered = torch.cat([one.detach().flatten().double() for one in reachable]).sort().values
        wanted = parameter.detach().flatten().double()
        found = scattered[torch.searchsorted(scattered, wanted).clamp(max=scattered.numel() - 1)] == wanted
        if not bool(found.all()):
            return name, f"{int((~found).sum())} of the {wanted.numel()} values"
    return None


@check("build.tied", needs=["components"])
def tied(case: Case) -> Finding:
    """Embedding and unembedding share one weight in the subject exactly if they do in HF's model.

    A failure means that an edit or a gradient of one of them wrongly reaches the other, or wrongly does not.
    """
    modules = component_modules(case)
    if not {"embed", "unembed"} <= modules.keys():
        raise NotApplicable("the adapter has no component `embed` or no `unembed`")
    memories = [
        {one.untyped_storage().data_ptr() for one in modules[name].parameters() if one.ndim > 1}
        for name in ("embed", "unembed")
    ]
    shared = bool(memories[0] & memories[1])
    if shared == case.subject.wrapping.tied:
        return Finding()
    words = ("HF ties them, the subject does not", "HF does not tie them, the subject does")[shared]
    return failure("unembed", words)
