"""Scripts that need Hugging Face and the adapter's library alone: of its wrapping, its logits, and its hooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verifier.adapter import Scripted, ScriptedHooks, Usage
from verifier.canonical import axes_of
from verifier.cases.spec import SEMANTIC_DTYPE, SINGLE, CaseSpec
from verifier.family import Family, PointSource, ShowsPoints
from verifier.judging.outcome import Outcome
from verifier.scripts.inputs import INPUTS, of_activations, plain
from verifier.scripts.literals import INDENT, WIDTH, fitting, indented, laid_out, literal

MARGIN = 16  # `numerics.SEMANTICS_MARGIN`, which cannot be read without importing torch
WRAPPING, ACTIVATIONS = "build.adapter", "hooks.values"


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """What a file does, as lines."""

    imports: Sequence[str]
    body: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How an activation is read on both sides.

    Attributes:
        point: its canonical name.
        source: where Hugging Face's model shows it.
        statements: after which the variable `found` is what the adapter shows.
        given: the inputs of the forward in which it is read.
        inputs: the statements that make them.
    """

    point: str
    source: PointSource
    statements: Sequence[str]
    given: Sequence[str]
    inputs: Sequence[str]


def reading(spec: CaseSpec, of: Family, library: object, outcome: Outcome) -> Reading | None:
    """How to read the activation that an outcome names; None where the family or the adapter does not say.

    Where it names nothing that the family knows it does not get into code.
    """
    if not isinstance(of, ShowsPoints) or not isinstance(library, ScriptedHooks):
        return None
    if of.refusal(spec.config) is not None:
        return None
    point = next((point.name for point in of.points(spec.config) if point.name == outcome.where), None)
    source = None if point is None else of.point_source(spec.config, point)
    if point is None or source is None:
        return None
    given, lines = of_activations(spec, outcome)
    statements = library.reading(given, point)
    if statements is None:
        return None
    return Reading(point=point, source=source, statements=statements, given=given, inputs=lines)


def code(spec: CaseSpec, of: Family, library: Scripted, outcome: Outcome, function: str) -> Code:
    """What shows the outcome again.

    Args:
        spec: the case.
        of: its family.
        library: the adapter, which says how its library is used.
        outcome: of the wrapping, of logits, or of an activation of which there is a `reading`.
        function: its name.
    """
    given, inputs = INPUTS.get(outcome.check, plain)(spec, outcome)
    before: list[str] = []
    if outcome.check == WRAPPING:
        usage = library.usage(given)
        shown = _wrapped(inputs, usage)
    elif outcome.check == ACTIVATIONS:
        read = reading(spec, of, library, outcome)
        assert read is not None
        usage = library.usage(read.given)
        before, shown = [*_shown(read), "", ""], _activations(read, usage)
    else:
        usage = library.usage(given)
        shown = _logits(given, inputs, usage)
    if spec.attention is not None:
        # Not every model's can be set once it is built.
        shown[0] = shown[0].replace("build(),", f"build(attention={literal(spec.attention)}),", 1)
    imports = ["import torch", *usage.imports, f"from transformers import {of.architecture}"]
    if spec.device != "cpu":
        imports += ["", f"torch.set_default_device({literal(spec.device)})"]
    body = [*_build(spec, of), "", "", *before, f"def {function}():", *indented(shown)]
    return Code(imports=imports, body=body)


def _build(spec: CaseSpec, of: Family) -> list[str]:
    """A function that makes Hugging Face's model, with weights as `random_weights` draws them."""
    scale = "" if spec.scale == 1.0 else f" * {literal(spec.scale)}"
    attention = literal(of.reference_attention)
    return [
        f"def build(dtype=torch.{SEMANTIC_DTYPE}, attention={attention}):",
        *laid_out("config = ", dict(spec.config), INDENT),
        f"    model = {of.architecture}._from_config(",
        f"        {of.architecture}.config_class(**config),",
        "        dtype=dtype,",
        "        attn_implementation=attention,",
        "    )",
        f"    torch.manual_seed({literal(spec.seed)})",
        "    for name, parameter in model.named_parameters():",
        f"        noise = torch.randn(parameter.shape, dtype=torch.{SEMANTIC_DTYPE})",
        f"        matrix = noise * noise.shape[-1:].numel() ** -0.5{scale}",
        '        vector = noise / 4 + name.endswith("weight")  # near 1 in norms, 0 in biases',
        "        parameter.data.copy_(matrix if parameter.ndim > 1 else vector)",
        "    return model.eval()",
    ]


