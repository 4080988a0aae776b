"""What the wrapped model computes, called in every way in which Hugging Face's can be called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from verifier.adapter import Inputs, Output
from verifier.canonical import LOGIT_AXES
from verifier.cases.inputs import NO_LABEL, select_row
from verifier.cases.spec import SINGLE, Scenario
from verifier.checks import check
from verifier.checks.subjects import compute_logits, real_logits, require_dtype
from verifier.judging.comparison import from_condition, summarize
from verifier.judging.numerics import compare_bitwise, compare_positions, float64_judge, precision_judge
from verifier.judging.outcome import Finding, NotApplicable, Verdict
from verifier.observing import activations, localization
from verifier.observing.capabilities import require
from verifier.observing.case import Case
from verifier.reference import models
from verifier.reference.random_weights import generator

Compare = Callable[[object, Tensor], Finding]
"""Judges logits against true ones on a scenario, or on a row of it."""


def _judge_and_locate(case: Case, scenario: Scenario, compare: Compare, rows: Tensor | None = None) -> Finding:
    """Judge the subject's logits on a scenario, or on some rows of it.

    A failure says at which hook point it starts, and whether it follows one of HF's other paths.
    """
    truth, actual = case.reference.output(scenario).logits, case.subject.output(scenario).logits
    finding = summarize([compare(actual, truth)])
    if finding.verdict is not Verdict.FAIL:
        return finding
    start = localization.first_divergence(case, scenario, rows)
    if start is not None:
        words = f"{finding.where}: {finding.message}; it starts at {start.where}: {start.message}"
        finding = replace(finding, where=start.where, message=words)
    for name in case.family.attentions:
        if name == case.family.reference_attention:
            continue
        try:
            theirs = case.reference.output(scenario, attention=name).logits
        except Exception:  # a path that raises explains nothing; `reference.attention` reports it
            continue
        if compare(theirs, truth).verdict is not Verdict.FAIL:
            continue  # that path agrees with the right one, so it explains nothing
        if compare(*_without_shared_nans(actual, theirs)).verdict is not Verdict.FAIL:
            words = f"it agrees with HF's {name} attention, which disagrees with {case.family.reference_attention}"
            if name == case.spec.attention:
                # That is the model that it was given: HF computes what it shows.
                finding = replace(finding, verdict=Verdict.UPSTREAM)
            return replace(finding, message=f"{finding.message}; {words}")
    return finding


def _without_shared_nans(actual: object, other: Tensor) -> tuple[object, Tensor]:
    """Replace elements at which neither of two tensors is a number by 0 in both: they do not differ there."""
    if not isinstance(actual, Tensor) or actual.shape != other.shape:
        return actual, other
    shared = actual.isnan() & other.isnan()
    return actual.masked_fill(shared, 0.0), other.masked_fill(shared, 0.0)


def _judge_logits(case: Case, scenario: Scenario, where: str) -> Finding:
    """Judge the subject's logits on one scenario."""

    def compare(actual: object, truth: Tensor) -> Finding:
        return case.compare_logits(where, actual, scenario, truth=truth)

    return _judge_and_locate(case, scenario, compare)


@check("forward.logits")
def logits(case: Case) -> Finding:
    """The wrapped model's logits on plain tokens are HF's.

    A failure means that the wrapped model is another model; whatever is read off it is of that one.
    """
    return _judge_logits(case, Scenario.PLAIN, "logits")


@check("forward.lengths", applies="pairwise")
def lengths(case: Case) -> Finding:
    """The logits of a single token, and of a sequence longer than any dimension of the model, are HF's.

    A failure means that the adapter is right only for some lengths: a position bias, a mask or a table ends early.
    """
    findings = [_judge_logits(case, scenario, str(scenario)) for scenario in (Scenario.ONE_TOKEN, Scenario.LONG)]
    worst = (one for verdict in (Verdict.FAIL, Verdict.REDUCED) for one in findings if one.verdict is verdict)
    return next(worst, findings[-1])


