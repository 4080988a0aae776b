"""A failure as a Python file that stands alone: what `verifier repro --script` writes.

Where the adapter says how its library is used (`adapter.Scripted`) and what fails is the wrapping or the logits, the
file needs Hugging Face and that library alone, so that whoever mends the library can run it. Anything else becomes a
file that runs the failing check itself, and says that it needs the harness for that.

What comes from a record is text from outside: it gets into a file as a literal, or into a comment on one line.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verifier import adapter, family
from verifier.adapter import Adapter, Scripted, Usage
from verifier.errors import UsageError
from verifier.family import Family
from verifier.outcome import Outcome, Verdict
from verifier.record import RunLine
from verifier.report import text
from verifier.spec import SEMANTIC_DTYPE, SINGLE, CaseSpec

MARGIN = 16  # `numerics.SEMANTICS_MARGIN`, which cannot be read without importing torch
WIDTH = 88  # of a line: formatters leave it as it is
SAID = 240  # characters of what a check said
_INDENT = " " * 4
_WRAPPING = "build.adapter"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Code:
    """What a file does, as lines."""

    imports: Sequence[str]
    body: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A Python file.

    Attributes:
        source: what stands in it.
        why_harness: why it needs the harness; None where it does not.
    """

    source: str
    why_harness: str | None


def write(spec: CaseSpec, reference: str, outcomes: Sequence[Outcome], run: RunLine, *, pytest: bool) -> Script:
    """What shows again what failed on a case.

    Args:
        spec: the case.
        reference: of the adapter.
        outcomes: what checks said of it; of those that failed the first is shown that can stand alone.
        run: what the record says of its run.
        pytest: whether it is a test, or a file to be run.

    Raises:
        UsageError: the family or the adapter is not there, or the case holds what cannot be written as code.
        ImportFailed: one of them raised at import.
    """
    chosen = [outcome for outcome in outcomes if outcome.verdict.is_finding] or list(outcomes)
    library, of = adapter.load(reference), family.load(spec.family)
    alone = [outcome for outcome in chosen if _stands_alone(outcome)]
    why = _why_harness(spec, of, library)
    if why is None and not alone:
        why = _why_check(chosen)
    shown = chosen if why else alone[:1]
    name = re.sub(r"\W+", "_", shown[0].check if shown else "case", flags=re.ASCII)
    function = f"test_{name}" if pytest else "reproduce"
    if why is None and isinstance(library, Scripted):
        code = _alone(spec, of, library, shown[0], function)
        needs = "Needs torch, transformers and the adapter's library alone."
    else:
        code = _with_harness(spec, reference, shown, function)
        needs = f"Needs `verifier` (pip install adapter-verifier): {why}."
    version = f" {run.adapter_version}" if reference == run.adapter else ""
    seen = f"Case {spec.id}, {reference}{version}, {text.versions(run.versions, ('torch', 'transformers'))}."
    lines = [*_heading(needs, seen, shown), "", *code.imports, "", "", *code.body]
    if not pytest:
        lines += ["", "", 'if __name__ == "__main__":', f"{_INDENT}{function}()"]
    return Script(source="\n".join(lines) + "\n", why_harness=why)


# --- which of the two it is ------------------------------------------------------------------------------------------


def _stands_alone(outcome: Outcome) -> bool:
    if outcome.verdict is Verdict.UPSTREAM:
        return False
    if outcome.check == _WRAPPING:
        # That what it gave is no subject is said in the harness's own words.
        return outcome.verdict is not Verdict.FAIL or outcome.where == "refused"
    return outcome.check in _INPUTS


def _why_harness(spec: CaseSpec, of: Family, library: Adapter) -> str | None:
    import transformers  # lazy itself: this imports no torch

    if not spec.valid:
        return "it is about a config that Hugging Face refuses"
    if spec.checkpoint is not None:
        return "it is about a checkpoint's weights"
    if not isinstance(library, Scripted):
        return "the adapter does not say how its library is used without it (`verifier.adapter.Scripted`)"
    if not of.architecture.isidentifier() or of.architecture not in dir(transformers):
        return f"{text.line(of.architecture)} is no class of transformers"
    return None