def _wrapped(inputs: Sequence[str], usage: Usage) -> list[str]:
    """Statements that raise where the library cannot wrap the model."""
    return [
        "model, reference = build(), build()",
        *inputs,
        "with torch.no_grad():",
        "    right = reference(input_ids=input_ids).logits",
        "size = right.square().mean().sqrt()",
        'print(f"Hugging Face runs it: logits {list(right.shape)}, rms {size:.6g}")',
        *usage.wrap,
        'print(f"the adapter wraps it: {type(subject).__name__}")',
    ]


def _inputs_line(given: Sequence[str]) -> list[str]:
    items = [f'"{name}": {name}' for name in given]
    line = f"inputs = {{{', '.join(items)}}}"
    return [line] if len(INDENT + line) <= WIDTH else ["inputs = {", *(f"{INDENT}{item}," for item in items), "}"]


_MODELS = "model, reference = build(), build()  # alike: the adapter may take its own apart"


def _logits(given: Sequence[str], inputs: Sequence[str], usage: Usage) -> list[str]:
    """Statements that fail where the logits differ by more than what float32 makes of Hugging Face's own."""
    embeds = "inputs_embeds" in given
    single = ['single = inputs | {"inputs_embeds": inputs_embeds.float()}'] if embeds else []
    return [
        _MODELS,
        *inputs,
        *_inputs_line(given),
        *usage.wrap,
        "with torch.no_grad():",
        "    right = reference(**inputs, use_cache=False).logits",
        *indented(single),
        f"    rough = build(torch.{SINGLE})(**{'single' if embeds else 'inputs'}, use_cache=False).logits",
        *indented(fitting(f"found = {usage.logits}", WIDTH - 2 * len(INDENT))),
        *_judged(given, ("batch", "pos", "vocab"), "the adapter's logits are not Hugging Face's"),
    ]


def _shown(read: Reading) -> list[str]:
    """A function that reads the activation in Hugging Face's model."""
    return [
        "def shown(model, inputs):",
        f'    """{read.point}, as Hugging Face\'s model has it."""',
        "    seen = []",
        "",
        "    def hook(module, args, output):",
        *indented(indented(fitting(f"seen.append({read.source.value})", WIDTH - 2 * len(INDENT)))),
        "",
        f"    where = model.get_submodule({literal(read.source.module)})",
        "    where.register_forward_hook(hook)",
        "    model(**inputs, use_cache=False)",
        "    return seen[0]",
    ]


def _activations(read: Reading, usage: Usage) -> list[str]:
    """Statements that fail where an activation differs by more than what float32 makes of Hugging Face's own."""
    axes = axes_of(read.point)
    assert axes is not None  # a family's points are canonical ones
    return [
        _MODELS,
        *read.inputs,
        *_inputs_line(read.given),
        *usage.wrap,
        "with torch.no_grad():",
        "    right = shown(reference, inputs)",
        f"    rough = shown(build(torch.{SINGLE}), inputs)",
        *indented([line for one in read.statements for line in fitting(one, WIDTH - 2 * len(INDENT))]),
        'assert found.shape == right.shape, f"{[*found.shape]}, not {[*right.shape]}"',
        *_judged(read.given, axes, "the adapter's activation is not Hugging Face's"),
    ]


def _judged(given: Sequence[str], axes: Sequence[str], wrong: str) -> list[str]:
    undefined = [
        "padding = attention_mask == 0  # what it gives is undefined",
        "wrong[padding] = rounding[padding] = 0",
    ]
    return [
        "wrong, rounding = found - right, rough - right",
        *(undefined if "attention_mask" in given else []),
        "at = torch.unravel_index(wrong.abs().argmax(), wrong.shape)",
        f'print(f"farthest off at [{", ".join(axes)}] = {{[*map(int, at)]}}:")',
        'print(f"Hugging Face {right[at]:.12g}, adapter {found[at]:.12g}")',
        "wrong, rounding = (error.square().mean().sqrt() for error in (wrong, rounding))",
        'print(f"rms difference {wrong:.3g}; float32 alone would make it {rounding:.3g}")',
        f'assert wrong <= {MARGIN} * rounding, "{wrong}"',
    ]