def _judge_padding(case: Case, row: str) -> Finding:
    """Judge the logits of the real tokens of one row of the padded inputs."""
    chosen = case.reference.scenario(Scenario.PADDED)
    here = torch.tensor([name == row for name in chosen.rows], device=chosen.real.device)
    defined = (chosen.real & here[:, None])[..., None]

    def compare(actual: object, truth: Tensor) -> Finding:
        return case.noise.judge(Scenario.PADDED).compare(row, actual, truth, defined=defined, axes=LOGIT_AXES)

    finding = _judge_and_locate(case, Scenario.PADDED, compare, here)
    if finding.verdict is Verdict.FAIL and _is_right_given_positions(case, compare):
        words = "given HF's position ids (0, 1, 2, … whatever the mask) it agrees: it counts positions of its own"
        return replace(finding, message=f"{finding.message}; {words}")
    return finding


def _is_right_given_positions(case: Case, compare: Compare) -> bool:
    """Whether the subject is right once it is told the positions that HF's forward counts by itself."""
    inputs = case.reference.inputs(Scenario.PADDED)
    assert inputs.input_ids is not None
    counted = torch.arange(inputs.input_ids.shape[1], device=inputs.input_ids.device).expand_as(inputs.input_ids)
    try:
        logits = compute_logits(case, case.subject.wrapped(), replace(inputs, position_ids=counted))
    except Exception:  # what cannot be tried explains nothing; `forward.position_ids` reports it
        return False
    return compare(logits, case.reference.output(Scenario.PADDED).logits).verdict is not Verdict.FAIL


@check("forward.left_padding")
def left_padding(case: Case) -> Finding:
    """The logits of the real tokens of a row with padding on the left are HF's.

    A failure means that padding leaks into what is read of real tokens, or shifts their positions.
    """
    return _judge_padding(case, "left padding")


@check("forward.right_padding")
def right_padding(case: Case) -> Finding:
    """The logits of the real tokens of a row with padding on the right are HF's.

    A failure means that padding leaks into what is read of real tokens, or shifts their positions.
    """
    return _judge_padding(case, "right padding")


@check("forward.gaps")
def gaps(case: Case) -> Finding:
    """The logits of the real tokens of a row with masked tokens in the middle are HF's.

    A failure means that padding leaks into what is read of real tokens, or shifts their positions.
    """
    return _judge_padding(case, "gaps")


@check("forward.mixed_padding")
def mixed_padding(case: Case) -> Finding:
    """The logits of the real tokens of a row with padding on both sides and in the middle are HF's.

    A failure means that padding leaks into what is read of real tokens, or shifts their positions.
    """
    return _judge_padding(case, "left, right and gaps")


@check("forward.position_ids", applies="pairwise")
def position_ids(case: Case) -> Finding:
    """With position ids of the caller's, other ones in each row, the logits are HF's.

    A failure means that the adapter makes up positions of its own.
    """
    return _judge_logits(case, Scenario.POSITION_IDS, "position ids")


@check("forward.padded_position_ids", applies="pairwise")
def padded_position_ids(case: Case) -> Finding:
    """With padding, and positions that count the real tokens as generation passes them, the logits are HF's.

    A failure means that one of the two is forgotten when the other is given.
    """
    return _judge_logits(case, Scenario.PADDED_POSITION_IDS, "position ids beside padding")


@check("forward.inputs_embeds", applies="pairwise")
def inputs_embeds(case: Case) -> Finding:
    """With embeddings in the place of tokens, padded on the left, the logits are HF's.

    A failure means that soft prompts and edited embeddings are not run through the same model.
    """
    return _judge_logits(case, Scenario.INPUTS_EMBEDS, "inputs_embeds")