def _why_check(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "nothing was checked on this case"
    if all(outcome.verdict is Verdict.UPSTREAM for outcome in outcomes):
        return "it is about Hugging Face, which disagrees with itself"
    return f"what {text.line(outcomes[0].check)} proves is more than a comparison of logits"


# --- with Hugging Face and the adapter's library alone ---------------------------------------------------------------


def _alone(spec: CaseSpec, of: Family, library: Scripted, outcome: Outcome, function: str) -> _Code:
    given, inputs = _INPUTS.get(outcome.check, _plain)(spec, outcome)
    usage = library.usage(given)
    imports = ["import torch", *usage.imports, f"from transformers import {of.architecture}"]
    if spec.device != "cpu":
        imports += ["", f"torch.set_default_device({_literal(spec.device)})"]
    shown = _wrapped(inputs, usage) if outcome.check == _WRAPPING else _compared(given, inputs, usage)
    if spec.attention is not None:
        # Not every model's can be set once it is built.
        shown[0] = shown[0].replace("build(),", f"build(attention={_literal(spec.attention)}),", 1)
    return _Code(imports=imports, body=[*_build(spec, of), "", "", f"def {function}():", *_indented(shown)])


def _build(spec: CaseSpec, of: Family) -> list[str]:
    """A function that makes Hugging Face's model, with weights as `random_weights` draws them."""
    scale = "" if spec.scale == 1.0 else f" * {_literal(spec.scale)}"
    attention = _literal(of.reference_attention)
    return [
        f"def build(dtype=torch.{SEMANTIC_DTYPE}, attention={attention}):",
        *_lines("config = ", dict(spec.config), _INDENT),
        f"    model = {of.architecture}._from_config(",
        f"        {of.architecture}.config_class(**config),",
        "        dtype=dtype,",
        "        attn_implementation=attention,",
        "    )",
        f"    torch.manual_seed({_literal(spec.seed)})",
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
    return [line] if len(_INDENT + line) <= WIDTH else ["inputs = {", *(f"{_INDENT}{item}," for item in items), "}"]


def _compared(given: Sequence[str], inputs: Sequence[str], usage: Usage) -> list[str]:
    """Statements that fail where the logits differ by more than what float32 makes of Hugging Face's own."""
    embeds = "inputs_embeds" in given
    single = ['single = inputs | {"inputs_embeds": inputs_embeds.float()}'] if embeds else []
    undefined = [
        "padding = attention_mask == 0  # what it gives is undefined",
        "wrong[padding] = rounding[padding] = 0",
    ]
    return [
        "model, reference = build(), build()  # alike: the adapter may take its own apart",
        *inputs,
        *_inputs_line(given),
        *usage.wrap,
        "with torch.no_grad():",
        "    right = reference(**inputs, use_cache=False).logits",
        *_indented(single),
        f"    rough = build(torch.{SINGLE})(**{'single' if embeds else 'inputs'}, use_cache=False).logits",
        *_indented(_fitting(f"found = {usage.logits}", WIDTH - 2 * len(_INDENT))),
        "wrong, rounding = found - right, rough - right",
        *(undefined if "attention_mask" in given else []),
        "at = torch.unravel_index(wrong.abs().argmax(), wrong.shape)",
        'print(f"farthest off at [batch, pos, vocab] = {[int(place) for place in at]}:")',
        'print(f"Hugging Face {right[at]:.12g}, adapter {found[at]:.12g}")',
        "wrong, rounding = (error.square().mean().sqrt() for error in (wrong, rounding))",
        'print(f"rms difference {wrong:.3g}; float32 alone would make it {rounding:.3g}")',
        f"assert wrong <= {MARGIN} * rounding, \"the adapter's logits are not Hugging Face's\"",
    ]


# --- inputs, as `scenarios` has them ---------------------------------------------------------------------------------

_Made = tuple[tuple[str, ...], list[str]]
"""Which inputs are given, and statements that make a variable of that name for each, for the model `reference`."""


def _ids(batch: int, length: int) -> list[str]:
    return [
        "vocab = reference.get_input_embeddings().num_embeddings",
        f"input_ids = torch.randint(vocab, ({_literal(batch)}, {_literal(length)}))",
    ]


def _plain(spec: CaseSpec, outcome: Outcome) -> _Made:
    return ("input_ids",), _ids(spec.batch, spec.length)


def _lengths(spec: CaseSpec, outcome: Outcome) -> _Made:
    one = "one token" in (outcome.where, (outcome.message or "").partition(":")[0])
    return ("input_ids",), _ids(spec.batch, 1) if one else _ids(1, spec.long)


def _padding(way: str) -> Callable[[CaseSpec, Outcome], _Made]:
    """A row without padding, and one with padding of that way."""

    def made(spec: CaseSpec, outcome: Outcome) -> _Made:
        third = max(1, spec.length // 3)
        left_out = {
            "left": [f":{third}"],
            "right": [f"-{third}:"],
            "gaps": [f"{third}:{2 * third}:2"],
            "mixed": [f":{third - 1}", f"{third + 1}", "-1:"],
        }
        lines = [*_ids(2, spec.length), "attention_mask = torch.ones_like(input_ids)"]
        lines += [f"attention_mask[1, {places}] = 0" for places in left_out[way]]
        return ("input_ids", "attention_mask"), lines

    return made


def _position_ids(spec: CaseSpec, outcome: Outcome) -> _Made:
    return ("input_ids", "attention_mask", "position_ids"), [
        *_ids(spec.batch, spec.length),
        "attention_mask = torch.ones_like(input_ids)",
        "position_ids = torch.randint(1, 4, input_ids.shape).cumsum(-1)",
    ]


def _padded_position_ids(spec: CaseSpec, outcome: Outcome) -> _Made:
    given, lines = _padding("mixed")(spec, outcome)
    return (*given, "position_ids"), [*lines, "position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)"]


def _inputs_embeds(spec: CaseSpec, outcome: Outcome) -> _Made:
    batch, length = _literal(spec.batch), _literal(spec.length)
    return ("inputs_embeds", "attention_mask"), [
        "d_model = reference.get_input_embeddings().embedding_dim",
        f"inputs_embeds = torch.randn({batch}, {length}, d_model).double()",
        f"left_out = torch.arange({batch}).clamp(max={_literal(spec.length - 1)})",
        f"attention_mask = (torch.arange({length}) >= left_out[:, None]).long()",
    ]


_INPUTS: Mapping[str, Callable[[CaseSpec, Outcome], _Made]] = {
    "build.forward": _plain,
    "forward.logits": _plain,
    "forward.lengths": _lengths,
    "forward.left_padding": _padding("left"),
    "forward.right_padding": _padding("right"),
    "forward.gaps": _padding("gaps"),
    "forward.mixed_padding": _padding("mixed"),
    "forward.position_ids": _position_ids,
    "forward.padded_position_ids": _padded_position_ids,
    "forward.inputs_embeds": _inputs_embeds,
}


# --- with the harness ------------------------------------------------------------------------------------------------


def _with_harness(spec: CaseSpec, reference: str, outcomes: Sequence[Outcome], function: str) -> _Code:
    imports = [
        "from verifier import adapter, checks, family",
        "from verifier.spec import CaseSpec",
        "from verifier.trial import run_case",
    ]
    body = [
        *_lines("CASE = ", spec.to_json()),
        *_lines("CHECKS = ", [outcome.check for outcome in outcomes]),
        "",
        "",
        f"def {function}():",
        "    spec = CaseSpec.from_json(CASE)",
        f"    library = adapter.load({_literal(reference)})",
        "    wanted = [check for check in checks.registered() if check.id in CHECKS]",
        "    ran, failed = [], []",
        "    for outcome in run_case(spec, family.load(spec.family), library, wanted):",
        "        print(outcome.check, outcome.verdict, outcome.where, outcome.message)",
        '        print(f"    error {outcome.measured}, bound {outcome.bound}")',
        '        ran += [outcome.check] if outcome.verdict != "skip" else []',
        "        failed += [outcome.check] if outcome.verdict.is_finding else []",
        '    assert ran, "nothing ran"',
        '    assert not failed, f"it fails: {failed}"',
    ]
    return _Code(imports=imports, body=body)


# --- text and literals -----------------------------------------------------------------------------------------------


def _heading(needs: str, seen: str, outcomes: Sequence[Outcome]) -> list[str]:
    """Comments. The first line is ours, and so is the second: Python looks for an encoding there."""
    said = [
        f"{outcome.check} ({outcome.verdict}): {text.said(outcome) or 'it said nothing'}" for outcome in outcomes[:5]
    ]
    return [
        "# It fails as long as what an adapter gives is not what Hugging Face's model gives.",
        *(line for one in (needs, seen, *said) for line in _comment(one)),
    ]


def _comment(words: str) -> list[str]:
    """The words in comments, in which nothing of them can end the line."""
    wrapped = textwrap.wrap(text.line(words, SAID), WIDTH - len("# "), break_on_hyphens=False)
    return [f"# {line}" for line in wrapped]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"{_INDENT}{line}" for line in lines]


def _fitting(call: str, width: int) -> list[str]:
    """The call, or what formatters make of one that is too long: its arguments on a line of their own."""
    if len(call) <= width or "(" not in call:
        return [call]
    before, _, rest = call.partition("(")
    arguments, _, after = rest.rpartition(")")
    return [f"{before}(", f"{_INDENT}{arguments}", f"){after}"]


def _lines(before: str, value: Any, indent: str = "") -> list[str]:
    """A list or a dict as code, an item a line, after `before`."""
    if not isinstance(value, Mapping | list | tuple) or not value:
        return [f"{indent}{before}{_literal(value)}"]
    one_line = f"{indent}{before}{_literal(value)}"
    if not isinstance(value, Mapping) and len(one_line) < WIDTH:
        return [one_line]
    deeper = indent + _INDENT
    if isinstance(value, Mapping):
        items = [_lines(f"{_literal(key)}: ", item, deeper) for key, item in value.items()]
    else:
        items = [_lines("", item, deeper) for item in value]
    inner = [line for item in items for line in (*item[:-1], f"{item[-1]},")]
    opening, closing = "{}" if isinstance(value, Mapping) else "[]"
    return [f"{indent}{before}{opening}", *inner, f"{indent}{closing}"]


def _literal(value: Any) -> str:
    """A plain value as code, a text in double quotes where it has no quote.

    Raises:
        UsageError: it is no plain value.
    """
    match value:
        case None | bool() | int() | float():
            return repr(value)
        case str():
            spelt = repr(value)
            return spelt if "'" in value or '"' in value else f'"{spelt[1:-1]}"'
        case list() | tuple():
            return f"[{', '.join(_literal(item) for item in value)}]"
        case Mapping():
            return f"{{{', '.join(f'{_literal(key)}: {_literal(item)}' for key, item in value.items())}}}"
        case _:
            raise UsageError(f"a {type(value).__name__} in a case cannot be written as code")
