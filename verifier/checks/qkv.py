"""Check the query, key and value projections: an adapter must split the fused weight as Hugging Face does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from verifier.adapter import Edit, Inputs, ProjectionLike
from verifier.cases.spec import SEMANTIC_DTYPE
from verifier.checks import check
from verifier.family import Projection
from verifier.judging.comparison import from_condition
from verifier.judging.numerics import compare_bitwise, float64_judge, unit
from verifier.judging.outcome import Finding, NotApplicable
from verifier.observing import activations
from verifier.observing.capabilities import require
from verifier.observing.case import Case
from verifier.observing.memo import memoized
from verifier.reference.random_weights import generator
from verifier.reference.weights import attention_layers


def _layer_numbers(case: Case) -> list[int]:
    """List the layers that have an attention; in hybrids others have none."""
    layers = attention_layers(case.family, case.reference.model())
    if not layers:
        raise NotApplicable("the model has no attention")
    return layers


def _split_projections(
    case: Case, layers: Iterable[int], dtype: str = SEMANTIC_DTYPE
) -> Iterator[tuple[str, ProjectionLike, Projection]]:
    """Yield by place the adapter's split projection, and HF's rows of it."""
    for layer in layers:
        split = require(case.subject.wrapped(dtype).weights).split(layer)
        rows = case.family.qkv_rows(case.reference.model(), layer)
        for letter in "qkv":
            yield f"blocks.{layer}.attn.{letter}", getattr(split, letter), getattr(rows, letter)


def _reference_rows(case: Case, projection: Projection, dtype: str = SEMANTIC_DTYPE) -> tuple[Tensor, Tensor | None]:
    """Select HF's rows of a projection: weight `[n_heads * d_head, d_model]` and bias `[n_heads * d_head]`."""
    module = case.reference.model(dtype).get_submodule(projection.module)
    index = projection.rows.flatten().to(module.weight.device)
    bias = getattr(module, "bias", None)
    return module.weight.detach()[index], None if bias is None else bias.detach()[index]


@memoized
def split_agrees(case: Case, layer: int) -> bool:
    """Whether the subject's split of a layer has HF's rows; `qkv.rows` reports where it has not.

    Args:
        case: the case.
        layer: its number, from 0.
    """
    for _, given, projection in _split_projections(case, [layer]):
        weight, bias = _reference_rows(case, projection)
        if not _are_equal(given.weight, weight) or not _are_equal(given.bias, bias):
            return False
    return True


def _are_equal(ours: Tensor | None, theirs: Tensor | None) -> bool:
    """Whether two weights or biases are equal; a bias of zeros equals a missing one."""
    if ours is None or theirs is None:
        return all(one is None or not bool(one.any()) for one in (ours, theirs))
    return ours.shape == theirs.shape and torch.equal(ours.detach().to(theirs), theirs)


@check("qkv.rows", needs=["weights"])
def rows(case: Case) -> Iterator[Finding]:
    """The split weights and biases are bit for bit the rows that HF's own split takes, head by head.

    A failure means that heads, or queries, keys and values, are mixed up. Every analysis of these weights, and every
    activation computed from them, belongs to another model.
    """
    for place, given, projection in _split_projections(case, _layer_numbers(case)):
        weight, bias = _reference_rows(case, projection)
        yield compare_bitwise(f"{place}.weight", given.weight, weight)
        if bias is not None:
            yield compare_bitwise(f"{place}.bias", given.bias, bias)
        elif given.bias is not None and bool((given.bias != 0).any()):
            yield from_condition(f"{place}.bias", "there is one, and HF has none")


@check("qkv.projections", needs=["weights"])
def projections(case: Case) -> Iterator[Finding]:
    """The split projections, applied to random vectors, give the output of HF's fused projection at their rows.

    A failure where `qkv.rows` passes means that a projection does not compute with the weights that it shows.
    """
    for place, given, projection in _split_projections(case, _layer_numbers(case)):
        weight, _ = _reference_rows(case, projection)
        shape = (case.spec.batch, case.spec.length, weight.shape[1])
        numbers = generator("projections", case.spec.seed, place)
        draw = torch.randn(shape, generator=numbers, dtype=torch.float64).to(weight.device)
        module = case.reference.model().get_submodule(projection.module)
        with torch.no_grad():
            truth = module(draw)[..., projection.rows.flatten().to(weight.device)]
            # Rounding of a sum of d_model products: each is off by a unit of the whole at most.
            terms = draw.abs() @ weight.abs().T
            actual = given(draw)
        yield float64_judge(unit(terms, torch.float64)).compare(place, actual, truth)


@check("qkv.heads", needs=["weights"])
def heads(case: Case) -> Iterator[Finding]:
    """Queries, keys and values have as many heads as HF's fused weight has rows for.

    A failure means that heads are lost, or that key/value heads are expanded: the adapter takes grouped-query or
    multi-query attention for another kind.
    """
    for place, given, projection in _split_projections(case, _layer_numbers(case)):
        n_heads, d_head = projection.rows.shape
        rows = given.weight.shape[0]
        found = rows // d_head if rows % d_head == 0 else rows / d_head
        yield from_condition(place, f"{found} heads of {d_head}, not {n_heads}" if found != n_heads else None)


