"""The observables that are compared in every circumstance of a case, each a check of its own."""

from __future__ import annotations

from collections.abc import Iterator

from verifier.adapter import RunsWithCache
from verifier.checks import check
from verifier.judging.outcome import Finding, NotApplicable
from verifier.observing.case import Case
from verifier.observing.circumstances import covering


@check("forward.outputs")
def forward_outputs(case: Case) -> Iterator[Finding]:
    """In each of its circumstances a case's logits are HF's, in their dtype and graph.

    A failure means that the model is another one when it is called in that way.
    """
    return covering.judge(case, "forward.outputs")


@check("forward.losses")
def forward_losses(case: Case) -> Iterator[Finding]:
    """In each circumstance with labels the loss is HF's.

    A failure means that what is trained or evaluated is not what is read.
    """
    return covering.judge(case, "forward.losses")


@check("forward.repeated")
def forward_repeated(case: Case) -> Iterator[Finding]:
    """After every kind of hook and backward a plain call gives what HF gives.

    A failure means that looking at a model leaves something behind.
    """
    return covering.judge(case, "forward.repeated")


@check("hooks.shown", needs=["hooks"])
def hooks_shown(case: Case) -> Iterator[Finding]:
    """In each circumstance hooks at all points run once and are shown HF's activations.

    A failure means that what is read there is of another model.
    """
    return covering.judge(case, "hooks.shown")


@check("hooks.graph", needs=["hooks"])
def hooks_graph(case: Case) -> Iterator[Finding]:
    """What hooks are shown has the model's dtype and is in the graph of the logits, with HF's gradients.

    A failure means that losses on activations train nothing, or something else.
    """
    return covering.judge(case, "hooks.graph")


@check("hooks.kept_values", needs=["hooks"])
def hooks_kept_values(case: Case) -> Iterator[Finding]:
    """What a hook keeps is later what it was.

    A failure means that a cache of activations shows later ones.
    """
    return covering.judge(case, "hooks.kept_values")


@check("hooks.collected", needs=["hooks"])
def hooks_collected(case: Case) -> Iterator[Finding]:
    """What the library's own `run_with_cache` collects beside an edit are HF's activations, and the edit stays.

    A failure means that a cache of activations is of another forward, or that collecting them removes hooks.
    """
    if not isinstance(case.subject.wrapped().hooks, RunsWithCache):
        raise NotApplicable("the hooks have no run_with_cache")
    return covering.judge(case, "hooks.collected")


@check("hooks.left", needs=["hooks"])
def hooks_left(case: Case) -> Iterator[Finding]:
    """When an inner context of hooks is left, its hooks are gone and the outer one's stay.

    A failure means that hooks outlive, or end before, their context.
    """
    return covering.judge(case, "hooks.left")


@check("hooks.gone", needs=["hooks"])
def hooks_gone(case: Case) -> Iterator[Finding]:
    """A point that needs a switch shows nothing while it is off.

    A failure means that a switch was left on.
    """
    return covering.judge(case, "hooks.gone")


@check("hooks.misspelt", needs=["hooks"])
def hooks_misspelt(case: Case) -> Iterator[Finding]:
    """A hook at a point that there is not is refused.

    A failure means that a misspelt edit edits nothing, and nobody is told.
    """
    return covering.judge(case, "hooks.misspelt")


@check("intervene.effects", needs=["hooks"])
def intervene_effects(case: Case) -> Iterator[Finding]:
    """With every point edited at once, in each circumstance, what each is shown, the logits and the loss are
    HF's with the same edits.

    A failure means that an intervention does something else there, or nothing.
    """
    return covering.judge(case, "intervene.effects")


@check("intervene.one_point", needs=["hooks"])
def intervene_one_point(case: Case) -> Iterator[Finding]:
    """One point alone replaced, ablated, mixed between rows or scaled has HF's effect.

    A failure means that an edit acts only beside others.
    """
    return covering.judge(case, "intervene.one_point")


@check("intervene.each_point", needs=["hooks"])
def intervene_each_point(case: Case) -> Iterator[Finding]:
    """Each of many points, edited alone in a row of its own, has HF's effect there and in no other row.

    A failure means that an edit of one prompt is lost, or is seen by another one.
    """
    return covering.judge(case, "intervene.each_point")


@check("intervene.layouts", needs=["hooks"])
def intervene_layouts(case: Case) -> Iterator[Finding]:
    """An edit that is an expanded view, not contiguous, in float32 or written in place has HF's effect.

    A failure means that a steering vector is dropped or raises because of how it is stored.
    """
    return covering.judge(case, "intervene.layouts")


@check("intervene.nested", needs=["hooks"])
def intervene_nested(case: Case) -> Iterator[Finding]:
    """Two edits of one point in contexts one inside the other act in turn, the outer one first, and a reader
    sees the result.

    A failure means that one of two interventions is lost.
    """
    return covering.judge(case, "intervene.nested")


