"""Wrapping a model: that it works, that it is refused where it must be, and what it leaves as it was."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from verifier.adapter import CHANGES, AdapterRefusal, Change, subject_fault
from verifier.canonical import COMPONENTS, template_of
from verifier.checks import check
from verifier.checks.blame import through_hugging_face
from verifier.checks.configs import written_into
from verifier.errors import one_line
from verifier.judging.outcome import Finding, NotApplicable, Verdict
from verifier.observing.capabilities import require
from verifier.observing.case import Case
from verifier.reference.snapshots import ModelState

AFTER_ONE_FORWARD = "what one forward changed around the model"  # as a case remembers it


@check("build.adapter", subject=False)
def adapter(case: Case) -> Finding:
    """The adapter wraps a model of every config that HF accepts, and what it gives back is a subject.

    A failure means that models of this config cannot be looked into at all. What rests on it is blocked: one
    failure, not sixty.
    """
    error = case.subject.wrapping.error
    if isinstance(error, AdapterRefusal):
        return Finding(
            verdict=Verdict.FAIL, where="refused", message=f"it refuses a config that HF accepts: {one_line(error)}"
        )
    if error is not None:
        raise error
    if case.subject.wrapping.fault is not None:
        return Finding(verdict=Verdict.FAIL, where="subject", message=case.subject.wrapping.fault)
    return Finding()


@check("build.forward")
def forward(case: Case) -> Finding:
    """The wrapped model runs on plain tokens and gives logits.

    A failure means that it is built and cannot be used; what rests on it is blocked.
    """
    logits = case.subject.first_output().logits
    if not isinstance(logits, Tensor):
        return Finding(
            verdict=Verdict.FAIL, where="logits", message=f"they are a {type(logits).__name__}, not a tensor"
        )
    return Finding()


@check("build.refusal", applies="invalid", subject=False)
def refusal(case: Case) -> Finding:
    """A model that HF can build but not run is refused when it is wrapped, with a clear error (`AdapterRefusal`).

    A failure means that a broken config is found out late, in another module's words, or, worst, never: then the
    adapter shows the activations of a model that does not exist.
    """
    try:
        model = case.reference.build()
    except Exception as error:
        if not through_hugging_face(error):
            raise
        raise NotApplicable("HF does not even build it") from error
    try:
        subject = case.subject.wrap(model)
    except AdapterRefusal as error:
        if str(error).strip():
            return Finding()
        return Finding(verdict=Verdict.FAIL, where="wrap", message="it refuses without a word of why")
    except Exception as error:
        return Finding(verdict=Verdict.FAIL, where="wrap", message=f"no clear refusal, but {one_line(error)}")
    if subject_fault(subject) is not None:
        return Finding(verdict=Verdict.FAIL, where="wrap", message=f"no refusal, but a {type(subject).__name__}")
    try:
        with torch.no_grad():
            subject.forward(case.reference.any_tokens())
    except Exception as error:
        return Finding(
            verdict=Verdict.FAIL,
            where="forward",
            message=f"it wraps what HF refuses, and then raises {one_line(error)}",
        )
    return Finding(
        verdict=Verdict.FAIL, where="runs", message=f"it wraps and runs a model that HF refuses: {case.spec.reason}"
    )


@check("build.surroundings", applies="pairwise")
def surroundings(case: Case) -> Finding:
    """Wrapping a model and running it leave HF's classes, their modules and torch's global settings as they were.

    A failure means that an adapter patches what every other model in the process is made of.
    """
    changed = case.subject.contamination
    if not changed:
        case.subject.require_forward()
        changed = case.memo.memoize(AFTER_ONE_FORWARD, case.subject.wrapping.surroundings.differences)
    if not changed:
        return Finding()
    return Finding(verdict=Verdict.FAIL, where=changed[0], message=f"changed: {', '.join(changed[:5])}")


@check("build.changes")
def changes(case: Case) -> Finding:
    """Of the model that it is given, wrapping and running change only what the adapter declares.

    A failure means that something is changed in silence: a forward patched, a parameter replaced, a config edited.
    """
    case.subject.require_forward()
    found = {**_changes_in_training(case), **case.subject.wrapping.state.changes()}
    undeclared = sorted(found.keys() - case.subject.wrapped().declared_mutations)
    if not undeclared:
        return Finding()
    words = "; ".join(f"{CHANGES[kind]} ({found[kind]})" for kind in undeclared)
    return Finding(verdict=Verdict.FAIL, where=undeclared[0], message=f"not declared: {words}")


def _changes_in_training(case: Case) -> dict[Change, str]:
    """What wrapping changes of a model that is being trained, half of it frozen: where a model is in evaluation mode
    and all of it trainable, making it so changes nothing."""
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
    """The config object from which the caller built the model is not written into, unless the adapter declares it.

    A failure means that the next model that the caller builds from it is another one.
    """
    given = copy.deepcopy(case.reference.model().config)
    model = type(case.reference.model())(given)  # keeps `given` itself, as a caller's model does
    before = {**given.to_dict(), "attn_implementation": given._attn_implementation}
    subject = case.subject.wrap(model.to(torch.float64).eval())
    after = {**given.to_dict(), "attn_implementation": given._attn_implementation}
    if "config" in subject.declared_mutations:
        return Finding()
    declared = {"attn_implementation"} if "attention" in subject.declared_mutations else set()
    return written_into(before, after, verdict=Verdict.FAIL, declared=declared) or Finding()


@check("build.close", applies="pairwise")
def close(case: Case) -> Finding:
    """A subject can be closed after it has run.

    A failure means that what it holds on to cannot be let go of.
    """
    case.subject.require_forward()
    subject = case.subject.wrap(case.reference.build_for_adapter())
    with torch.no_grad():
        subject.forward(case.reference.inputs())
    subject.close()
    return Finding()


@check("build.parameters", needs=["components"])
def parameters(case: Case) -> Finding:
    """Every parameter of HF's model is reachable, value for value, from the canonical component that it belongs to.

    A failure means that there is a part of the model that the adapter's users cannot see or edit by its name, or that
    they find another part's there.
    """
    modules = require(case.subject.wrapped().components).modules()
    modules = {name: module for name, module in modules.items() if template_of(name) in COMPONENTS}
    if not any(True for module in modules.values() for _ in module.parameters()):
        return Finding(verdict=Verdict.FAIL, where="components", message="no canonical component has a parameter")
    theirs = case.family.components(case.reference.model())
    for name in sorted(theirs.keys() & modules.keys(), key=len, reverse=True):  # what is inside first
        lost = _lost(theirs[name], [modules[name]])
        if lost is not None:
            return Finding(verdict=Verdict.FAIL, where=name, message=f"it lacks {lost[1]} of HF's {lost[0]}")
    lost = _lost(case.reference.model(), list(modules.values()))
    if lost is None:
        return Finding()
    return Finding(verdict=Verdict.FAIL, where=lost[0], message=f"{lost[1]} are in no component")


def _lost(original: nn.Module, modules: Sequence[nn.Module]) -> tuple[str, str] | None:
    """The first of the original's parameters that is not in the modules, and how much of it."""
    reachable = list({id(one): one for module in modules for one in module.parameters()}.values())
    scattered = None
    for name, parameter in original.named_parameters():
        # A parameter is most often there as it is; only one that is not is looked for value by value.
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
    """Embedding and unembedding share their weight in the subject exactly if they do in HF's model.

    A failure means that an edit or a gradient of one of them reaches the other where it must not, or does not where
    it must.
    """
    modules = require(case.subject.wrapped().components).modules()
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
    return Finding(verdict=Verdict.FAIL, where="unembed", message=words)