@check("qkv.reads", needs=["hooks"])
def reads(case: Case) -> Iterator[Finding]:
    """Each query head reads the same key/value head as in HF's model.

    The check adds one to the values of a key/value head. The query heads whose `hook_z` rises by one read it, because
    a pattern sums to one. A failure means that key/value heads are assigned to the wrong query heads.
    """
    names = activations.hook_points(case)
    for layer in _layer_numbers(case):
        value_name, z_name = (f"blocks.{layer}.attn.hook_{what}" for what in ("v", "z"))
        if not {value_name, z_name} <= names.keys():
            raise NotApplicable(f"the adapter has no {value_name} or no {z_name}")
        rows = case.family.qkv_rows(case.reference.model(), layer)
        z = _z_with_values_raised(case, value_name, z_name, n_kv=rows.k.rows.shape[0])
        problem = _describe_wrong_heads(z, n_heads=rows.q.rows.shape[0])
        if problem or z is None:
            yield from_condition(z_name, problem)
        else:
            yield compare_bitwise(z_name, _find_read_heads(z), rows.reads)


def _z_with_values_raised(case: Case, value_name: str, z_name: str, *, n_kv: int) -> Tensor | None:
    """Read `hook_z` `[kv_head + 1, pos, head, d_head]`: row 0 unedited, in row j + 1 key/value head j raised by one."""
    ids = case.reference.inputs().input_ids
    assert ids is not None
    inputs = Inputs(input_ids=ids[:1].repeat(n_kv + 1, 1))

    def raise_one_each(value: Tensor) -> Tensor:  # [batch, pos, kv_head, d_head]
        raised = value.clone()
        for head in range(min(n_kv, value.shape[2])):
            raised[head + 1, :, head] += 1
        return raised

    case.subject.require_forward()
    subject = case.subject.wrapped()
    shown: list[Tensor] = []
    forward: dict[str, Edit] = {value_name: raise_one_each, z_name: lambda z: shown.append(z.detach().clone())}
    with torch.no_grad(), activations.hooked(case, subject, forward=forward):
        subject.forward(inputs)
    return shown[0] if shown else None


def _describe_wrong_heads(z: Tensor | None, *, n_heads: int) -> str | None:
    """Say why a `hook_z` cannot be read head by head; None where it can."""
    if z is None:
        return "it takes a hook and does not fire"
    if z.ndim != 4 or z.shape[2] != n_heads:
        return f"its shape is {list(z.shape)}, not [batch, pos, {n_heads}, d_head]"
    return None


def _find_read_heads(z: Tensor) -> Tensor:
    """`[head]`: the key/value head that each query head of the subject reads; -1 for none or several."""
    risen = (z[1:].double() - z[:1].double()).mean((1, 3)).round() == 1  # [kv_head, head]
    return torch.where(risen.sum(0) == 1, risen.double().argmax(0), -1).cpu()


@check("qkv.placement", needs=["weights"], applies="pairwise")
def placement(case: Case) -> Iterator[Finding]:
    """The split weights and biases have the dtype and the device of HF's, in every dtype of the case.

    A failure means that the adapter casts weights, and loses precision, or moves them to another device.
    """
    for dtype in (SEMANTIC_DTYPE, *case.spec.dtypes):
        for place, given, projection in _split_projections(case, _layer_numbers(case), dtype):
            weight, bias = _reference_rows(case, projection, dtype)
            for part, ours, theirs in (("weight", given.weight, weight), ("bias", given.bias, bias)):
                if ours is None or theirs is None:
                    continue  # `qkv.rows` reports it
                for name in ("dtype", "device"):
                    found, wanted = getattr(ours, name), getattr(theirs, name)
                    wrong = f"{found} in a {dtype} model, not {wanted}" if found != wanted else None
                    yield from_condition(f"{place}.{part}.{name}", wrong)


@check("qkv.aliasing", needs=["weights"])
def aliasing(case: Case) -> Iterator[Finding]:
    """Writing into the query, key or value weight of a layer changes no other projection of any layer.

    The check compares the weights that it already has, and those of a new call. A failure means that an edit of one
    projection silently edits another.
    """
    layers = _layer_numbers(case)

    def weights() -> dict[str, Tensor]:
        return {place: given.weight for place, given, _ in _split_projections(case, layers)}

    kept = weights()
    before = {place: weight.detach().clone() for place, weight in kept.items()}
    for place, weight in kept.items():
        try:
            with torch.no_grad():
                weight.add_(1)
            seen = [(name, other) for given in (kept, weights()) for name, other in given.items() if name != place]
            changed = [name for name, other in seen if not torch.equal(other.detach(), before[name])]
        finally:
            with torch.no_grad():
                weight.copy_(before[place])
        yield from_condition(place, f"writing into it changes {changed[0]}" if changed else None)