@check("backward.weights", needs=["weights"])
def backward_weights(case: Case) -> Iterator[Finding]:
    """In each circumstance with gradients those of weights and embeddings are HF's.

    A failure means that training and attribution are of another model.
    """
    return covering.judge(case, "backward.weights")


@check("backward.shown", needs=["hooks"])
def backward_shown(case: Case) -> Iterator[Finding]:
    """Hooks of gradients at all points run once and are shown HF's gradients.

    A failure means that attribution patching is of another model.
    """
    return covering.judge(case, "backward.shown")


@check("backward.behind_edits", needs=["hooks", "weights"])
def backward_behind_edits(case: Case) -> Iterator[Finding]:
    """With activations edited, the gradients of weights are HF's with the same edits.

    A failure means that what is differentiated is not what was computed.
    """
    return covering.judge(case, "backward.behind_edits")


@check("backward.effects", needs=["hooks"])
def backward_effects(case: Case) -> Iterator[Finding]:
    """With the gradient at every point edited, what each is shown and the gradients of weights are HF's with the
    same edits.

    A failure means that an edited gradient does not flow on.
    """
    return covering.judge(case, "backward.effects")


@check("backward.nested", needs=["hooks"])
def backward_nested(case: Case) -> Iterator[Finding]:
    """Two edits of the gradient at one point act in turn, and a reader sees the result.

    A failure means that of two of them one is lost.
    """
    return covering.judge(case, "backward.nested")


@check("backward.repeated", needs=["hooks"])
def backward_repeated(case: Case) -> Iterator[Finding]:
    """In two backwards through one forward hooks of gradients run twice and gradients add up.

    A failure means that the second backward is of something else.
    """
    return covering.judge(case, "backward.repeated")


@check("backward.double", needs=["weights"])
def backward_double(case: Case) -> Iterator[Finding]:
    """The gradient of a gradient is HF's.

    A failure means that Hessians and gradient penalties are of another model.
    """
    return covering.judge(case, "backward.double")


@check("cache.repeated", needs=["cache"])
def cache_repeated(case: Case) -> Iterator[Finding]:
    """One cache can be gone on from twice.

    A failure means that the first continuation changed it.
    """
    return covering.judge(case, "cache.repeated")


@check("cache.generated", needs=["cache"])
def cache_generated(case: Case) -> Iterator[Finding]:
    """Generated tokens are HF's, and a call afterwards is as before.

    A failure means that what is generated is not what the model says.
    """
    return covering.judge(case, "cache.generated")


@check("cache.generated_hooks", needs=["cache", "hooks"])
def cache_generated_hooks(case: Case) -> Iterator[Finding]:
    """During generation hooks are shown what HF's model computes.

    A failure means that they do not run there, or are shown something else.
    """
    return covering.judge(case, "cache.generated_hooks")


@check("cache.generated_edits", needs=["cache", "hooks"])
def cache_generated_edits(case: Case) -> Iterator[Finding]:
    """Edits act in every step of a generation.

    A failure means that generated text is that of the unedited model.
    """
    return covering.judge(case, "cache.generated_edits")


@check("weights.current", needs=["weights"])
def weights_current(case: Case) -> Iterator[Finding]:
    """The canonical weights are those of the model as it is now.

    A failure means that they are of the model as it was when it was wrapped.
    """
    return covering.judge(case, "weights.current")


@check("component.current", needs=["components"])
def component_current(case: Case) -> Iterator[Finding]:
    """A component alone gives what HF's module gives, with its graph.

    A failure means that a part is of another model, or outside the graph.
    """
    return covering.judge(case, "component.current")


@check("state.caller")
def state_caller(case: Case) -> Iterator[Finding]:
    """The caller's tensors are as they were after every call.

    A failure means that inputs are written into.
    """
    return covering.judge(case, "state.caller")


@check("state.random")
def state_random(case: Case) -> Iterator[Finding]:
    """A call draws no random number where HF draws none.

    A failure means that using a subject changes what is sampled elsewhere.
    """
    return covering.judge(case, "state.random")


@check("state.settings")
def state_settings(case: Case) -> Iterator[Finding]:
    """Torch's global settings and the filters of warnings are as before.

    A failure means that wrapping a model changes other code in the process.
    """
    return covering.judge(case, "state.settings")


@check("state.modes")
def state_modes(case: Case) -> Iterator[Finding]:
    """`requires_grad` of every parameter is as the model's was.

    A failure means that a model is frozen or thawed.
    """
    return covering.judge(case, "state.modes")


@check("state.released")
def state_released(case: Case) -> Iterator[Finding]:
    """When a call's results are dropped, its hooks and logits are gone.

    A failure means that a loop over prompts runs out of memory.
    """
    return covering.judge(case, "state.released")


@check("state.misuse")
def state_misuse(case: Case) -> Iterator[Finding]:
    """A hook's exception reaches the caller, and a misnamed state dict is refused.

    A failure means that mistakes pass unseen.
    """
    return covering.judge(case, "state.misuse")