@check("forward.loss", applies="pairwise")
def loss(case: Case) -> list[Finding]:
    """The loss for labels, some of them ignored, and the logits beside it are HF's and can be differentiated.

    Beside padding, where labels stand on real tokens, it is HF's too. A failure means that attributions and gradients
    are taken of another loss, or of none.
    """
    case.subject.agreeing_rows()
    with torch.enable_grad():
        graph = case.subject.wrapped().forward(case.reference.inputs(Scenario.LABELS)).loss
    cut_off = isinstance(graph, Tensor) and not graph.requires_grad
    made = [
        case.compare_logits("logits beside labels", case.subject.output(Scenario.LABELS).logits),
        _judge_loss(case, Scenario.LABELS, "loss"),
        from_condition("loss", "it is in no graph: nothing can be differentiated of it" if cut_off else None),
    ]
    wanted = case.reference.scenario(Scenario.PADDED_LABELS).inputs.labels
    assert wanted is not None
    if bool((wanted != NO_LABEL).any()) and case.subject.agrees(Scenario.PADDED):
        made.append(_judge_loss(case, Scenario.PADDED_LABELS, "loss beside padding"))
    return made


def _loss_agrees(case: Case) -> bool:
    """Whether the float64 loss is HF's; where it is not, `forward.loss` reports it."""
    try:
        return _judge_loss(case, Scenario.LABELS, "loss").verdict is not Verdict.FAIL
    except Exception:  # no labels can be given
        return False


def _judge_loss(case: Case, scenario: Scenario, where: str) -> Finding:
    judge = float64_judge(case.noise.loss(scenario=scenario), lambda: case.noise.loss(SINGLE, scenario))
    truth = case.reference.output(scenario).loss
    assert truth is not None
    return judge.compare(where, case.subject.output(scenario).loss, truth)


@check("forward.patterns", needs=["hooks"], applies="pairwise")
def patterns(case: Case) -> Iterator[Finding]:
    """The attention patterns that the subject's hooks show are HF's, in every layer, in padded rows and not.

    A failure where the logits are right means that the shown pattern is not the one that was used.
    """
    names = [point.name for point in case.reference.points if point.kind.template.endswith(".hook_pattern")]
    offered = require(case.subject.wrapped().hooks).names()
    if not names or not set(names) <= offered.keys():
        raise NotApplicable("there is no attention pattern to read")
    rows, inputs = case.subject.agreeing_rows(Scenario.PADDED), case.reference.inputs(Scenario.PADDED)
    seen = activations.observe(case, case.subject.wrapped(), names, inputs).values
    truth, noise = activations.reference_trace(case, Scenario.PADDED), activations.noise(case, Scenario.PADDED)
    chosen = case.reference.scenario(Scenario.PADDED)
    # Rows of real queries over all keys: what may not be seen must have got nothing.
    real = (chosen.real & rows[:, None])[:, None, :, None]
    for name in names:
        judge = float64_judge(noise.values[name])
        yield judge.compare(name, seen.get(name), truth.values[name], defined=real, rows=chosen.rows)


@check("forward.batch", applies="pairwise")
def batch(case: Case) -> list[Finding]:
    """Each row of a batch, padded or not, gives the same logits alone as in the batch.

    A failure means that the rows of a batch see each other.
    """
    chosen = case.reference.scenario(Scenario.PADDED)
    case.subject.require_forward()
    subject = case.subject.wrapped()
    alone = [compute_logits(case, subject, select_row(chosen.inputs, row)) for row in range(len(chosen.rows))]
    # That a row is not finite at all is found by the checks of its padding.
    given, truth = _without_shared_nans(torch.cat(alone), case.subject.output(Scenario.PADDED).logits)
    return [case.compare_logits("rows alone", given, Scenario.PADDED, truth=truth)]


@check("forward.causality")
def causality(case: Case) -> list[Finding]:
    """Changing the last tokens of a text does not change the logits before them.

    A failure means that a position sees what comes after it.
    """
    inputs = case.reference.inputs()
    assert inputs.input_ids is not None
    vocab = case.reference.model().get_input_embeddings().weight.shape[0]
    start = case.spec.length // 2
    ids = inputs.input_ids.clone()
    ids[:, start:] = (ids[:, start:] + 1) % vocab
    before = case.subject.output().logits[:, :start]
    after = compute_logits(case, case.subject.wrapped(), Inputs(input_ids=ids))[:, :start]
    rows = case.reference.scenario().rows
    return [case.noise.judge().compare("logits before the change", after, before, rows=rows)]


@check("forward.gradients", applies="pairwise")
def gradients(case: Case) -> list[Finding]:
    """With gradients enabled, which is torch's default, the logits are the same.

    A failure means that the model that is differentiated is not the one that is read.
    """
    case.subject.agreeing_rows()
    with torch.enable_grad():
        logits = case.subject.wrapped().forward(case.reference.inputs()).logits
    return [case.compare_logits("logits with gradients enabled", logits)]


@check("forward.inference_mode", applies="pairwise")
def inference_mode(case: Case) -> list[Finding]:
    """Under `torch.inference_mode` the logits are the same, and afterwards gradients can be taken as ever.

    Of a subject whose first forward that is. A failure means that what is fast to read cannot be read, or that what a
    first forward leaves behind (a table, a mask) keeps a later one from being differentiated.
    """
    case.subject.agreeing_rows()
    subject = case.subject.wrap(case.reference.build_for_adapter())
    with torch.inference_mode():
        inside = subject.forward(case.reference.inputs()).logits
    with torch.enable_grad():
        after = subject.forward(case.reference.inputs()).logits
        after.backward(torch.ones_like(after))
    return [
        case.compare_logits("logits in inference mode", inside.clone()),
        case.compare_logits("logits after it", after.detach()),
    ]


@check("forward.inputs", applies="pairwise")
def inputs_kept(case: Case) -> Iterator[Finding]:
    """A forward writes into none of the tensors that it is given.

    A failure means that the caller's tokens, mask, positions or embeddings are others afterwards.
    """

    for scenario in (Scenario.PLAIN, Scenario.PADDED_POSITION_IDS, Scenario.INPUTS_EMBEDS, Scenario.LABELS):
        given, before = case.reference.inputs(scenario), case.reference.inputs(scenario)
        case.subject.require_forward()
        compute_logits(case, case.subject.wrapped(), given)
        for name in ("input_ids", "inputs_embeds", "attention_mask", "position_ids", "labels"):
            if getattr(before, name) is not None:
                yield compare_bitwise(f"{name}, {scenario}", getattr(given, name), getattr(before, name))


@check("forward.twice", applies="pairwise")
def twice(case: Case) -> list[Finding]:
    """A second forward on the same tokens, with others between, gives the same logits bit for bit.

    A failure means that a forward leaves something behind.
    """
    first = case.subject.output().logits
    case.subject.output(Scenario.ONE_TOKEN)
    return [compare_bitwise("logits", compute_logits(case, case.subject.wrapped()), first)]


def _in_training(case: Case, **dropouts: Any) -> list[Finding]:
    """Run both models in training mode, from one state of the random number generator."""
    case.subject.agreeing_rows()
    theirs, ours = case.reference.build(**dropouts), case.subject.wrap(case.reference.build_for_adapter(**dropouts))
    if ours.modes is None:
        raise NotApplicable("the adapter offers no modes")
    theirs.train()
    ours.modes.train(True)
    inputs = case.reference.inputs()

    def run(forward: Callable[[Inputs], Output]) -> Tensor:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(int(generator("dropout", case.spec.seed).initial_seed()) % 2**32)
            return forward(inputs).logits

    truth = run(lambda given: models.forward(theirs, given))
    return [case.compare_logits("training mode", run(ours.forward), truth=truth)]


@check("forward.training", needs=["modes"], applies="pairwise")
def training(case: Case) -> list[Finding]:
    """In training mode, with dropouts of zero, the logits are HF's in training mode.

    A failure means that fine-tuning through the adapter trains another model.
    """
    return _in_training(case, **dict.fromkeys(case.family.dropouts(), 0.0))


@check("forward.dropout", needs=["modes"], applies="pairwise")
def dropout(case: Case) -> list[Finding]:
    """In training mode, from one state of the random numbers, every dropout drops what HF's drops.

    A failure means that a dropout is missing, has another rate, or stands elsewhere.
    """
    if not case.family.dropouts():
        raise NotApplicable("the family has no dropouts")
    return _in_training(case, **case.family.dropouts())


def _judge_precision(case: Case, dtype: str) -> Iterator[Finding]:
    """Judge the logits in a working dtype against the float64 truth of the same weights."""
    require_dtype(case, dtype)
    width = case.reference.model().get_input_embeddings().weight.shape[1]
    # Without a mask, and with one, whose lowest number may overflow; and far from the first position, which is a
    # matter of positions and of no other flag, where the input is long on purpose or everything is asked.
    far = case.spec.is_sampled or case.spec.label is not None
    others = (Scenario.PADDED_POSITION_IDS, Scenario.INPUTS_EMBEDS) if case.spec.is_sampled else ()
    further = [scenario for scenario in others if case.subject.agrees(scenario)]
    for scenario in (Scenario.PLAIN, Scenario.PADDED, *([Scenario.LONG] if far else []), *further):
        defined, rows = real_logits(case, scenario), case.reference.scenario(scenario).rows
        given, truth = case.subject.output(scenario, dtype).logits, case.noise.truth(scenario, dtype).logits
        yield case.noise.precision_judge(scenario, dtype).compare(
            f"{dtype}, {scenario}", given, truth, defined=defined, rows=rows, axes=LOGIT_AXES
        )
        yield compare_positions(
            f"{dtype}, {scenario}, one position",
            given,
            truth,
            case.noise.by_position(scenario, dtype),
            defined=defined,
            width=width,
            resampled_noise=partial(case.noise.by_position, scenario, dtype, resampled=True),
        )
    if case.spec.is_sampled and _loss_agrees(case):
        of_labels = case.noise.truth(Scenario.LABELS, dtype).loss
        assert of_labels is not None
        judge = precision_judge(case.noise.loss(dtype))
        yield judge.compare(f"{dtype}, loss", case.subject.output(Scenario.LABELS, dtype).loss, of_labels)


@check("forward.float32", applies="pairwise")
def float32(case: Case) -> Iterator[Finding]:
    """In float32 the logits are as near to the float64 truth of the same weights as HF's own are.

    Over all positions and at each, with and without padding; of some cases far from the first position too, from
    embeddings and with positions of the caller's, and the loss. Judged where the float64 run agrees. A failure means
    that the adapter loses precision that HF keeps.
    """
    return _judge_precision(case, "float32")


@check("forward.bfloat16", applies="pairwise")
def bfloat16(case: Case) -> Iterator[Finding]:
    """In bfloat16 the logits are as near to the float64 truth of the same weights as HF's own are.

    Over all positions and at each, with and without padding; of some cases far from the first position too, from
    embeddings and with positions of the caller's, and the loss. Judged where the float64 run agrees. A failure means
    that the adapter loses precision that HF keeps.
    """
    return _judge_precision(case, "bfloat16")


@check("forward.float16", applies="pairwise")
def float16(case: Case) -> Iterator[Finding]:
    """In float16 the logits are as near to the float64 truth of the same weights as HF's own are.

    Over all positions and at each, with and without padding; of some cases far from the first position too, from
    embeddings and with positions of the caller's, and the loss. Judged where the float64 run agrees. A failure means
    that the adapter loses precision that HF keeps.
    """
    return _judge_precision(case, "float16")
